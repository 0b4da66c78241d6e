"""Managed Agents as a provider: the SDK as it is, against sessions on a server of the tests' own."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import anthropic
import anyio
import attrs
import pytest
from anthropic.types.beta.sessions import BetaManagedAgentsSessionStatusIdleEvent as Idle

from fsm._core.table import Trigger
from fsm.content import as_blocks
from fsm.errors import InvalidContent, InvalidInput, ProviderError
from fsm.events import Result, TextDelta, ToolResult, ToolUse
from fsm.provider import AsyncProvider, Provider
from fsm.providers import AnthropicAgents
from fsm.providers.anthropic_agents import exchange as agents_exchange
from fsm.providers.anthropic_agents import provider as anthropic_agents
from fsm.providers.anthropic_agents.events import Hearing
from fsm.providers.anthropic_agents.exchange import Exchange, Todo
from fsm.records import Message
from fsm.testing import check_provider
from tests.providers.agents_script import (
    TEXT_USAGE,
    Act,
    Step,
    called,
    deleted,
    error,
    event,
    idle,
    previewed,
    resulted,
    running,
    said,
    spent,
    terminated,
    turn,
)
from tests.providers.agents_server import AgentsServer, Refusal
from tests.providers.agents_way import NAMED, Way, async_client, client, request, text_of

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(60)]

PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
PDF = {"type": "document", "title": "T", "source": {"type": "file", "file_id": "file_1"}}


def text(told: str) -> dict[str, Any]:
    return {"type": "text", "text": told}


def stored(role: str, told: str) -> Message:
    """A stored message."""
    return Message(number=1, turn=1, role=role, content=(text(told),), created_at=datetime.now(UTC))  # type: ignore[arg-type]


def told(events: list[Any]) -> list[str]:
    return [item.text for item in events if isinstance(item, TextDelta)]


# An answer


def test_a_new_session_is_created_labelled_and_sent_the_message(agent: Way) -> None:
    agent.server.will(turn(said("Hello there.")))
    events, result = agent.one(request("hello"), options={"title": "A", "metadata": {"team": "x"}})
    assert events == [TextDelta("Hello there.")]
    assert (result.trigger, result.session_id, result.stop_reason) == (Trigger.SUCCEEDED, "sesn_1", "end_turn")
    assert (result.usage, result.errors) == (TEXT_USAGE, ())
    assert result.raw is not None
    assert result.raw["type"] == "session.status_idle"
    assert agent.server.received == [
        (
            "create",
            {
                "agent": "agent_1",
                "environment_id": "env_1",
                "title": "A",
                "metadata": {"team": "x", "conversation_key": "k", "session_number": "1"},
            },
        ),
        ("stream", {"event_deltas[]": ["agent.message"]}),
        ("send", {"events": [{"type": "user.message", "content": [text("hello")]}]}),
    ]


def test_the_longest_key_fits_into_the_label(agents: AgentsServer) -> None:
    with client(agents) as made:
        longest = Way("sync", agents)
        provider = AnthropicAgents(client=made, **NAMED)
        asked = request()
        events = list(provider.stream(attrs.evolve(asked, key="ü" * 512, session_number=7)))
    assert longest.server.session().created["metadata"] == {"conversation_key": "ü" * 512, "session_number": "7"}
    assert isinstance(events[-1], Result)
    assert events[-1].trigger is Trigger.SUCCEEDED


def test_a_session_that_says_it_is_idle_before_it_has_heard_the_message_has_not_answered(agent: Way) -> None:
    agent.server.greets = True
    assert text_of(agent.ask(request())[0]) == "You said: hello"


def test_a_session_that_is_held_is_sent_the_new_message_only(agent: Way) -> None:
    first, second = agent.ask(request("hello"), request("again", session="sesn_1"))
    assert (text_of(first), text_of(second)) == ("You said: hello", "You said: again")
    assert second[-1].session_id == "sesn_1"  # type: ignore[union-attr]
    assert len(agent.server.sessions) == 1
    assert agent.server.session().texts() == ["hello", "again"]


def test_a_new_session_is_told_the_history_delimited_before_the_new_blocks(agent: Way) -> None:
    history = (stored("user", "My name is Ada."), stored("assistant", "Hello Ada."))
    agent.result(request([text("Who am I?"), PNG, PDF], *history))
    ((sent,),) = (asked["events"] for asked in agent.server.asked("send"))
    preamble, *new = sent["content"]
    assert new == [text("Who am I?"), PNG, PDF]
    assert "Answer only the message after it." in preamble["text"]
    assert preamble["text"].count("My name is Ada.") == preamble["text"].count("Hello Ada.") == 1
    assert preamble["text"].rstrip().endswith('">')


def test_thinking_and_what_is_withheld_stay_out_of_the_text(agent: Way) -> None:
    withheld = event("agent.message", content=[{"type": "redacted"}, text("So.")])
    agent.server.will(turn(event("agent.thinking"), withheld))
    assert told(agent.one(request())[0]) == ["So."]


def test_messages_of_one_turn_are_paragraphs(agent: Way) -> None:
    agent.server.will(turn(said("I look."), said("Found", " it.")))
    assert text_of(agent.ask(request())[0]) == "I look.\n\nFound it."


def test_what_is_none_of_the_callers_business_is_not_heard(agent: Way) -> None:
    thread = {"session_thread_id": "sthr_1", "agent_name": "helper"}
    message = {"content": [text("psst")]}
    agent.server.will(
        turn(
            event("session.status_rescheduled"),
            event("session.thread_created", **thread),
            event("session.thread_status_running", **thread),
            event("agent.thread_message_sent", to_session_thread_id="sthr_1", **message),
            event("agent.thread_message_received", from_session_thread_id="sthr_1", **message),
            event("session.thread_status_idle", stop_reason={"type": "end_turn"}, **thread),
            event("session.thread_status_terminated", **thread),
            event("agent.thread_context_compacted"),
            event("session.updated", title="B"),
            event("session.usage", usage={"input_tokens": 99}),
            event("system.message", content=[text("psst")]),
            said("Done."),
        )
    )
    events, result = agent.one(request())
    assert (told(events), result.usage) == (["Done."], TEXT_USAGE)


def test_usage_is_summed_over_the_requests_and_evaluations_of_the_turn(agent: Way) -> None:
    outcome = {"outcome_id": "outc_1", "outcome_evaluation_start_id": "sevt_x", "iteration": 0}
    graded = event("span.outcome_evaluation_end", explanation="", result="satisfied", usage=TEXT_USAGE, **outcome)
    agent.server.will(turn(spent(speed="fast", output_tokens=7), graded, said("Done.")))
    assert agent.result(request()).usage == {
        "input_tokens": 30,
        "output_tokens": 17,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
    }


# Previews


def test_a_message_comes_piece_by_piece_and_once(agent: Way) -> None:
    agent.server.will(turn(*previewed("sevt_m", "Hel", "lo."), said("Hello.", id="sevt_m")))
    assert told(agent.one(request())[0]) == ["Hel", "lo."]


def test_what_a_preview_lacks_comes_with_its_message(agent: Way) -> None:
    thinking = event("event_start", event={"type": "agent.thinking", "id": "sevt_t"})
    agent.server.will(turn(thinking, *previewed("sevt_m", "Hel", ""), said("Hello.", id="sevt_m")))
    assert told(agent.one(request())[0]) == ["Hel", "lo."]


def test_a_preview_whose_beginning_was_not_heard_is_left_out(agent: Way) -> None:
    _, stray = previewed("sevt_m", "lo.")
    agent.server.will((stray, *turn(stray, said("Hello.", id="sevt_m"), stray)))
    assert told(agent.one(request())[0]) == ["Hello."]


def test_a_message_that_the_api_wrote_again_begins_a_paragraph(agent: Way) -> None:
    retried = error("model_overloaded_error", "retrying")
    agent.server.will(
        turn(*previewed("sevt_m", "Hel"), retried, running(), *previewed("sevt_n", "Hi"), said("Hi.", id="sevt_n"))
    )
    events, result = agent.one(request())
    assert told(events) == ["Hel", "\n\nHi", "."]
    assert (result.trigger, result.errors) == (
        Trigger.SUCCEEDED,
        ("model_overloaded_error: told of model_overloaded_error",),
    )


def test_without_previews_a_message_comes_whole(agent: Way) -> None:
    agent.server.will(turn(*previewed("sevt_m", "Hel", "lo."), said("Hello.", id="sevt_m")))
    assert told(agent.one(request(), previews=False)[0]) == ["Hello."]
    assert "event_deltas[]" not in agent.server.asked("stream")[0]


# Tools


def test_tools_that_the_agent_runs_are_told_with_their_results(agent: Way) -> None:
    found = event("agent.mcp_tool_result", mcp_tool_use_id="c2", content=[text("3")], is_error=True)
    worker = event("user.tool_result", tool_use_id="c3")
    agent.server.will(
        turn(
            called("c1", "bash", "agent.tool_use"),
            resulted("c1"),
            called("c2", "find", "agent.mcp_tool_use", mcp_server_name="s"),
            found,
            called("c3", "bash", "agent.tool_use"),
            worker,
            said("Done."),
        )
    )
    assert agent.one(request())[0] == [
        ToolUse("c1", "bash", {"a": 1}),
        ToolResult("c1", [text("2")]),
        ToolUse("c2", "find", {"a": 1}),
        ToolResult("c2", [text("3")], is_error=True),
        ToolUse("c3", "bash", {"a": 1}),
        ToolResult("c3", []),
        TextDelta("Done."),
    ]


def ask(call_id: str, kind: str = "agent.tool_use", **fields: Any) -> dict[str, Any]:
    """A call that needs a confirmation."""
    return called(call_id, "bash", kind, evaluated_permission="ask", **fields)


def waiting(*calls: dict[str, Any]) -> tuple[Step, ...]:
    """A turn that ends with these calls open."""
    return turn(*calls, stop="requires_action", waits=tuple(call["id"] for call in calls))


def answer(call_id: str, content: Any = "3", **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": call_id, "content": content, **more}


def confirmation(call_id: str, result: str = "allow", **more: Any) -> dict[str, Any]:
    return {"type": "tool_confirmation", "tool_use_id": call_id, "result": result, **more}


def test_a_turn_ends_with_the_calls_that_the_agent_waits_for(agent: Way) -> None:
    mcp = called("c3", "find", "agent.mcp_tool_use", mcp_server_name="s")
    agent.server.will(waiting(called("c1"), ask("c2"), mcp, called("c4", "bash", "agent.tool_use")))
    events, result = agent.one(request())
    assert [item.id for item in events if isinstance(item, ToolUse)] == ["c1", "c2", "c3", "c4"]
    assert (result.trigger, result.session_id, result.stop_reason) == (Trigger.SUCCEEDED, "sesn_1", "requires_action")
    assert result.provider_data == {
        "pending": [
            {"tool_use_id": "c1", "name": "add", "needs": "result"},
            {"tool_use_id": "c2", "name": "bash", "needs": "confirmation"},
            {"tool_use_id": "c3", "name": "find", "needs": "confirmation"},
            {"tool_use_id": "c4", "name": "bash", "needs": "result"},
        ]
    }
    assert result.summary == "The AI is waiting for the result of a tool, or for leave to use one."


def answered(way: Way, *blocks: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the events that these blocks become for a session that waits."""
    result = way.result(request(list(blocks), session="sesn_1"))
    assert result.trigger is Trigger.SUCCEEDED, result
    sent: list[dict[str, Any]] = way.server.asked("send")[-1]["events"]
    return sent


