"""A Managed Agent at the edges: late events, lost streams, unreadable answers, other loops, processes and tasks."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
from datetime import UTC, datetime
from typing import Any

import anthropic
import anyio
import httpx2
import pytest

from fsm._core.table import Trigger
from fsm.errors import InvalidInput, ProviderError
from fsm.events import Result, TextDelta
from fsm.provider import Request
from fsm.providers import AnthropicAgents
from fsm.providers.anthropic_agents.content import Call, first_events, next_events
from fsm.records import Message
from tests.providers.agents_script import Act, Odd, Raw, Step, called, event, idle, running, said, turn
from tests.providers.agents_server import AgentsServer, Refusal, Session
from tests.providers.agents_way import NAMED, Way, async_client, client, request, text_of

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(30)]

AGAIN = request("again", session="sesn_1")


def text(told: str) -> dict[str, Any]:
    return {"type": "text", "text": told}


def answer(call_id: str, content: str) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": call_id, "content": content}


def stored(number: int, *blocks: dict[str, Any]) -> Message:
    return Message(number=number, turn=number, role="user", content=blocks, created_at=datetime.now(UTC))


def interrupts(server: AgentsServer) -> int:
    """How often the agent was told to stop."""
    return [one["type"] for asked in server.asked("send") for one in asked["events"]].count("user.interrupt")


def text_said(events: list[Any]) -> str:
    return text_of([one for one in events if isinstance(one, TextDelta)])


# A message is heard once


@pytest.mark.parametrize("lag", [1, 2, 4])
@pytest.mark.parametrize("hidden", [{"user.message"}, {"user.message", "session.status_running"}, None])
@pytest.mark.parametrize("refusal", [Refusal(done=True), Refusal(504, "timeout_error", done=True), Refusal(502)])
def test_a_message_that_the_list_shows_late_is_heard_once(
    agent: Way, lag: int, hidden: set[str] | None, refusal: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent.ask(request())
    real, left = AgentsServer.list, [lag]

    def late(self: AgentsServer, session: Session, asked: dict[str, Any]) -> dict[str, Any]:
        page = real(self, session, asked)
        if len(session.texts()) > 1 and left[0]:
            left[0] -= 1
            old = {entry["id"] for entry in session.log[: session.log.index(_message(session, 1))]}
            page["data"] = [
                entry for entry in page["data"] if entry["id"] in old or (hidden and entry["type"] not in hidden)
            ]
        return page

    monkeypatch.setattr(AgentsServer, "list", late)
    agent.server.refuses("send", refusal)
    events, result = agent.one(AGAIN, retries=2)
    assert agent.server.session().texts() == ["hello", "again"]
    assert (text_said(events), result.trigger) == ("You said: again", Trigger.SUCCEEDED)


def _message(session: Session, number: int) -> dict[str, Any]:
    return [entry for entry in session.log if entry["type"] == "user.message"][number]


def test_a_message_that_no_list_ever_shows_is_known_by_the_session_that_works(
    agent: Way,
) -> None:
    agent.ask(request())
    agent.server.will((running(), said("Well.")))
    agent.server.refuses("send", Refusal(done=True))
    old = list(agent.server.session().log)
    real = agent.server.do

    def do(operation: str, session_id: str | None, asked: dict[str, Any]) -> dict[str, Any]:
        if operation == "list":
            return {"data": old[::-1], "next_page": None}
        answered = real(operation, session_id, asked)
        if operation == "retrieve":
            agent.server.emit(agent.server.session(), idle())
        return answered

    agent.server.do = do  # type: ignore[method-assign]
    assert text_of(agent.ask(AGAIN, retries=2)[0]) == "Well."
    assert agent.server.session().texts() == ["hello", "again"]


def test_an_earlier_message_that_arrives_late_is_not_taken_for_the_new_one(agent: Way) -> None:
    agent.ask(request())
    session = agent.server.session()
    agent.server.refuses("send", Refusal())

    real = agent.server.do

    def do(operation: str, session_id: str | None, asked: dict[str, Any]) -> dict[str, Any]:
        if operation == "list" and len(agent.server.asked("send")) == 2 and len(session.texts()) == 1:
            late = agent.server.stamped(event("user.message", content=[text("an earlier one")]))
            agent.server.push(session, late)
        return real(operation, session_id, asked)

    agent.server.do = do  # type: ignore[method-assign]
    agent.one(AGAIN, retries=2)
    assert session.texts() == ["hello", "an earlier one", "again"]


def test_a_message_that_a_gateway_answered_with_a_page_is_looked_for(agent: Way) -> None:
    agent.ask(request())
    agent.server.refuses("send", Refusal(200, body=b"<html>", content_type="text/html", done=True))
    assert text_of(agent.ask(AGAIN, retries=2)[0]) == "You said: again"
    assert agent.server.session().texts() == ["hello", "again"]


# The stream can't be had

LOST = [Refusal(503, "overloaded_error"), Refusal(), Refusal(404), Refusal(500), Refusal(400, "invalid_request_error")]


@pytest.mark.parametrize("lost", LOST)
def test_an_answer_is_listed_when_the_stream_can_not_be_opened_any_more(agent: Way, lost: Refusal) -> None:
    agent.server.will((running(), said("I begin."), Act.CUT))
    agent.server.refuses("stream", None, *[lost] * 11)
    finish = _finishes_at_poll(agent.server, 20)
    events, result = agent.one(request("Do the long job"))
    assert (text_said(events), result.trigger) == ("I begin.\n\nThe job is done: 42.", Trigger.SUCCEEDED)
    assert finish[0] == 0
    assert interrupts(agent.server) == 0
    agent.server.refusals.clear()


def _finishes_at_poll(server: AgentsServer, number: int) -> list[int]:
    """Let the agent finish when its events were listed so many times."""
    left = [number]
    real = server.do

    def do(operation: str, session_id: str | None, asked: dict[str, Any]) -> dict[str, Any]:
        if operation == "list" and left[0]:
            left[0] -= 1
            if not left[0]:
                for one in (said("The job is done: 42."), idle()):
                    server.emit(server.session(), one)
        return real(operation, session_id, asked)

    server.do = do  # type: ignore[method-assign]
    return left


@pytest.mark.parametrize("lost", LOST[:2])
@pytest.mark.parametrize("operations", [("stream",), ("stream", "list")])
def test_an_agent_that_can_not_be_heard_any_more_is_stopped(
    agent: Way, lost: Refusal, operations: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    agent.server.will((running(), said("I begin."), Act.CUT))
    agent.server.refuses("stream", None, *[lost] * 30)
    if "list" in operations:
        agent.server.refuses("list", *[lost] * 30)
    with caplog.at_level(logging.WARNING, "fsm"):
        events, result = agent.one(request("Do the long job"))
    assert (text_said(events), result.trigger, result.session_id) == ("I begin.", Trigger.FAILED, "sesn_1")
    assert (interrupts(agent.server), agent.server.session().status) == (1, "idle")
    assert [record.message for record in caplog.records if record.name == "fsm"] == ["provider.stream_lost"]
    agent.server.refusals.clear()
    assert text_of(agent.ask(AGAIN)[0]) == "You said: again"


@pytest.mark.parametrize("refusal", [Refusal(401, "authentication_error"), Refusal(403, "permission_error")])
def test_a_turn_that_is_given_up_in_the_middle_stops_the_agent(agent: Way, refusal: Refusal) -> None:
    agent.server.will((running(), said("a"), Act.CUT))
    agent.server.refuses("stream", None, refusal)
    assert agent.result(request()).http_status == refusal.status
    assert (interrupts(agent.server), agent.server.session().status) == (1, "idle")


def test_an_agent_that_does_not_stop_is_waited_for_within_bounds(agent: Way) -> None:
    agent.ask(request())
    session = agent.server.session()
    agent.server.push(session, agent.server.stamped(running()))
    session.rest.extend([Act.HOLD] * 20)
    result = agent.result(AGAIN)
    assert (result.subtype, result.trigger, result.session_id) == ("error_busy", Trigger.FAILED, "sesn_1")


# Tool results are told truly

CALLS = {"c1": Call("agent.custom_tool_use", "add"), "c2": Call("agent.tool_use", "bash", asks=True)}


def test_a_call_without_a_result_is_not_told_that_it_did_not_run() -> None:
    first, second, _ = next_events([text("never mind")], CALLS)
    assert first["content"] == [text("no result was recorded; it may have run")]
    assert (first["is_error"], second["result"]) == (True, "deny")
    assert "not run" not in str((first, second))


def test_a_result_of_a_failed_turn_answers_the_call_that_still_waits(agent: Way) -> None:
    agent.server.will(turn(called("c1"), called("c2"), stop="requires_action", waits=("c1", "c2")))
    agent.ask(request("1+2?"))
    history = (stored(2, answer("c1", "old"), answer("c9", "x")), stored(3, answer("c1", "3"), answer("c2", "stored")))
    asked = Request(
        key="k",
        turn=4,
        session_number=1,
        content=(answer("c2", "new"), text("And now?")),
        session_id="sesn_1",
        history=history,
    )
    assert agent.result(asked).trigger is Trigger.SUCCEEDED
    sent = agent.server.asked("send")[-1]["events"]
    assert [(one["type"], one["content"][0]["text"]) for one in sent] == [
        ("user.custom_tool_result", "new"),
        ("user.custom_tool_result", "3"),
        ("user.message", "And now?"),
    ]


def test_results_that_nobody_waits_for_are_not_told_again(agent: Way) -> None:
    agent.ask(request())
    asked = Request(
        key="k",
        turn=4,
        session_number=1,
        content=(text("again"),),
        session_id="sesn_1",
        history=(stored(2, answer("c1", "3")),),
    )
    agent.result(asked)
    assert agent.server.session().texts() == ["hello", "again"]


def test_a_new_session_is_told_the_history_and_not_only_the_results() -> None:
    (sent,) = first_events([stored(1, text("My name is Ada."))], [text("Who am I?")])
    assert "My name is Ada." in sent["content"][0]["text"]
    assert AnthropicAgents.wants_tool_results


# Signs of life


def test_every_event_ping_and_poll_is_a_sign_of_life(agent: Way) -> None:
    signs: list[int] = []
    ping = Raw(b"event: ping\ndata: {}\n\n")
    agent.server.will((running(), said("a"), Act.HOLD))
    asked = request("hello", alive=lambda: signs.append(len(agent.server.received)))
    agent.ask(asked, events=1)
    before = len(signs)
    assert before >= 4
    agent.server.will(turn(*[ping] * 20, said("a")))
    signs.clear()
    agent.ask(request("hello", alive=lambda: signs.append(0)))
    quiet = len(signs)
    signs.clear()
    agent.server.will((running(), Act.CUT))
    agent.server.refuses("stream", None, *[Refusal(503)] * 10)
    _finishes_at_poll(agent.server, 30)
    agent.ask(request("hello", alive=lambda: signs.append(0)))
    assert quiet >= 4
    assert len(signs) > 30
    agent.server.refusals.clear()


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ({"timeout": 5, "max_retries": 2}, 15.0),
        ({"timeout": None}, None),
        ({"timeout": httpx2.Timeout(1, read=7), "max_retries": 0}, 7.0),
    ],
)
def test_the_longest_silence_is_that_of_the_client(given: dict[str, Any], seconds: float | None) -> None:
    with anthropic.Anthropic(api_key="key", **given) as made:
        assert AnthropicAgents(client=made, **NAMED).longest_silence == seconds


# Loops, processes, threads and tasks


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.mark.usefixtures("no_proxy")
@pytest.mark.parametrize("retries", [0, 2])
def test_one_provider_answers_in_several_loops_one_after_the_other(agents: AgentsServer, retries: int) -> None:
    agents.keeps_alive = False  # nobody closes the client of a loop that is gone
    provider = AnthropicAgents(async_client=_given(agents, retries), **NAMED)

    async def ask() -> Any:
        return [event async for event in provider.astream(request())][-1]

    for backend in ("asyncio", "asyncio", "trio", "asyncio"):
        assert anyio.run(ask, backend=backend).trigger is Trigger.SUCCEEDED


@pytest.mark.usefixtures("no_proxy")
@pytest.mark.parametrize("retries", [0, 2])
def test_one_provider_answers_in_several_loops_at_once(agents: AgentsServer, retries: int) -> None:
    agents.keeps_alive = False  # nobody closes the client of a loop that is gone
    provider = AnthropicAgents(async_client=_given(agents, retries), **NAMED)
    results: list[Any] = []
    together = threading.Barrier(3)

    async def ask() -> None:
        for _ in range(3):
            await asyncio.to_thread(together.wait, 20)
            results.append([event async for event in provider.astream(request())][-1])

    threads = [threading.Thread(target=asyncio.run, args=(ask(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    assert [result.trigger for result in results] == [Trigger.SUCCEEDED] * 9


def _given(server: AgentsServer, retries: int) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=server.url, api_key="key", max_retries=retries)


def in_child(work: Any) -> int:
    """Run this in a forked child; the exit code of that, 0 if nothing was raised."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("how", ["close", "collect", "read"])
