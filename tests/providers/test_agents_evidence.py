"""The evidence that a session is dead, line by line as in the reference; everything else is not evidence."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import anyio
import pytest
from anthropic.types.beta.sessions import BetaManagedAgentsSessionErrorEvent

from fsm._core.table import Trigger
from fsm.events import Result
from fsm.provider import Request
from fsm.providers import AnthropicAgents
from tests.providers.agents_script import Act, Odd, Raw, Step, deleted, error, event, idle, running, said, terminated
from tests.providers.agents_server import AgentsServer, Refusal
from tests.providers.agents_way import NAMED, Way, async_client, client, request

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(120)]

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "dead" / "anthropic-agents.md"
CALLS = ("stream", "list", "send")
AGAIN = request("again", session="sesn_1")
MORE: dict[str, dict[str, Any]] = {
    "mcp_connection_failed_error": {"mcp_server_name": "s"},
    "mcp_authentication_failed_error": {"mcp_server_name": "s"},
    "credential_host_unreachable_error": {"credential_id": "c", "vault_id": "v"},
}
"""More fields of the errors of some types."""


@pytest.fixture(params=["sync", "asyncio"])
def agent(request: pytest.FixtureRequest, agents: AgentsServer) -> Way:
    """Each way to ask."""
    return Way(request.param, agents)


def table(heading: str) -> dict[str, tuple[str, ...]]:
    """The lines of the table below a heading, or below the paragraph that begins so: the first cell, and the others."""
    below = PAGE.read_text(encoding="utf-8").partition(f"\n| {heading} |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in below.splitlines()[2:]]
    assert rows
    return {first: tuple(cells) for first, *cells in rows}


def outcome(result: Result) -> tuple[str, ...]:
    """A result as the cells of a line say it."""
    assert (result.session_id == "sesn_1") or result.trigger is Trigger.FAILED
    dead = "dead" if result.trigger is Trigger.EXPIRED else "lives"
    return dead, f"`{result.subtype}`", str(result.http_status or "")


# Retrieving

NOT_OURS = Refusal(404, body=b'{"error": {"type": "not_found_error", "message": "no session sesn_1"}}')
STATUSES = [(401, "authentication_error"), (402, "billing_error"), (403, "permission_error")]
STATUSES += [(429, "rate_limit_error"), (500, "api_error"), (529, "overloaded_error")]


def not_found(told: str) -> Refusal:
    return Refusal(404, "not_found_error", told)


def archived(server: AgentsServer) -> None:
    server.archive(server.session())


def ended(server: AgentsServer) -> None:
    server.session().status = "terminated"


def busy(server: AgentsServer) -> None:
    server.session().log.clear()
    server.session().status = "running"
    server.session().log.append(server.stamped(running()))
    server.session().rest.extend([idle(), running(), Act.HOLD] * 9)


def without_status(server: AgentsServer) -> None:
    server.session().log.append(server.stamped(running()))
    server.refuses("retrieve", Refusal(200, body=b'{"id": "sesn_1", "type": "session"}'))


RETRIEVED: dict[str, tuple[Refusal | None, list[Refusal | Callable[[AgentsServer], None]]]] = {
    "`archived_at` is set": (None, [archived]),
    "the status is `terminated`": (None, [ended]),
    "404 `not_found_error`, in the API's own JSON, about the session": (
        Refusal(404),
        [not_found("no session sesn_1"), not_found("Session not found."), not_found("Not found.")],
    ),
    "400 `invalid_request_error`, in the API's own JSON, that names the session's id": (
        Refusal(400, "invalid_request_error"),
        [
            Refusal(400, "invalid_request_error", "session_id: not an id"),
            Refusal(400, "invalid_request_error", "'sesn_1' is malformed"),
        ],
    ),
    "the status is `idle`, and a call was refused": (Refusal(409, "conflict_error"), [lambda server: None]),
    "the status is `running`, and it can't be stopped": (None, [busy]),
    "the status is missing": (None, [without_status]),
    "404 `not_found_error` about an agent, an environment, a workspace, a beta or a path": (
        Refusal(404),
        [
            not_found("no agent agent_1"),
            not_found("environment env_1 was not found"),
            not_found("no such workspace"),
            not_found("this beta is not available to you"),
            not_found("no such path"),
            Refusal(404, "not_found_error", "not found", code="environment_not_found"),
        ],
    ),
    "404 or 410 with a gateway's page, or with JSON that is not the API's": (
        Refusal(404),
        [
            Refusal(404),
            Refusal(410),
            NOT_OURS,
            Refusal(404, body=b""),
            Refusal(404, body=b"null"),
            Refusal(404, body=b'{"detail": "Not Found"}'),
            Refusal(404, body=b'{"type": "error", "error": "sesn_1"}'),
        ],
    ),
    "400 about a header or a beta": (
        Refusal(404),
        [
            Refusal(400, "invalid_request_error", "the session sesn_1 needs another anthropic-beta header"),
            Refusal(400, "invalid_request_error", "unexpected value for the beta"),
        ],
    ),
    "401, 402, 403, 429 or 5xx": (Refusal(404), [Refusal(status, kind) for status, kind in STATUSES]),
    "no connection": (Refusal(404), [Refusal()]),
    "a page instead of a session": (
        None,
        [lambda server: _says_running(server, Refusal(200, body=b"<html>", content_type="text/html"))],
    ),
}


def _says_running(server: AgentsServer, answer: Refusal) -> None:
    server.session().log.append(server.stamped(running()))
    server.refuses("retrieve", answer)


@pytest.mark.parametrize("line", RETRIEVED)
def test_what_the_session_itself_says_is_read_as_the_reference_has_it(agent: Way, line: str) -> None:
    first, seconds = RETRIEVED[line]
    for second in seconds:
        server = agent.server
        server.sessions.clear()
        agent.ask(request())
        if first is not None:
            server.refuses("send", first)
        if isinstance(second, Refusal):
            server.refuses("retrieve", second)
        else:
            second(server)
        assert outcome(agent.result(AGAIN)) == table("retrieving the session")[line], second
        server.refusals.clear()


# Calling

CALLED: dict[str, Refusal] = {
    "400 `invalid_request_error`": Refusal(400, "invalid_request_error"),
    "401 `authentication_error`": Refusal(401, "authentication_error"),
    "402 `billing_error`": Refusal(402, "billing_error"),
    "400 about the credit balance": Refusal(400, "invalid_request_error", "Your credit balance is too low."),
    "403 `permission_error`": Refusal(403, "permission_error"),
    "404 `not_found_error`": Refusal(404, "not_found_error", "no session sesn_1"),
    "404 with a gateway's page": Refusal(404),
    "409 `conflict_error`": Refusal(409, "conflict_error"),
    "410": Refusal(410),
    "413 `request_too_large`": Refusal(413, "request_too_large"),
    "422": Refusal(422),
    "429 `rate_limit_error`": Refusal(429, "rate_limit_error"),
    "500 `api_error`": Refusal(500, "api_error"),
    "504 `timeout_error`": Refusal(504, "timeout_error"),
    "529 `overloaded_error`": Refusal(529, "overloaded_error"),
}
EVERY = "stream, list, send: "


@pytest.mark.parametrize("line", CALLED)
def test_an_error_of_a_call_is_read_as_the_reference_has_it(agent: Way, line: str) -> None:
    agent.ask(request())
    for call in CALLS:
        agent.server.refuses(call, CALLED[line])
        assert outcome(agent.result(AGAIN)) == table("the call fails with")[EVERY + line], call
    assert agent.result(AGAIN).trigger is Trigger.SUCCEEDED


@pytest.mark.parametrize(
    ("line", "call", "refusal", "asked"),
    [
        ("create: any error", "create", not_found("no such agent"), request()),
        ("list: an answer that can't be read", "list", Refusal(200, body=b"{}"), AGAIN),
        ("send: no connection", "send", Refusal(), AGAIN),
    ],
)
def test_an_error_of_one_call_is_read_as_the_reference_has_it(
    agent: Way, line: str, call: str, refusal: Refusal, asked: Request
) -> None:
    agent.ask(request())
    agent.server.refuses(call, refusal)
    assert outcome(agent.result(asked)) == table("the call fails with")[line]


# Events

HEARD: dict[str, tuple[Step, ...]] = {
    "`session.status_terminated`": (terminated(),),
    "`session.status_terminated` after a `billing_error`": (error("billing_error", "terminal"), terminated()),
    "`session.deleted`": (deleted(),),
    "`session.status_idle`, `end_turn`": (idle(),),
    "`session.status_idle`, `requires_action`": (idle("requires_action"),),
    "`session.status_idle`, `refusal`": (idle("refusal"),),
    "`session.status_idle`, `budget_reached`": (idle("budget_reached"),),
    "`session.status_idle`, `retries_exhausted`": (idle("retries_exhausted"),),
    "`session.status_idle` with a reason that is newer than the SDK": (
        Odd(event("session.status_idle", stop_reason={"type": "napping"})),
    ),
    "`session.status_idle` without a reason": (Odd(event("session.status_idle", stop_reason=None)),),
}


@pytest.mark.parametrize("line", HEARD)
def test_an_event_is_read_as_the_reference_has_it(agent: Way, line: str) -> None:
    agent.ask(request())
    agent.server.will((running(), *HEARD[line]))
    assert outcome(agent.result(AGAIN)) == table("event")[line]


NEWER = "a type that is newer than the SDK"
KINDS = [*re.findall(r"`(\w+_error)`", "".join(table("`session.error`"))), NEWER]


def fails(kind: str, retry: str) -> dict[str, Any]:
    """An error of the session, of this type or of one that nobody knows."""
    if kind != NEWER:
        return error(kind, retry, **MORE.get(kind, {}))
    told = {"type": "disk_error", "message": "told of it", "retry_status": {"type": retry}}
    return Odd(event("session.error", error=told))


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_of_the_session_is_read_as_the_reference_has_it(agent: Way, kind: str) -> None:
    (line,) = [line for line in table("`session.error`") if line in {kind, f"`{kind}`"}]
    subtype, status, at_work = table("`session.error`")[line]
    agent.ask(request())
    for end, expected in (
        ((fails(kind, "retrying"), running(), idle()), ("lives", "`success`", "")),
        ((fails(kind, "exhausted"), idle()), ("lives", subtype, status)),
        ((fails(kind, "terminal"), idle()), ("lives", None, status)),
        ((fails(kind, "terminal"), terminated()), ("dead", "`error_during_execution`", status)),
    ):
        agent.server.sessions.clear()
        agent.ask(request())
        agent.server.will((running(), *end))
        dead, told, code = outcome(agent.result(AGAIN))
        assert (dead, told if expected[1] else None, code) == expected, end
    agent.server.sessions.clear()
    agent.ask(request())
    agent.server.will((running(), fails(kind, "terminal")))
    dead, _, code = outcome(agent.result(AGAIN))
    assert (dead, code) == (at_work, status)


def test_the_reference_has_a_line_for_everything_that_is_tried_and_for_every_type_of_the_sdk() -> None:
    assert set(table("retrieving the session")) == set(RETRIEVED)
    alone = {"create: any error", "list: an answer that can't be read", "send: no connection"}
    assert set(table("the call fails with")) == {EVERY + line for line in CALLED} | alone
    assert set(table("event")) == set(HEARD)
    kinds = get_args(get_args(BetaManagedAgentsSessionErrorEvent.model_fields["error"].annotation)[0])
    known = {get_args(kind.model_fields["type"].annotation)[0] for kind in kinds or ()}
    assert known - set(KINDS) == set()


@pytest.mark.parametrize("status", ["billing_error", "model_rate_limited_error"])
def test_a_terminal_error_that_is_found_by_the_next_turn_keeps_its_cause_and_status(agent: Way, status: str) -> None:
    agent.ask(request())
    log = agent.server.session()
    for one in (running(), error(status, "terminal"), terminated()):
        agent.server.push(log, agent.server.stamped(one))
    result = agent.result(AGAIN)
    assert (result.trigger, result.http_status) == (
        Trigger.EXPIRED,
        {"billing_error": 402, "model_rate_limited_error": 429}[status],
    )
    assert any(told.startswith(status) for told in result.errors)


def test_a_new_session_that_vanishes_before_it_has_heard_anything_is_an_error_of_the_turn(agent: Way) -> None:
    agent.server.refuses("stream", not_found("no session sesn_1"))
    agent.server.refuses("retrieve", not_found("no session sesn_1"))
    result = agent.result(request())
    assert (result.trigger, result.subtype, result.http_status) == (Trigger.FAILED, "error_api", 404)
    assert result.session_id is None


# 200 errors that nobody listed


def anything(chance: random.Random) -> Any:
    """A JSON value of any kind."""
    return chance.choice([None, True, 0, -1, 3.5, "", "x", "terminated", [], [None], {}, {"type": None}, {"type": 3}])


def random_refusal(chance: random.Random) -> Refusal:
    """An error of any status and type, in a body of any kind."""
    status = chance.choice([200, 400, 401, 402, 403, 404, 405, 408, 409, 410, 413, 418, 422, 429, 451, 499, 500])
    status = chance.choice([status, chance.randrange(400, 600)])
    kind = chance.choice(["not_found_error", "invalid_request_error", "api_error", "gone_error", "terminated", ""])
    told = chance.choice(["", "no session sesn_1", "terminated", "archived", "error_during_execution"])
    shape = chance.randrange(6)
    if shape == 0:
        return Refusal(status, body=b"<html>sesn_1 is gone</html>", content_type="text/html")
    if shape == 1:
        return Refusal(status, body=b"", content_type=chance.choice(["application/json", "text/plain", ""]))
    if shape == 2:
        return Refusal(status, body=json.dumps(anything(chance)).encode())
    if shape == 3:
        return Refusal(status, body=b'{"type": "error", "error": {"type": "not_fou')
    if shape == 4:
        return Refusal(status, body=json.dumps({"type": "error", "error": anything(chance)}).encode())
    body = {"type": "error", "error": {"type": kind, "message": told, "details": anything(chance)}}
    return Refusal(status, body=json.dumps(body).encode())


def is_listed(refusal: Refusal) -> bool:
    """Whether it says that the session is gone, as a line of the reference has it."""
    said = (refusal.body or b"").decode()
    return refusal.status in {400, 404} and '"type": "error"' in said and '"message"' in said


def random_steps(chance: random.Random) -> tuple[Step, ...]:
    """A turn in which something goes wrong in the middle, and which then ends."""
    kind = chance.choice([*KINDS[:-1], "archived_error", "terminated", "", None, 3])
    retry = chance.choice(["retrying", "exhausted", "terminal", "never", None, anything(chance)])
    retry_status = chance.choice([{"type": retry}, retry])
    told: Any = {"type": kind, "message": chance.choice(["x", None]), "retry_status": retry_status}
    wrong: Step = Odd(event("session.error", error=chance.choice([told, told, told, anything(chance)])))
    if chance.random() < 0.4:
        refusal = random_refusal(chance)
        wrong = Raw(b"event: error\ndata: " + (refusal.body or b"").replace(b"\n", b" ") + b"\n\n")
    return running(), said("Well,"), wrong, idle()


def mishaps(agents: AgentsServer, chance: random.Random, count: int) -> Generator[None, Result, None]:
    """Let something go wrong, so many times; after each it is sent what came of it."""
    for number in range(count):
        wrong: Any = None
        match chance.randrange(3):
            case 0:
                wrong = (chance.choice(CALLS), random_refusal(chance))
                agents.refuses(*wrong)
            case 1:
                wrong = random_refusal(chance)
                agents.refuses("stream", Refusal(404))
                agents.refuses("retrieve", Refusal(404) if is_listed(wrong) else wrong)
            case _:
                wrong = random_steps(chance)
                agents.will(wrong)
        result = yield
        assert result.trigger is not Trigger.EXPIRED, (number, wrong, result)
        assert result.session_id == "sesn_1", (number, wrong, result)
        agents.refusals.clear()
        agents.turns.clear()


def test_none_of_200_random_errors_costs_the_session(agents: AgentsServer) -> None:
    with client(agents) as made:
        provider = AnthropicAgents(client=made, **NAMED)

        def one(asked: Request) -> Result:
            result = list(provider.stream(asked))[-1]
            assert isinstance(result, Result)
            return result

        one(request())
        wrong = mishaps(agents, random.Random(12), 200)
        next(wrong)
        with suppress(StopIteration):
            while True:
                wrong.send(one(AGAIN))
        assert one(AGAIN).trigger is Trigger.SUCCEEDED
    assert list(agents.sessions) == ["sesn_1"]


def test_none_of_200_random_errors_costs_the_session_of_an_event_loop(agents: AgentsServer) -> None:
    # Not on trio, which warns where a stream brings an error: the SDK leaves its generators to the garbage collector.
    async def all_of_them() -> None:
        async with async_client(agents) as made:
            provider = AnthropicAgents(async_client=made, **NAMED)

            async def one(asked: Request) -> Result:
                result = [event async for event in provider.astream(asked)][-1]
                assert isinstance(result, Result)
                return result

            await one(request())
            wrong = mishaps(agents, random.Random(13), 200)
            next(wrong)
            with suppress(StopIteration):
                while True:
                    wrong.send(await one(AGAIN))
            assert (await one(AGAIN)).trigger is Trigger.SUCCEEDED

    anyio.run(all_of_them)
    assert list(agents.sessions) == ["sesn_1"]
