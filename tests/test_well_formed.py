"""Text from a provider is made well-formed before anybody sees it: events, reply, rows and requests agree."""

from collections.abc import Iterable, Iterator
from typing import Any

import anyio
import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsm import AsyncSessionManager, Event, Result, SessionManager, TextDelta, ToolResult, ToolUse, TurnStatus
from fsm.content import well_formed
from fsm.providers import DemoProvider
from fsm.testing import ReferenceStore
from persistence import SQLStore

pytestmark = pytest.mark.thorough

HIGH, LOW, LOST = "\ud83d", "\ude00", "\ufffd"
SMILE = "\N{GRINNING FACE}"
GOOD = Result(session_id="s-1")


@pytest.fixture(params=["sqlite", "postgresql", "reference"])
def store(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A real store on each kind of database, and the reference store."""
    if request.param == "reference":
        yield ReferenceStore()
        return
    with SQLStore(request.getfixturevalue(f"{request.param}_url")) as store:
        yield store


def texts(value: Any) -> Iterator[str]:
    """All texts in a value, names of fields among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, held in value.items():
            yield from (*texts(name), *texts(held))
    elif isinstance(value, Iterable):
        for item in value:
            yield from texts(item)


def as_values(event: Event) -> list[Any]:
    """Return an event as a mapping, without ``raw``, which is not stored."""
    return [getattr(event, field.name) for field in attrs.fields(type(event)) if field.name != "raw"]


def check_encodes(*values: Any) -> None:
    """All of it can be sent."""
    for value in values:
        for found in texts(value):
            found.encode()


def said(events: Iterable[Event]) -> str:
    """The text of a stream."""
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def play(store: Any, script: list[Any]) -> tuple[list[Event], SessionManager, DemoProvider]:
    """A turn that streams a script, and two turns after it; everything that was handed out, stored or sent encodes."""
    after: list[Any] = [TextDelta("fine"), GOOD]
    provider = DemoProvider([script, after, after])
    sessions = SessionManager(store, provider)
    with sessions.stream("k", "hello", idempotency_key="once") as turn:
        events = list(turn)
    check_encodes(*map(as_values, events), turn.reply.text)
    for message in sessions.conversations.messages("k"):
        check_encodes(message.content, message.provider_data)
    stored = sessions.conversations.turns("k")[0]
    check_encodes(stored.errors, stored.usage)
    assert (
        turn.reply.text
        == "".join(message.text for message in sessions.conversations.messages("k") if message.role == "assistant")
        or turn.reply.status is not TurnStatus.SUCCEEDED
    )
    assert sessions.send("k", "again").status is TurnStatus.SUCCEEDED
    sessions.reset("k")
    assert sessions.send("k", "and now").status is TurnStatus.SUCCEEDED
    for request in provider.requests:
        check_encodes(*(message.content for message in request.history), request.content)
    again = sessions.send("k", "hello", idempotency_key="once")
    assert again.text == turn.reply.text
    return events, sessions, provider


DELTAS = {
    "over two deltas": (["smile " + HIGH, LOW + " done"], f"smile {SMILE} done"),
    "each half a delta": ([HIGH, LOW], SMILE),
    "with an empty delta between": ([HIGH, "", LOW], SMILE),
    "half at the end": (["half " + HIGH], f"half {LOST}"),
    "half at the beginning": ([LOW + " half"], f"{LOST} half"),
    "half in the middle": (["a" + HIGH, "b"], f"a{LOST}b"),
    "halves in the wrong order": ([LOW, HIGH], LOST * 2),
    "two first halves": ([HIGH, HIGH, LOW], LOST + SMILE),
    "two second halves": ([HIGH, LOW, LOW], SMILE + LOST),
    "both halves in one": (["a" + HIGH + LOW + "b"], f"a{SMILE}b"),
    "many": ([HIGH, LOW + HIGH, LOW + HIGH, LOW], SMILE * 3),
    "a byte of a file name": (["file\udcff.txt"], f"file{LOST}.txt"),
    "nothing wrong": (["caf\xe9 ", SMILE], f"caf\xe9 {SMILE}"),
}


@pytest.mark.parametrize(("deltas", "whole"), DELTAS.values(), ids=DELTAS)
def test_halves_of_a_character_are_joined_across_deltas_or_replaced(store: Any, deltas: list[str], whole: str) -> None:
    events, sessions, provider = play(store, [*map(TextDelta, deltas), GOOD])
    assert said(events) == whole
    assert sessions.conversations.messages("k")[1].text == whole
    assert [message.text for message in provider.requests[-1].history][:2] == ["hello", whole]


@given(pieces=st.lists(st.text(alphabet=["a", HIGH, LOW, SMILE, "\udcff"], max_size=4), max_size=6))
def test_deltas_are_what_their_text_would_be_in_one(pieces: list[str]) -> None:
    events, sessions, _ = play(ReferenceStore(), [*map(TextDelta, pieces), GOOD])
    whole = well_formed("".join(pieces))
    assert said(events) == whole
    assert (
        "".join(message.text for message in sessions.conversations.messages("k")[1:2] if message.role == "assistant")
        == whole
    )


BETWEEN = {
    "a call": [ToolUse("t1", "add")],
    "a call and its result": [ToolUse("t1", "add"), ToolResult("t1", "3")],
}


@pytest.mark.parametrize("between", BETWEEN.values(), ids=BETWEEN)
def test_halves_that_a_call_parts_are_not_joined(store: Any, between: list[Any]) -> None:
    events, sessions, _ = play(store, [TextDelta("a" + HIGH), *between, TextDelta(LOW + "b"), GOOD])
    assert said(events) == f"a{LOST}{LOST}b"
    told = [type(event) for event in events]
    assert told.index(ToolUse) > 0
    assert said(events[: told.index(ToolUse)]) == f"a{LOST}", "the half before a call is told before the call"
    assert (
        "".join(message.text for message in sessions.conversations.messages("k")[1:] if message.turn == 1)
        == f"a{LOST}{LOST}b"
    )


def test_tool_calls_and_their_results_are_well_formed_too(store: Any) -> None:
    script = [
        ToolUse("t1", "add", {"path": "caf" + HIGH, "nested": [{HIGH: HIGH + LOW}]}),
        ToolResult("t1", [{"type": "text", "text": "o" + HIGH}]),
        ToolUse("t2", "add", {"path": "x"}),
        ToolResult("t2", "file\udcff.txt", is_error=True),
        TextDelta("done"),
        GOOD,
    ]
    events, sessions, _ = play(store, script)
    assert events[0] == ToolUse("t1", "add", {"path": f"caf{LOST}", "nested": [{LOST: SMILE}]})
    assert events[1] == ToolResult("t1", [{"type": "text", "text": f"o{LOST}"}])
    assert events[3] == ToolResult("t2", f"file{LOST}.txt", is_error=True)
    (call,) = [b for m in sessions.conversations.messages("k") for b in m.content if b.get("id") == "t1"]
    assert call["input"] == {"path": f"caf{LOST}", "nested": [{LOST: SMILE}]}


RESULTS = {
    "text": Result(session_id="s-1", text="half " + HIGH),
    "content": Result(session_id="s-1", content=({"type": "text", "text": HIGH + LOW + HIGH},)),
    "a thought": Result(
        session_id="s-1",
        content=({"type": "thinking", "thinking": HIGH, "signature": "s"}, {"type": "text", "text": "a"}),
    ),
    "provider data": Result(session_id="s-1", text="a", provider_data={"a": HIGH, HIGH: [LOW]}),
    "usage": Result(session_id="s-1", text="a", usage={"tokens" + HIGH: 1, "kind": LOW}),
    "errors": Result(is_error=True, http_status=400, errors=("bad " + HIGH, HIGH + LOW)),
    "errors of a stop": Result(subtype="interrupted", session_id="s-1", errors=(LOW,)),
}


@pytest.mark.parametrize("result", RESULTS.values(), ids=RESULTS)
def test_a_result_is_well_formed(store: Any, result: Result) -> None:
    events, sessions, _ = play(store, [result])
    told = events[-1]
    assert isinstance(told, Result)
    for name in ("text", "content", "provider_data", "usage", "errors"):
        assert getattr(told, name) == well_formed(getattr(result, name)), name
    stored = sessions.conversations.turns("k")[0]
    assert (stored.errors, stored.usage) == (told.errors, told.usage)
    if told.content is not None:
        assert sessions.conversations.messages("k")[1].content == told.content
    if told.provider_data is not None:
        assert sessions.conversations.messages("k")[1].provider_data == told.provider_data


def test_a_half_that_is_held_when_the_caller_leaves_is_stored_well_formed(store: Any) -> None:
    sessions = SessionManager(store, DemoProvider([[TextDelta("a"), TextDelta("b" + HIGH), TextDelta("c"), GOOD]]))
    with sessions.stream("k", "hello") as turn:
        events = [next(turn), next(turn)]
    check_encodes(*map(as_values, events), turn.reply.text, *(m.content for m in sessions.conversations.messages("k")))
    assert turn.reply.text.startswith(said(events))
    assert sessions.conversations.messages("k")[1].text == turn.reply.text


def test_a_half_that_is_held_when_the_provider_raises_is_stored_well_formed(store: Any) -> None:
    sessions = SessionManager(store, DemoProvider([[TextDelta("a" + HIGH), RuntimeError()]]))
    with pytest.raises(Exception, match="RuntimeError") as caught:
        sessions.send("k", "hello")
    check_encodes(caught.value.reply.text, *(message.content for message in sessions.conversations.messages("k")))  # type: ignore[attr-defined]
    assert sessions.conversations.messages("k")[1].text == f"a{LOST}"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(("deltas", "whole"), DELTAS.values(), ids=DELTAS)
def test_an_async_manager_tells_the_same(deltas: list[str], whole: str, backend: str) -> None:
    async def talk() -> None:
        sessions = AsyncSessionManager(ReferenceStore(), DemoProvider([[*map(TextDelta, deltas), GOOD]]))
        async with sessions.stream("k", "hello") as turn:
            events = [event async for event in turn]
        check_encodes(*map(as_values, events))
        assert said(events) == turn.reply.text == whole
        assert (await sessions.conversations.messages("k"))[1].text == whole

    anyio.run(talk, backend=backend)
