"""A reply that is replayed for its idempotency key is whole: text, content, tool calls and events as the first time."""

from collections.abc import Iterator, Sequence
from typing import Any

import anyio
import pytest

from fsm import (
    AsyncSessionManager,
    Event,
    Reply,
    Result,
    SessionManager,
    TextDelta,
    ToolResult,
    ToolUse,
    TurnStatus,
)
from fsm.events import EXPIRED
from fsm.providers import DemoProvider
from fsm.testing import ReferenceStore
from persistence import SQLStore

pytestmark = pytest.mark.thorough

USE = ToolUse("t1", "add", {"a": 1, "b": [2, {"c": None}]})
GOOD = Result(session_id="s-1", stop_reason="end_turn", usage={"input_tokens": 3}, cost_usd=0.0)

SCRIPTS: dict[str, list[Any]] = {
    "text": [TextDelta("one "), TextDelta("two"), GOOD],
    "nothing": [GOOD],
    "text in the result": [Result(session_id="s-1", text="one two")],
    "a call": [TextDelta("I add."), USE, Result(session_id="s-1", stop_reason="tool_use")],
    "a call without a text": [USE, Result(session_id="s-1", stop_reason="tool_use")],
    "a call without arguments": [ToolUse("t1", "now"), Result(session_id="s-1", stop_reason="tool_use")],
    "calls side by side": [TextDelta("Both."), USE, ToolUse("t2", "mul"), Result(session_id="s-1")],
    "a call that the provider answers": [
        TextDelta("I add. "),
        USE,
        ToolResult("t1", "3"),
        TextDelta("It is "),
        TextDelta("3."),
        GOOD,
    ],
    "calls one after the other": [
        TextDelta("a"),
        USE,
        ToolResult("t1", [{"type": "text", "text": "3"}]),
        TextDelta("b"),
        ToolUse("t2", "mul"),
        ToolResult("t2", "broken", is_error=True),
        TextDelta("c"),
        GOOD,
    ],
    "a call after text that follows a call": [USE, TextDelta("b"), ToolUse("t2", "mul"), TextDelta("c"), GOOD],
    "blocks of its own": [
        TextDelta("one "),
        TextDelta("two"),
        USE,
        Result(
            session_id="s-1",
            content=(
                {"type": "thinking", "thinking": "hm", "signature": "signed:1"},
                {"type": "text", "text": "one two", "citations": [{"cited_text": "c"}]},
                {"type": "tool_use", "id": "t1", "name": "add", "input": dict(USE.input)},
            ),
            provider_data={"container": "c-1"},
        ),
    ],
    "a failure": [TextDelta("one "), USE, Result(is_error=True, http_status=529, errors=("overloaded",))],
    "a failure without a word": [Result(subtype="error_max_turns", is_error=True)],
    "a person's stop": [TextDelta("one "), Result(subtype="interrupted", session_id="s-1")],
}

HEALED = [Result(session_id="s-0")], [Result(subtype=EXPIRED, is_error=True, session_id="s-0")]


@pytest.fixture(params=["sqlite", "postgresql", "reference"])
def store(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A real store on each kind of database, and the reference store."""
    if request.param == "reference":
        yield ReferenceStore()
        return
    with SQLStore(request.getfixturevalue(f"{request.param}_url")) as store:
        yield store


def merged(events: Sequence[Event]) -> list[Any]:
    """Events with neighbouring texts in one, and of the result what is stored with a turn."""
    told: list[Any] = []
    for event in events:
        if isinstance(event, TextDelta) and told and isinstance(told[-1], TextDelta):
            told[-1] = TextDelta(told[-1].text + event.text)
        elif isinstance(event, Result):
            names = ("subtype", "is_error", "session_id", "errors", "stop_reason", "usage", "cost_usd", "http_status")
            told.append({name: getattr(event, name) for name in names})
        else:
            told.append(event)
    return told


def whole(reply: Reply) -> dict[str, Any]:
    """All that a reply tells."""
    result = None if reply.result is None else merged([reply.result])
    names = ("key", "turn", "text", "state", "status", "healed", "tool_calls", "content", "summary")
    return {**{name: getattr(reply, name) for name in names}, "result": result}


def read(sessions: SessionManager, text: str = "hello") -> tuple[list[Event], Reply]:
    """The events and the reply of a stream."""
    with sessions.stream("k", text, idempotency_key="once") as turn:
        events = list(turn)
    return events, turn.reply


@pytest.mark.parametrize("healed", [False, True], ids=["", "healed"])
@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_a_replayed_stream_yields_the_same_events_and_has_the_same_reply(
    store: Any, script: list[Any], healed: bool
) -> None:
    provider = DemoProvider([*HEALED, script] if healed else [script])
    sessions = SessionManager(store, provider)
    if healed:
        sessions.send("k", "before")
    events, first = read(sessions)
    asked = len(provider.requests)
    replayed, again = read(sessions)
    assert len(provider.requests) == asked
    assert (first.replayed, again.replayed) == (False, True)
    assert whole(again) == whole(first)
    if any(not isinstance(event, Result) for event in events):
        assert merged(replayed) == merged(events)
    else:  # the text that came with the result may be told as a delta
        assert merged(replayed)[-1:] == merged(events)[-1:]


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_a_reply_has_its_tool_calls_in_order_and_its_content_as_it_is_stored(store: Any, script: list[Any]) -> None:
    sessions = SessionManager(store, DemoProvider([script]))
    first = sessions.send("k", "hello", idempotency_key="once")
    again = sessions.send("k", "hello", idempotency_key="once")
    calls = tuple(event for event in script if isinstance(event, ToolUse))
    for reply in (first, again):
        assert reply.tool_calls == calls
        assert isinstance(reply.content, tuple)
        told = [block for block in reply.content if block["type"] != "tool_result"]
        stored = [
            block
            for message in sessions.conversations.messages("k")
            if message.role == "assistant"
            for block in message.content
        ]
        assert told == stored


def test_an_interrupted_turn_is_replayed_as_far_as_it_came(store: Any) -> None:
    sessions = SessionManager(store, DemoProvider([[TextDelta("one "), USE, TextDelta("two"), GOOD]]))
    with sessions.stream("k", "hello", idempotency_key="once") as turn:
        events = [next(turn), next(turn)]
    replayed, again = read(sessions)
    assert turn.reply.status is again.status is TurnStatus.INTERRUPTED
    assert merged(replayed) == merged(events)
    assert whole(again) == whole(turn.reply)
    assert again.tool_calls == (USE,)


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_async_manager_replays_the_same(store: Any, script: list[Any], backend: str) -> None:
    async def talk() -> None:
        sessions = AsyncSessionManager(store, DemoProvider([script]))
        first = await sessions.send("k", "hello", idempotency_key="once")
        async with sessions.stream("k", "hello", idempotency_key="once") as turn:
            replayed = [event async for event in turn]
        assert whole(turn.reply) == whole(first)
        if any(not isinstance(event, Result) for event in script):
            assert merged(replayed) == merged(script)

    anyio.run(talk, backend=backend)


def test_another_manager_on_the_store_replays_the_same(store: Any) -> None:
    script = SCRIPTS["calls one after the other"]
    events, first = read(SessionManager(store, DemoProvider([script])))
    replayed, again = read(SessionManager(store, DemoProvider()))
    assert merged(replayed) == merged(events)
    assert whole(again) == whole(first)