def test_a_stream_that_a_forked_child_inherits_is_its_parents(agents: AgentsServer, how: str) -> None:
    agents.will((running(), said("Well,"), Act.HOLD, said("done."), idle()))
    with client(agents) as made:
        streams = [AnthropicAgents(client=made, **NAMED).stream(request())]
        assert next(streams[0]) == TextDelta("Well,")

        def child() -> None:
            if how == "close":
                streams[0].close()
            elif how == "read":
                with pytest.raises(ProviderError, match="forked"):
                    next(streams[0])
            streams.clear()
            gc.collect()

        assert in_child(child) == 0
        assert (interrupts(agents), agents.open_streams) == (0, 1)
        agents.go_on(agents.session())
        events = list(streams[0])
    assert text_of(events) == "\n\ndone."
    assert isinstance(events[-1], Result)
    assert events[-1].trigger is Trigger.SUCCEEDED


def test_an_asynchronous_stream_that_a_forked_child_inherits_is_its_parents(agents: AgentsServer) -> None:
    agents.will((running(), said("Well,"), Act.HOLD, said("done."), idle()))

    async def ask() -> list[Any]:
        async with async_client(agents) as made:
            stream = AnthropicAgents(async_client=made, **NAMED).astream(request())
            assert await anext(stream) == TextDelta("Well,")

            def child() -> None:
                asyncio.set_event_loop(None)
                asyncio._set_running_loop(None)
                with pytest.raises(StopIteration):
                    stream.aclose().send(None)

            assert in_child(child) == 0
            assert (interrupts(agents), agents.open_streams) == (0, 1)
            await anyio.to_thread.run_sync(agents.go_on, agents.session())
            return [event async for event in stream]

    assert text_of(anyio.run(ask)) == "\n\ndone."


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("finished", [False, True])
def test_a_stream_is_closed_from_another_task(agents: AgentsServer, backend: str, finished: bool) -> None:
    agents.will(turn(said("Well,")) if finished else (running(), said("Well,"), Act.HOLD))

    async def ask() -> None:
        async with async_client(agents) as made:
            stream = AnthropicAgents(async_client=made, **NAMED).astream(request())
            with anyio.fail_after(20):
                for _ in range(1 + finished):
                    await anext(stream)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(stream.aclose)
            assert await anyio.to_thread.run_sync(agents.wait_until_left)
            with anyio.CancelScope() as scope:  # the scopes of this task are as they were
                scope.cancel()
                await anyio.sleep(1)
            assert scope.cancelled_caught

    anyio.run(ask, backend=backend)
    assert interrupts(agents) == (not finished)