def test_the_next_turn_answers_the_calls(agent: Way) -> None:
    agent.server.will(waiting(called("c1"), called("c2", "bash", "agent.tool_use"), ask("c3"), ask("c4")))
    agent.ask(request("1+2?"))
    agent.server.will(turn(said("3.")))
    blocks = (
        answer("c1"),
        answer("c2", [text("ok")], is_error=True),
        confirmation("c3"),
        confirmation("c4", "deny", deny_message="No."),
    )
    events, result = agent.one(request(blocks, session="sesn_1"))
    assert events == [TextDelta("3.")], "an answer that was sent is not told again"
    assert result.trigger is Trigger.SUCCEEDED
    assert agent.server.asked("send")[-1]["events"] == [
        {"type": "user.custom_tool_result", "custom_tool_use_id": "c1", "content": [text("3")]},
        {"type": "user.tool_result", "tool_use_id": "c2", "content": [text("ok")], "is_error": True},
        {"type": "user.tool_confirmation", "tool_use_id": "c3", "result": "allow"},
        {"type": "user.tool_confirmation", "tool_use_id": "c4", "result": "deny", "deny_message": "No."},
    ]


def test_answers_to_some_calls_leave_the_others_open(agent: Way) -> None:
    agent.server.will(waiting(called("c1"), called("c2")))
    agent.ask(request("1+2?"))
    events, result = agent.one(request([answer("c1")], session="sesn_1"))
    assert (events, result.stop_reason) == ([], "requires_action")
    assert result.provider_data == {"pending": [{"tool_use_id": "c2", "name": "add", "needs": "result"}]}
    assert answered(agent, answer("c2", None)) == [
        {"type": "user.custom_tool_result", "custom_tool_use_id": "c2", "content": []}
    ]


