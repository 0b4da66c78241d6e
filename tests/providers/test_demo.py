"""The demo provider: mortal as a real one, and as scriptable as tests want it."""

import anyio
import pytest

from fsm import Request, Result, TextDelta, Trigger
from fsm.content import text_block
from fsm.providers import DemoProvider


def request(text: str, session_id: str | None = None) -> Request:
    """A message."""
    return Request("k", turn=1, session=1, content=(text_block(text),), session_id=session_id)


def said(provider: DemoProvider, asked: Request) -> tuple[str, Result]:
    """The text and the result of an answer."""
    *deltas, result = provider.stream(asked)
    return "".join(delta.text for delta in deltas), result


def test_a_session_remembers_until_the_process_forgets() -> None:
    """Then it is reported dead."""
    provider = DemoProvider()
    _, first = said(provider, request("one"))
    text, second = said(provider, request("two", first.session_id))
    assert text == "You said “two”. Before that, in this session, you said “one”."
    assert second.session_id == first.session_id
    for forgetful in (DemoProvider(), provider):
        forgetful.forget()
        text, third = said(forgetful, request("three", first.session_id))
        assert (text, third.trigger, third.session_id) == ("", Trigger.EXPIRED, first.session_id)


def test_the_same_messages_get_the_same_answers() -> None:
    """No clock and no chance."""
    assert list(DemoProvider().stream(request("one"))) == list(DemoProvider().stream(request("one")))


def test_long_messages_are_told_by_their_beginning() -> None:
    """One line of it."""
    text, _ = said(DemoProvider(), request("x" * 100 + "\nmore"))
    assert text.startswith("You said “" + "x" * 59 + "…”.")


def test_a_script_is_followed_and_then_it_answers_by_itself() -> None:
    """Results, lists, callables, exceptions, and None for its own answer."""
    called = []
    provider = DemoProvider(
        [
            Result(stop_reason="max_tokens"),
            Result(is_error=True),
            [TextDelta("a"), lambda: called.append("in between"), Result()],
            lambda asked: Result(subtype="error_max_turns", errors=(asked.key,)),
            None,
            ConnectionError(),
        ]
    )
    assert said(provider, request("one"))[1] == Result(stop_reason="max_tokens", session_id="demo-k-1")
    assert list(provider.stream(request("one"))) == [Result(is_error=True)]
    assert list(provider.stream(request("one"))) == [TextDelta("a"), Result()]
    assert called == ["in between"]
    assert list(provider.stream(request("one"))) == [Result(subtype="error_max_turns", errors=("k",))]
    assert said(provider, request("one"))[0].startswith("You said “one”")
    with pytest.raises(ConnectionError):
        list(provider.stream(request("one")))
    assert said(provider, request("one"))[1].trigger is Trigger.SUCCEEDED
    assert len(provider.requests) == 7


def test_the_asynchronous_twin_says_the_same() -> None:
    """Event by event."""

    async def events() -> list[object]:
        return [event async for event in DemoProvider().astream(request("one"))]

    assert anyio.run(events) == list(DemoProvider().stream(request("one")))