def test_a_stream_is_closed_from_another_thread(agents: AgentsServer) -> None:
    agents.will((running(), said("Well,"), Act.HOLD))
    with client(agents) as made:
        stream = AnthropicAgents(client=made, **NAMED).stream(request())
        next(stream)
        thread = threading.Thread(target=stream.close)
        thread.start()
        thread.join(20)
        assert agents.wait_until_left()
    assert (thread.is_alive(), interrupts(agents)) == (False, 1)


# What can't be read

ODD: list[Step] = [
    Odd(event("agent.message", content=None)),
    Odd(event("agent.message", content="psst")),
    Odd(event("agent.message", content=[None, 3, {"type": "text"}, {"type": "text", "text": 4}])),
    Odd(event("agent.message", content=[], processed_at=None)),
    Odd(event("agent.message", content=[], processed_at="0001-01-01T00:00:00Z")),
    Odd(event("agent.message", content=[], processed_at="2026-01-01T00:00:00")),
    Odd(event("agent.message", content=[], processed_at=17)),
    Odd(event("agent.tool_use", id=None, name="x", input={})),
    Odd(event("agent.tool_use", id="c1", name=None, input=None)),
    Odd(event("agent.tool_result", tool_use_id=None, content=[text("3")])),
    Odd(event("agent.tool_result", tool_use_id="c1", content="3", is_error=None)),
    Odd(event("span.model_request_end", model_usage=None)),
    Odd(event("span.model_request_end", model_usage={"input_tokens": None, "output_tokens": "7"})),
    Odd(event("session.error", error=None)),
    Odd(event("session.error", error={"type": None, "message": None, "retry_status": None})),
    Odd(event("session.error", error="psst")),
    Odd(event("session.napping", nap=None)),
    Odd(event("agent.dreaming", dream={"of": ["sheep"]})),
    Odd({"type": None}),
    Odd({"type": 3}),
    Odd({}),
    Odd(event("event_start", event=None)),
    Odd(event("event_delta", event_id=None, delta=None)),
    Raw(b"event: message\ndata: null\n\n"),
    Raw(b"event: message\ndata: 3\n\n"),
    Raw(b"event: message\ndata: []\n\n"),
    Raw(b'event: message\ndata: "agent.message"\n\n'),
    Raw(b"data: {}\n\n"),
    Raw(b": a comment\n\n"),
]


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: str(odd)[:60])
def test_an_event_that_lacks_something_costs_nothing_else(agent: Way, odd: Step) -> None:
    agent.server.will((running(), said("a"), odd, said("b"), idle()))
    events, result = agent.one(request())
    assert (text_said(events), result.trigger, result.session_id) == ("a\n\nb", Trigger.SUCCEEDED, "sesn_1")
    assert text_of(agent.ask(AGAIN)[0]) == "You said: again"