def test_a_message_instead_of_answers_leaves_no_call_open(agent: Way) -> None:
    agent.server.will(waiting(called("c1"), ask("c2"), ask("c3")))
    agent.ask(request("1+2?"))
    first, second, third, last = answered(agent, confirmation("c3", "allow"), text("never mind"))
    assert first == {"type": "user.tool_confirmation", "tool_use_id": "c3", "result": "allow"}
    assert (second["custom_tool_use_id"], second["is_error"]) == ("c1", True)
    assert (third["tool_use_id"], third["result"]) == ("c2", "deny")
    assert last == {"type": "user.message", "content": [text("never mind")]}


def test_a_result_for_a_call_that_needs_a_confirmation_denies_it_and_tells_why(agent: Way) -> None:
    agent.server.will(waiting(ask("c1")))
    agent.ask(request("1+2?"))
    (sent,) = answered(agent, answer("c1", "there is no such tool", is_error=True))
    assert (sent["result"], sent["deny_message"]) == ("deny", "[the tool failed: there is no such tool]")


def test_an_answer_that_nobody_waits_for_is_told_as_text(agent: Way) -> None:
    agent.ask(request("hello"))
    (sent,) = answered(agent, answer("c1"), confirmation("c2"))
    assert sent["content"] == [text("[the tool answered: 3]"), text("[the tool call was allowed]")]
    agent.result(request([confirmation("c1", "deny", deny_message="No."), text("x")]))
    assert agent.server.session().texts() == ["[the tool call was denied: No.]\nx"]


def test_a_call_that_is_out_of_sight_is_taken_for_one_of_the_callers(
    agent: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents_exchange, "LOOKED_BACK", 1)
    agent.server.will(waiting(called("c1")))
    agent.ask(request("1+2?"))
    (sent,) = answered(agent, answer("c1"))
    assert sent["type"] == "user.custom_tool_result"


# Endings that are no answer


@pytest.mark.parametrize(
    ("ending", "subtype", "errors"),
    [
        (idle("retries_exhausted"), "error_retries_exhausted", ()),
        (idle("budget_reached"), "error_max_budget_usd", ()),
        (idle("refusal"), "error_refusal", ("the model refused",)),
        (idle("refusal", stop_details={"type": "refusal", "category": "bio"}), "error_refusal", ("bio",)),
        (
            idle("refusal", stop_details={"type": "refusal", "category": "bio", "explanation": "No."}),
            "error_refusal",
            ("No.",),
        ),
    ],
)
def test_a_turn_that_fails_keeps_the_session(
    agent: Way, ending: dict[str, Any], subtype: str, errors: tuple[str, ...]
) -> None:
    agent.server.will((running(), said("Hm."), spent(), ending))
    events, result = agent.one(request())
    assert told(events) == ["Hm."]
    assert (result.subtype, result.trigger, result.session_id) == (subtype, Trigger.FAILED, "sesn_1")
    assert (result.stop_reason, result.errors, result.usage) == (ending["stop_reason"]["type"], errors, TEXT_USAGE)
    if subtype != "error_max_budget_usd":
        assert agent.result(request("again", session="sesn_1")).trigger is Trigger.SUCCEEDED


def test_a_session_whose_budget_is_used_up_says_so_until_it_is_raised(agent: Way) -> None:
    agent.server.will(turn(said("Hm."), stop="budget_reached"))
    agent.ask(request())
    result = agent.result(request("again", session="sesn_1"))
    assert (result.subtype, result.http_status, result.session_id) == ("error_max_budget_usd", None, "sesn_1")
    assert result.summary == "The AI reached its spending limit for one answer."
    agent.server.session().is_paused = False
    assert agent.result(request("again", session="sesn_1")).trigger is Trigger.SUCCEEDED


