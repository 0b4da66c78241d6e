"""The outcome of a tool call is told truly (G23): a stored result is told, a call without one "may have run"."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from fsm import SessionManager, TurnStatus
from fsm.providers import AnthropicMessages
from fsm.testing import ReferenceStore
from persistence import SQLStore
from tests.providers.messages_server import (
    Answer,
    MessagesServer,
    begun,
    error,
    message,
    streamed,
    text,
    tool_use,
)

pytestmark = pytest.mark.timeout(60)

TOOLS: list[Any] = [{"name": "transfer", "input_schema": {"type": "object"}}]
RECEIPT: list[dict[str, Any]] = [{"type": "tool_result", "tool_use_id": "t1", "content": "transferred 100, receipt 77"}]
UNKNOWN = "no result was recorded; it may have run"
FALSE = ["did not run", "before the tool had run", "was not run", "has not run", "never ran"]
FAILURES = {
    "overloaded": error(529, "overloaded_error"),
    "the server's fault": error(500, "api_error"),
    "cut off": Answer(events=(*begun("msg_2"), *streamed(text("Done, I have sent"))), then="cut"),
    "cut off at once": Answer(events=begun("msg_2"), then="cut"),
}


@pytest.fixture(params=["sqlite", "reference"])
def store(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A real store, and the reference store."""
    if request.param == "reference":
        yield ReferenceStore()
        return
    with SQLStore(request.getfixturevalue("sqlite_url")) as store:
        yield store


@pytest.fixture
def server() -> Iterator[MessagesServer]:
    """The API on loopback; it answers what is not scripted."""
    with MessagesServer() as server:
        server.keeps_alive = False
        server.otherwise = lambda request: message(text("ok"), id=f"msg_{len(server.received)}")
        yield server


@pytest.fixture
def client(server: MessagesServer) -> Iterator[anthropic.Anthropic]:
    """The SDK as it is."""
    with anthropic.Anthropic(api_key="k", base_url=server.url, max_retries=0) as client:
        yield client


def sessions_of(store: Any, client: anthropic.Anthropic) -> SessionManager:
    """A manager that asks that API."""
    return SessionManager(store, AnthropicMessages(model="m", client=client, tools=TOOLS))


def told(server: MessagesServer) -> str:
    """The newest request, with the new message in it; nothing false is told."""
    said = json.dumps(server.received[-1]["messages"])
    for lie in FALSE:
        assert lie not in said
    return said


def called(sessions: SessionManager, server: MessagesServer, *calls: str) -> None:
    """The model calls tools."""
    server.will(
        message(text("I send it."), *(tool_use(call, "transfer", amount=100) for call in calls), stop="tool_use")
    )
    assert sessions.send("k", "send 100 to Ann").status is TurnStatus.SUCCEEDED


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_a_tool_result_whose_turn_failed_is_told(
    store: Any, server: MessagesServer, client: anthropic.Anthropic, failure: Answer
) -> None:
    sessions = sessions_of(store, client)
    called(sessions, server, "t1")
    server.will(failure)
    assert sessions.send("k", RECEIPT).status is not TurnStatus.SUCCEEDED
    assert sessions.send("k", "did it work?").status is TurnStatus.SUCCEEDED
    assert "receipt 77" in told(server)
    assert UNKNOWN not in told(server)
    sessions.send("k", "and now?")
    assert "receipt 77" in told(server)
    sessions.reset("k")
    assert sessions.send("k", "and after the reset?").status is TurnStatus.SUCCEEDED
    assert "receipt 77" in told(server)
    assert UNKNOWN not in told(server)


def test_a_tool_result_whose_turn_was_left_is_told(
    store: Any, server: MessagesServer, client: anthropic.Anthropic
) -> None:
    sessions = sessions_of(store, client)
    called(sessions, server, "t1")
    server.will(Answer(events=(*begun("msg_2"), *streamed(text("Done, I have sent"))), then="wait"))
    with sessions.stream("k", RECEIPT) as turn:
        next(turn)
    sessions.send("k", "did it work?")
    assert "receipt 77" in told(server)
    sessions.send("k", RECEIPT)
    assert "receipt 77" in told(server)
    sessions.reset("k")
    sessions.send("k", "and now?")
    assert "receipt 77" in told(server)


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_a_tool_result_that_is_sent_again_after_a_failure_is_told_once_as_the_answer_to_its_call(
    store: Any, server: MessagesServer, client: anthropic.Anthropic, failure: Answer
) -> None:
    sessions = sessions_of(store, client)
    called(sessions, server, "t1")
    server.will(failure)
    sessions.send("k", RECEIPT)
    assert sessions.send("k", RECEIPT).status is TurnStatus.SUCCEEDED
    assert "receipt 77" in told(server)
    blocks = [block for sent in server.received[-1]["messages"] for block in sent["content"]]
    results = [block for block in blocks if block["type"] == "tool_result"]
    assert [block["tool_use_id"] for block in results] == ["t1"]


def test_a_call_without_a_result_may_have_run(store: Any, server: MessagesServer, client: anthropic.Anthropic) -> None:
    sessions = sessions_of(store, client)
    called(sessions, server, "t1")
    assert sessions.send("k", "did it work?").status is TurnStatus.SUCCEEDED
    assert UNKNOWN in told(server)
    sessions.reset("k")
    sessions.send("k", "and now?")
    assert UNKNOWN in told(server)
    assert "transfer" in told(server)


def test_results_that_come_one_by_one_are_each_told_for_what_they_are(
    store: Any, server: MessagesServer, client: anthropic.Anthropic
) -> None:
    """Two workers run two tools; the second is under way when the first has ended."""
    sessions = sessions_of(store, client)
    called(sessions, server, "t1", "t2")
    sessions.send("k", RECEIPT)
    assert "receipt 77" in told(server)
    assert UNKNOWN in told(server)
    sessions.send("k", [{"type": "tool_result", "tool_use_id": "t2", "content": "sent to Bob, receipt 78"}])
    assert "receipt 77" in told(server)
    assert "receipt 78" in told(server)
    sessions.reset("k")
    sessions.send("k", "and now?")
    assert "receipt 77" in told(server)
    assert "receipt 78" in told(server)


def test_a_healed_session_is_told_the_result_of_a_failed_turn(
    store: Any, server: MessagesServer, client: anthropic.Anthropic
) -> None:
    sessions = sessions_of(store, client)
    called(sessions, server, "t1")
    server.will(error(529, "overloaded_error"))
    sessions.send("k", RECEIPT)
    server.will(error(400, "invalid_request_error", "prompt is too long: 204000 tokens > 200000 maximum"))
    reply = sessions.send("k", "did it work?")
    assert reply.status is TurnStatus.SUCCEEDED
    assert "receipt 77" in told(server)


def test_a_result_that_told_of_an_error_is_told_as_one(
    store: Any, server: MessagesServer, client: anthropic.Anthropic
) -> None:
    sessions = sessions_of(store, client)
    called(sessions, server, "t1")
    server.will(error(529, "overloaded_error"))
    sessions.send("k", [{**RECEIPT[0], "content": "no such account", "is_error": True}])
    sessions.send("k", "did it work?")
    assert "no such account" in told(server)
    sessions.reset("k")
    sessions.send("k", "and now?")
    assert "failed: no such account" in told(server)