UNREADABLE: list[Step] = [
    Raw(b"event: message\ndata: {nonsense\n\n"),
    Raw(b"event: message\ndata: \xff\xfe\n\n"),
    Raw(b"event: error\ndata: {nonsense\n\n"),
    Raw(b"event: error\ndata: null\n\n"),
    Raw(b'event: error\ndata: {"type": "error", "error": {"type": "invalid_request_error"}}\n\n'),
    Raw(b'event: error\ndata: {"type": "error", "error": {"type": "not_found_error"}}\n\n'),
]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the SDK's generators, on trio
@pytest.mark.parametrize("unreadable", UNREADABLE, ids=lambda raw: str(raw)[:60])
def test_a_stream_that_can_not_be_read_is_opened_again(agent: Way, unreadable: Step) -> None:
    agent.server.will((running(), said("a"), unreadable, said("b"), Act.UNTIL_OPEN, said("c"), idle()))
    events, result = agent.one(request())
    assert (text_said(events), result.trigger) == ("a\n\nb\n\nc", Trigger.SUCCEEDED)


BROKEN: list[Step] = [
    Odd(event("agent.tool_use", id="c1", name="x", input=[1])),
    Odd(event("agent.tool_use", id={}, name="x", input={})),
    Odd(event("agent.tool_use", id="x" * 600, name="x", input={})),
    Odd(event("agent.tool_result", tool_use_id=[1], content=[])),
    Odd(event("session.status_idle", stop_reason=None)),
    Odd(event("session.status_idle", stop_reason={"type": 3})),
    Odd(event("session.status_idle", stop_reason={"type": "x" * 600})),
]