@pytest.mark.parametrize(
    ("kind", "subtype", "status"),
    [
        ("billing_error", "error_api", 402),
        ("model_overloaded_error", "error_api", 529),
        ("model_rate_limited_error", "error_api", 429),
        ("model_request_failed_error", "error_retries_exhausted", None),
        ("unknown_error", "error_retries_exhausted", None),
        ("tool_use_limit_reached_error", "error_max_turns", None),
        ("compaction_limit_reached_error", "error_retries_exhausted", None),
    ],
)
@pytest.mark.parametrize("stop", ["retries_exhausted", "end_turn"])
def test_an_error_of_the_session_that_ends_the_turn_keeps_the_session(
    agents: AgentsServer, kind: str, subtype: str, status: int | None, stop: str
) -> None:
    agents.will((running(), error(kind, "retrying"), error(kind), idle(stop)))
    result = Way("sync", agents).result(request())
    assert (result.subtype, result.http_status, result.session_id) == (subtype, status, "sesn_1")
    assert (result.trigger, result.errors) == (Trigger.FAILED, (f"{kind}: told of {kind}",) * 2)


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("mcp_connection_failed_error", {"mcp_server_name": "s"}),
        ("mcp_authentication_failed_error", {"mcp_server_name": "s"}),
        ("credential_host_unreachable_error", {"credential_id": "c", "vault_id": "v"}),
        ("repository_authentication_error", {}),
        ("repository_checkout_error", {}),
        ("repository_clone_error", {}),
        ("repository_forbidden_error", {}),
        ("repository_not_found_error", {}),
    ],
)
def test_an_error_that_the_agent_goes_on_without_is_told_and_no_failure(
    agents: AgentsServer, kind: str, more: dict[str, Any]
) -> None:
    agents.will(turn(error(kind, **more), said("Done.")))
    result = Way("sync", agents).result(request())
    assert (result.trigger, result.errors) == (Trigger.SUCCEEDED, (f"{kind}: told of {kind}",))


def test_a_stop_reason_that_is_newer_than_the_sdk_is_a_success_that_says_so() -> None:
    hearing = Hearing()
    for kind, more in (("session.status_running", {}), ("session.status_idle", {"stop_reason": {"type": "napping"}})):
        hearing.take(Idle.construct(id=kind, type=kind, **more))  # type: ignore[arg-type]
    assert hearing.ending is not None
    assert Result(**hearing.ending).stop_reason == "napping"


def test_an_event_that_lacks_what_its_type_promises_is_an_error_of_the_answer() -> None:
    exchange = Exchange(request(session="s"), {})
    exchange.opened()
    exchange.answered(type("Page", (), {"data": []}))
    assert exchange.todo is Todo.SEND
    exchange.answered(None)
    exchange.read(Idle.construct(id="1", type="session.status_running"))  # type: ignore[arg-type]
    exchange.read(Idle.construct(id="2", type="session.status_idle", stop_reason=None))
    assert exchange.result is not None
    assert (exchange.result.subtype, exchange.result.session_id) == ("error_response", "s")


# Dead


def archive(server: AgentsServer) -> None:
    server.archive(server.session())


def terminate(server: AgentsServer) -> None:
    server.terminate(server.session())


def delete(server: AgentsServer) -> None:
    server.delete(server.session())


DEATHS: list[Callable[[AgentsServer], None]] = [archive, terminate, delete]


@pytest.mark.parametrize("die", DEATHS)
def test_a_session_that_ended_between_turns_is_dead(agent: Way, die: Callable[[AgentsServer], None]) -> None:
    agent.ask(request())
    die(agent.server)
    for _ in range(2):
        events, result = agent.one(request("again", session="sesn_1"))
        assert (events, result.trigger, result.session_id) == ([], Trigger.EXPIRED, "sesn_1")
        assert result.errors


def test_a_session_that_is_not_there_is_dead(agent: Way) -> None:
    result = agent.result(request(session="sesn_9"))
    assert (result.trigger, result.session_id, result.http_status) == (Trigger.EXPIRED, "sesn_9", 404)


def test_an_id_that_is_malformed_is_dead(agent: Way) -> None:
    refusal = Refusal(400, "invalid_request_error", "session_id: 'nonsense' is not an id of a session")
    agent.server.refuses("stream", refusal)
    agent.server.refuses("retrieve", refusal)
    assert agent.result(request(session="nonsense")).trigger is Trigger.EXPIRED


@pytest.mark.parametrize(
    "end", [terminated(), deleted(), error("unknown_error", "terminal")], ids=lambda end: end["type"]
)
@pytest.mark.parametrize("text_first", [False, True])
def test_a_session_that_ends_in_the_middle_of_a_turn_is_dead(agent: Way, end: dict[str, Any], text_first: bool) -> None:
    agent.server.will((running(), *((said("Well,"),) if text_first else ()), end))
    events, result = agent.one(request())
    assert told(events) == ["Well,"] * text_first
    assert (result.trigger, result.session_id) == (Trigger.EXPIRED, "sesn_1")


def test_a_session_that_is_archived_while_an_earlier_turn_is_stopped_is_dead(agent: Way) -> None:
    agent.server.will((running(), Act.HOLD, terminated()))
    agent.server.refuses("send", Refusal(500, "api_error", done=True))
    agent.result(request())
    assert agent.result(request(session="sesn_1")).trigger is Trigger.EXPIRED


# Errors of the API and of the network

FAILURES = [
    (Refusal(400, "invalid_request_error", "Your credit balance is too low to access the API."), 402),
    (Refusal(400, "invalid_request_error", code="organization_on_hold"), 400),
    (Refusal(401, "authentication_error"), 401),
    (Refusal(403, "permission_error"), 403),
    (Refusal(413, "request_too_large"), 413),
    (Refusal(429, "rate_limit_error"), 429),
    (Refusal(500, "api_error"), 500),
    (Refusal(529, "overloaded_error"), 529),
]


@pytest.mark.parametrize(("refusal", "status"), FAILURES)
@pytest.mark.parametrize("operation", ["stream", "list", "send"])
def test_an_error_of_the_api_leaves_the_session_as_it_was(
    agents: AgentsServer, refusal: Refusal, status: int, operation: str
) -> None:
    way = Way("sync", agents)
    way.ask(request())
    agents.refuses(operation, refusal)
    result = way.result(request("again", session="sesn_1"))
    assert (result.subtype, result.trigger) == ("error_api", Trigger.FAILED)
    assert (result.http_status, result.session_id) == (status, "sesn_1")
    assert way.result(request("again", session="sesn_1")).trigger is Trigger.SUCCEEDED


@pytest.mark.parametrize("status", [401, 429, 500])
@pytest.mark.parametrize("operation", ["create", "stream", "send"])
def test_a_new_session_that_was_not_sent_the_message_is_not_named(agent: Way, status: int, operation: str) -> None:
    agent.server.refuses(operation, Refusal(status, "api_error"))
    result = agent.result(request())
    assert (result.subtype, result.http_status, result.session_id) == ("error_api", status, None)


def test_an_agent_that_is_not_there_is_no_dead_session(agent: Way) -> None:
    agent.server.refuses("create", Refusal(404, "not_found_error", "no such agent"))
    result = agent.result(request())
    assert (result.subtype, result.http_status, result.session_id) == ("error_api", 404, None)


@pytest.mark.parametrize(
    "refusal", [Refusal(400, "invalid_request_error"), Refusal(409, "conflict_error"), Refusal(404)]
)
def test_a_refusal_by_a_session_that_lives_is_an_error_and_keeps_it(agent: Way, refusal: Refusal) -> None:
    agent.ask(request())
    agent.server.refuses("send", refusal)
    result = agent.result(request("again", session="sesn_1"))
    assert (result.subtype, result.http_status, result.session_id) == ("error_api", refusal.status, "sesn_1")
    assert "html" not in result.errors[0]


@pytest.mark.parametrize("refusal", [Refusal(404), Refusal(500, "api_error"), Refusal()])
def test_a_session_that_can_not_be_looked_at_is_not_called_dead(agent: Way, refusal: Refusal) -> None:
    agent.ask(request())
    agent.server.refuses("stream", Refusal(404))
    agent.server.refuses("retrieve", refusal)
    result = agent.result(request("again", session="sesn_1"))
    assert (result.subtype, result.http_status, result.session_id) == ("error_api", 404, "sesn_1")


def test_no_connection_at_all_is_a_connection_error_and_keeps_the_session(agent: Way) -> None:
    nobody = AgentsServer()
    nobody.server_close()
    result = Way(agent.name, nobody).result(request(session="sesn_1"))
    assert (result.subtype, result.trigger, result.session_id) == ("error_connection", Trigger.FAILED, "sesn_1")


# A stream that breaks

BREAKS = [Act.CUT, Act.END]


@pytest.mark.parametrize("broken", BREAKS)
@pytest.mark.parametrize("page_size", [1000, 2])
def test_what_was_said_while_the_stream_was_broken_is_neither_lost_nor_doubled(
    agent: Way, broken: Act, page_size: int
) -> None:
    agent.server.page_size = page_size
    agent.server.will(
        turn(
            said("a"),
            called("c1", "bash", "agent.tool_use"),
            broken,
            resulted("c1"),
            said("b"),
            Act.UNTIL_OPEN,
            said("c"),
        )
    )
    events, result = agent.one(request())
    assert events == [
        TextDelta("a"),
        ToolUse("c1", "bash", {"a": 1}),
        ToolResult("c1", [text("2")]),
        TextDelta("\n\nb"),
        TextDelta("\n\nc"),
    ]
    assert (result.trigger, result.usage) == (Trigger.SUCCEEDED, TEXT_USAGE)
    assert len(agent.server.asked("stream")) == 2
    assert agent.server.session().texts() == ["hello"]


@pytest.mark.parametrize("broken", BREAKS)
def test_a_turn_that_ended_while_the_stream_was_broken_has_ended(agent: Way, broken: Act) -> None:
    agent.server.will(turn(said("a"), broken, said("b")))
    assert text_of(agent.ask(request())[0]) == "a\n\nb"


def test_a_stream_that_breaks_before_anything_came_is_caught_up_from_the_message_on(agent: Way) -> None:
    agent.ask(request())
    agent.server.will((Act.CUT, *turn(said("b"))))
    events, result = agent.one(request("again", session="sesn_1"))
    assert (told(events), result.trigger) == (["b"], Trigger.SUCCEEDED)


def test_a_preview_that_breaks_off_is_completed_from_the_list(agent: Way) -> None:
    agent.server.will(turn(*previewed("sevt_m", "Hel"), Act.CUT, said("Hello.", id="sevt_m")))
    assert told(agent.one(request())[0]) == ["Hel", "lo."]


@pytest.mark.parametrize("looked_back", [1, 100])
def test_earlier_turns_are_not_heard_again_when_the_stream_is_caught_up(
    agent: Way, looked_back: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents_exchange, "LOOKED_BACK", looked_back)
    agent.ask(request("one"))
    agent.server.will(turn(said("b"), Act.CUT, said("c")))
    assert text_of(agent.ask(request("two", session="sesn_1"))[0]) == "b\n\nc"
    assert "created_at[gte]" in agent.server.asked("list")[-1]