@pytest.mark.parametrize("broken", BROKEN, ids=lambda odd: str(odd)[:60])
def test_an_event_that_can_not_be_read_is_an_error_that_keeps_what_was_said(agent: Way, broken: Step) -> None:
    agent.server.will((running(), said("a"), broken, Act.HOLD))
    events, result = agent.one(request())
    assert (text_said(events), result.subtype, result.session_id) == ("a", "error_response", "sesn_1")
    assert interrupts(agent.server) == 1
    agent.server.session().log.append(agent.server.stamped(idle()))
    agent.server.session().status = "idle"
    assert text_of(agent.ask(AGAIN)[0]) == "You said: again"


GARBAGE = [b"", b"null", b"3", b"[]", b"{}", b'"x"', b'{"data": null}', b'{"data": 3}', b'{"data": {}}', b'{"id": 3}']
GARBAGE += [b'{"id": null}', b"{nonsense", b"\xff"]


@pytest.mark.parametrize("body", GARBAGE)
@pytest.mark.parametrize("content_type", ["application/json", "text/html"])
@pytest.mark.parametrize("operation", ["create", "list", "retrieve"])
def test_an_answer_that_can_not_be_read_is_an_error_of_the_answer(
    agent: Way, operation: str, body: bytes, content_type: str
) -> None:
    agent.ask(request())
    if operation == "retrieve":
        agent.server.session().log.append(agent.server.stamped(running()))
    agent.server.refuses(operation, Refusal(200, body=body, content_type=content_type))
    result = agent.result(request() if operation == "create" else AGAIN)
    assert (result.subtype, result.trigger) == ("error_response", Trigger.FAILED)
    assert result.session_id == (None if operation == "create" else "sesn_1")