@pytest.mark.parametrize(
    ("operation", "refusals"),
    [
        ("stream", (None, Refusal(503, "api_error"), Refusal())),
        ("list", (Refusal(429, "rate_limit_error"), Refusal())),
    ],
)
def test_a_stream_is_opened_again_until_all_is_caught_up(
    agent: Way, operation: str, refusals: tuple[Refusal | None, ...]
) -> None:
    agent.server.refuses(operation, *refusals)
    agent.server.will(turn(said("a"), Act.CUT, said("b")))
    assert text_of(agent.ask(request())[0]) == "a\n\nb"
    assert len(agent.server.asked("stream")) == 4


def test_a_stream_that_stays_broken_is_a_connection_error_and_the_next_turn_stops_the_agent(agent: Way) -> None:
    breaks: list[Step] = [running(), said("a"), Act.CUT]
    breaks += [Act.UNTIL_OPEN, Act.END] * agents_exchange.RECONNECTS
    agent.server.will((*breaks, Act.HOLD, said("too late"), idle()))
    events, result = agent.one(request())
    assert (told(events), result.subtype, result.session_id) == (["a"], "error_connection", "sesn_1")
    assert len(agent.server.asked("stream")) == 1 + agents_exchange.RECONNECTS
    assert told(agent.one(request("again", session="sesn_1"))[0]) == ["You said: again"]


def test_each_new_event_gives_a_broken_stream_new_patience(agent: Way) -> None:
    often = [step for number in range(30) for step in (said(str(number)), Act.END, Act.UNTIL_OPEN)]
    agent.server.will(turn(*often))
    assert text_of(agent.ask(request())[0]) == "\n\n".join(str(number) for number in range(30))


@pytest.mark.parametrize("end", [terminated(), deleted()], ids=lambda end: end["type"])
def test_a_session_that_ended_while_the_stream_was_broken_is_dead(agent: Way, end: dict[str, Any]) -> None:
    agent.server.will((running(), Act.CUT, end))
    assert agent.result(request()).trigger is Trigger.EXPIRED


def test_a_key_that_is_refused_when_the_stream_is_opened_again_is_told_at_once(agent: Way) -> None:
    agent.server.refuses("stream", None, Refusal(401, "authentication_error"))
    agent.server.will((running(), said("a"), Act.CUT))
    result = agent.result(request())
    assert (result.subtype, result.http_status, result.session_id) == ("error_api", 401, "sesn_1")


# A message is sent once


@pytest.mark.parametrize("retries", [0, 2])
def test_a_message_that_arrived_without_an_answer_is_not_sent_again(agent: Way, retries: int) -> None:
    agent.server.refuses("send", Refusal(done=True))
    agent.server.will(turn(said("a")))
    events, result = agent.one(request(), retries=retries)
    assert (told(events), result.trigger, result.session_id) == (["a"], Trigger.SUCCEEDED, "sesn_1")
    assert agent.server.session().texts() == ["hello"]


@pytest.mark.parametrize("refusal", [Refusal(), Refusal(429, "rate_limit_error"), Refusal(500, "api_error")])
def test_a_message_that_did_not_arrive_is_sent_again(agent: Way, refusal: Refusal) -> None:
    agent.ask(request())
    agent.server.refuses("send", refusal, refusal)
    assert told(agent.one(request("again", session="sesn_1"), retries=2)[0]) == ["You said: again"]
    assert agent.server.session().texts() == ["hello", "again"]


def test_a_message_that_never_arrives_is_a_connection_error(agent: Way) -> None:
    agent.server.refuses("send", *[Refusal()] * 3)
    result = agent.result(request(), retries=2)
    assert (result.subtype, result.session_id) == ("error_connection", None)


def test_when_nobody_can_say_whether_a_message_arrived_the_turn_fails(agent: Way) -> None:
    agent.ask(request())
    agent.server.refuses("send", Refusal())
    agent.server.refuses("list", None, Refusal(500, "api_error"))
    result = agent.result(request("again", session="sesn_1"))
    assert (result.subtype, result.http_status, result.session_id) == ("error_api", 500, "sesn_1")


# Interrupting


def interrupts(server: AgentsServer) -> int:
    """How often the agent was told to stop."""
    sent = [one["type"] for asked in server.asked("send") for one in asked["events"]]
    return sent.count("user.interrupt")


def test_closing_a_stream_early_stops_the_agent_and_releases_the_connection(agent: Way) -> None:
    agent.server.will((running(), said("Well,"), Act.HOLD))
    assert agent.ask(request(), events=1) == [[TextDelta("Well,")]]
    assert interrupts(agent.server) == 1
    assert agent.server.session().status == "idle"


def test_a_turn_that_was_read_to_its_end_stops_nobody(agent: Way) -> None:
    agent.ask(request(), events=2)
    assert interrupts(agent.server) == 0


@pytest.mark.parametrize("interrupted", [None, Refusal(500, "api_error"), Refusal()])
def test_late_events_of_an_interrupted_turn_are_not_heard_by_the_next(agent: Way, interrupted: Refusal | None) -> None:
    agent.server.will(
        (running(), *previewed("sevt_m", "Well,"), Act.HOLD, said("Well, late.", id="sevt_m"), spent(), idle())
    )
    agent.server.refuses("send", None, interrupted)
    first = agent.ask(request(), events=1)[0]
    second = agent.ask(request("again", session="sesn_1"))[0]
    assert first == [TextDelta("Well,")]
    assert text_of(second) == "You said: again"
    assert isinstance(second[-1], Result)
    assert (second[-1].trigger, second[-1].usage) == (Trigger.SUCCEEDED, TEXT_USAGE)
    assert interrupts(agent.server) == 1 + (interrupted is not None)


def test_an_interrupt_that_fails_is_logged_and_raises_nothing(agent: Way, caplog: pytest.LogCaptureFixture) -> None:
    agent.server.will((running(), said("Well,"), Act.HOLD))
    agent.server.refuses("send", None, Refusal(500, "api_error"))
    with caplog.at_level(logging.WARNING, "fsm"):
        agent.ask(request(), events=1)
    (record,) = [record for record in caplog.records if record.name == "fsm"]
    assert (record.message, record.conversation, record.turn) == ("provider.stop_failed", "k", 1)  # type: ignore[attr-defined]


def test_an_interrupt_that_hangs_is_given_up_within_bounds(agent: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anthropic_agents, "STOPPING", 0.2)
    agent.server.will((running(), said("Well,"), Act.HOLD))
    agent.server.refuses("send", None, Refusal(hangs=True))
    assert agent.ask(request(), events=1) == [[TextDelta("Well,")]]
    assert interrupts(agent.server) == 1


def test_a_stream_that_breaks_while_an_earlier_turn_is_stopped_is_opened_again(agent: Way) -> None:
    agent.server.will((running(), said("Well,"), Act.HOLD, Act.CUT, said("late"), idle()))
    agent.server.refuses("send", None, Refusal(500, "api_error"))
    agent.ask(request(), events=1)
    assert told(agent.one(request("again", session="sesn_1"))[0]) == ["You said: again"]


def test_a_session_that_can_not_be_stopped_is_busy(agent: Way) -> None:
    agent.server.will(
        (running(), said("Well,"), *(Act.HOLD, idle(), running()) * (agents_exchange.ROUNDS + 1), Act.HOLD)
    )
    agent.server.refuses("send", None, Refusal(500, "api_error"))
    agent.ask(request(), events=1)
    result = agent.result(request("again", session="sesn_1"))
    assert (result.subtype, result.trigger, result.session_id) == ("error_busy", Trigger.FAILED, "sesn_1")


def test_what_an_earlier_turn_says_while_the_session_is_looked_at_is_not_heard(agent: Way) -> None:
    agent.server.will((running(), said("Well,"), Act.UNTIL_ASKED, said("late"), idle()))
    agent.server.refuses("send", None, Refusal(500, "api_error"))
    agent.ask(request(), events=1)
    assert told(agent.one(request("again", session="sesn_1"))[0]) == ["You said: again"]


def test_a_session_that_has_become_idle_meanwhile_is_sent_the_message(agent: Way) -> None:
    agent.ask(request())
    session = agent.server.session()
    session.log.append(agent.server.stamped(event("user.message", content=[text("unheard")])))
    assert told(agent.one(request("again", session="sesn_1"))[0]) == ["You said: again"]
    assert interrupts(agent.server) == 0


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_cancellation_stops_the_agent(agents: AgentsServer, backend: str) -> None:
    agents.will((running(), Act.HOLD))

    async def cancelled() -> None:
        async with async_client(agents) as made:
            provider = AnthropicAgents(async_client=made, **NAMED)
            with anyio.fail_after(30):
                async with anyio.create_task_group() as tasks:

                    async def read() -> None:
                        async with aclosing(provider.astream(request())) as stream:
                            async for _ in stream:
                                pytest.fail("nothing was said")

                    tasks.start_soon(read)
                    await anyio.to_thread.run_sync(agents.wait_for, "send")
                    tasks.cancel_scope.cancel()
            assert await anyio.to_thread.run_sync(agents.wait_until_left)

    anyio.run(cancelled, backend=backend)
    assert interrupts(agents) == 1


# Content


@pytest.mark.parametrize(
    "block",
    [
        text("hello"),
        PNG,
        PDF,
        {"type": "image", "source": {"type": "url", "url": "https://x.org/a.png"}},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a"}, "context": "c"},
        answer("c1"),
        answer("c1", [text("3"), PNG], is_error=True),
        answer("c1", [{"type": "search_result", "source": "s", "title": "t", "content": [], "citations": {}}]),
        {"type": "tool_result", "tool_use_id": "c1"},
        confirmation("c1"),
        confirmation("c1", "deny", deny_message="No."),
    ],
)
def test_content_that_the_api_takes_passes(block: dict[str, Any], agents: AgentsServer) -> None:
    with client(agents) as made:
        AnthropicAgents(client=made, **NAMED).check_content(as_blocks([text("x"), block]))


@pytest.mark.parametrize(
    ("block", "why"),
    [
        (
            {"type": "audio"},
            "block 1 is of type 'audio'.* send text, image, document, tool_result or tool_confirmation",
        ),
        ({**text("a"), "cache_control": {}}, r"block 1 \(text\) has the field 'cache_control'.* leave it out"),
        ({"type": "image"}, r"the source of block 1 \(image\) must be an object"),
        ({"type": "image", "source": {"type": "x"}}, "source of block 1 .* is of type 'x'.* send base64, url or file"),
        (
            {"type": "image", "source": {**PNG["source"], "media_type": "image/tiff"}},  # type: ignore[dict-item]
            "'media_type' of the source of block 1 .* must be image/jpeg, .* and is 'image/tiff'",
        ),
        ({"type": "image", "source": {**PNG["source"], "data": "?"}}, "'data' of .* is no base64"),  # type: ignore[dict-item]
        ({"type": "image", "source": {"type": "url"}}, "must have a text 'url'"),
        ({"type": "tool_result"}, r"block 1 \(tool_result\) must have a text 'tool_use_id'"),
        (
            {"type": "document", "source": {"type": "text", "media_type": "text/html", "data": "a"}},
            "must be text/plain",
        ),
        (answer("c1", 3), "must be text or a list of blocks"),
        (answer("c1", [text("a"), {"type": "audio"}]), r"block 1 in the content of block 1 \(tool_result\) is of type"),
        (answer("c1", ["a"]), "block 0 in the content of .* must be an object"),
        (confirmation("c1", "maybe"), "'result' of .* must be allow or deny, and is 'maybe'"),
    ],
)
def test_content_that_the_api_does_not_take_is_refused_by_its_position(
    block: dict[str, Any], why: str, agents: AgentsServer
) -> None:
    with client(agents) as made, pytest.raises(InvalidContent, match=why):
        AnthropicAgents(client=made, **NAMED).check_content(as_blocks([text("x"), block]))