@pytest.mark.parametrize("body", [b"{}", b'{"data": null}', b"<html>"])
def test_a_list_that_can_not_be_read_is_asked_for_again_while_the_agent_works(agent: Way, body: bytes) -> None:
    agent.server.will((running(), said("a"), Act.CUT, said("b"), idle()))
    agent.server.refuses("list", Refusal(200, body=body))
    assert text_of(agent.ask(request())[0]) == "a\n\nb"


# Arguments


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"agent": 3}, "agent is of type int"),
        ({"agent": None}, "agent is of type NoneType"),
        ({"agent": {"id": "agent_1", "system": {3}}}, "can't be written as JSON"),
        ({"environment": 3}, "environment is of type int"),
        ({"previews": "no"}, "previews is 'no'"),
        ({"options": "title"}, "options is of type str"),
        ({"options": [("title", "x")]}, "options is of type list"),
        ({"options": {3: "x"}}, "pass arguments of sessions.create by name"),
        ({"options": {"return": 1}}, "has return, which sessions.create does not take"),
        ({"options": {"self": 1}}, "has self, which sessions.create does not take"),
        ({"options": {"betas": "files-api"}}, "betas in options must be a list"),
        ({"options": {"betas": [3]}}, "betas in options must be a list"),
        ({"options": {"metadata": "x"}}, "the metadata is of type str"),
        ({"options": {"metadata": {"team": 3}}}, "the metadata pair 'team' must be two texts"),
        ({"options": {"metadata": {"team": "x" * 513}}}, "the metadata pair 'team' is too long"),
        ({"options": {"metadata": {"t" * 65: "x"}}}, "is too long"),
        ({"client": anthropic.Anthropic}, "client is the class Anthropic"),
        ({"client": "key"}, "client is of type str"),
        ({"async_client": 3}, "async_client is of type int"),
    ],
)
def test_an_argument_of_the_wrong_type_is_refused_by_name(
    agents: AgentsServer, given: dict[str, Any], why: str
) -> None:
    with client(agents) as made, pytest.raises(InvalidInput, match=why):
        AnthropicAgents(**{**NAMED, "client": made, **given})


def test_a_beta_and_a_workspace_go_with_every_call(agent: Way) -> None:
    options = {"betas": ["files-api"], "workspace_id": "wrkspc_1"}
    agent.ask(request(), options=options)
    agent.server.will((running(), said("Well,"), Act.HOLD))
    agent.ask(AGAIN, events=1, options=options)
    assert len(agent.server.heads) == len(agent.server.received) == 7
    for head in agent.server.heads:
        assert head["anthropic-workspace-id"] == "wrkspc_1"
        assert "files-api" in head["anthropic-beta"]