# Constructing


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        ("agent_1", "anthropic-agents:agent_1:env_1"),
        ({"type": "agent", "id": "agent_1"}, "anthropic-agents:agent_1:env_1"),
        ({"type": "agent", "id": "agent_1", "version": 3}, "anthropic-agents:agent_1@3:env_1"),
        (
            {"type": "agent_with_overrides", "id": "agent_1", "system": "Be kind."},
            "anthropic-agents:agent_1+8f597a4b:env_1",
        ),
    ],
)
def test_the_name_names_what_a_session_is_bound_to(agents: AgentsServer, agent: Any, name: str) -> None:
    with client(agents) as made:
        assert AnthropicAgents(agent=agent, environment="env_1", client=made).name == name


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"agent": ""}, "an agent and an environment"),
        ({"agent": {"type": "agent"}}, "an agent and an environment"),
        ({"environment": ""}, "an agent and an environment"),
        ({"options": {"agent": "a", "environment_id": "e"}}, "can't set agent, environment_id"),
        ({"options": {"nonsense": 1}}, "has nonsense, which sessions.create does not take"),
        ({"options": {"metadata": {"conversation_key": "x"}}}, "can't set conversation_key"),
        ({"options": {"metadata": {str(number): "x" for number in range(15)}}}, "has 15 pairs; 14 is the most"),
    ],
)
def test_arguments_that_can_not_be_used_are_told_when_the_provider_is_constructed(
    agents: AgentsServer, given: dict[str, Any], why: str
) -> None:
    with client(agents) as made, pytest.raises(InvalidInput, match=why):
        AnthropicAgents(**{**NAMED, "client": made, **given})


@pytest.fixture
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for name in [name for name in os.environ if name.startswith("ANTHROPIC_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)


@pytest.mark.usefixtures("no_credentials")
@pytest.mark.parametrize(
    "given",
    [dict, lambda: {"client": anthropic.Anthropic()}, lambda: {"async_client": anthropic.AsyncAnthropic()}],
    ids=["environment", "client", "async_client"],
)
def test_a_missing_key_is_told_when_the_provider_is_constructed(given: Callable[[], dict[str, Any]]) -> None:
    with pytest.raises(ProviderError, match="ANTHROPIC_API_KEY"):
        AnthropicAgents(**NAMED, **given())


@pytest.mark.usefixtures("no_credentials")
def test_without_a_client_of_ones_own_both_are_made_from_the_environment(
    agents: AgentsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "key")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", agents.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    provider = AnthropicAgents(**NAMED)
    assert [*provider.stream(request())][-1].session_id == "sesn_1"  # type: ignore[union-attr]
    provider._clients.sync("k").close()

    async def ask_it() -> Any:
        return [event async for event in provider.astream(request())][-1]

    assert anyio.run(ask_it).session_id == "sesn_2"


def test_a_client_of_one_kind_is_never_replaced_by_one_from_the_environment() -> None:
    with anthropic.Anthropic(api_key="key") as made, pytest.raises(ProviderError, match="async_client"):
        anyio.run(AnthropicAgents(client=made, **NAMED).astream(request()).__anext__)

    async def only_async() -> None:
        async with anthropic.AsyncAnthropic(api_key="key") as made:
            next(AnthropicAgents(async_client=made, **NAMED).stream(request()))

    with pytest.raises(ProviderError, match="pass client"):
        anyio.run(only_async)


def test_importing_the_module_does_not_import_the_sdk() -> None:
    code = "import sys, fsm.providers.anthropic_agents; print('anthropic' in sys.modules or 'httpx2' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.strip() == "False"


# The contract of all providers


class Closing(AnthropicAgents):
    """The provider, for a kit that closes what it makes."""

    def close(self) -> None:
        self._clients.sync("k").close()

    async def aclose(self) -> None:
        await (await self._clients.asynchronous("k")).close()


def test_it_keeps_the_promises_of_a_provider(agents: AgentsServer) -> None:
    def make() -> Closing:
        http, async_http = (
            anthropic.DefaultHttpxClient(trust_env=False),
            anthropic.DefaultAsyncHttpxClient(trust_env=False),
        )
        given: dict[str, Any] = {"base_url": agents.url, "api_key": "key"}
        return Closing(
            client=anthropic.Anthropic(**given, http_client=http),
            async_client=anthropic.AsyncAnthropic(**given, http_client=async_http),
            **NAMED,
        )

    agents.keeps_alive = False  # the kit counts threads, and those of the server are in this process
    report = check_provider(make)
    assert (report.failed, report.skipped) == ((), ())
    assert agents.wait_until_left()


def test_it_is_a_provider_both_ways(agents: AgentsServer) -> None:
    with client(agents) as made:
        provider = AnthropicAgents(client=made, **NAMED)
    assert isinstance(provider, Provider)
    assert isinstance(provider, AsyncProvider)
