"""The demo provider: mortal as a real one, and as scriptable as tests want it."""

from datetime import UTC, datetime

import anyio
import attrs
import pytest

from fsm import Message, Request, Result, TextDelta, Trigger
from fsm.content import text_block
from fsm.providers import DemoProvider

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def request(text: str, session_id: str | None = None) -> Request:
    """A message."""
    return Request(key="k", turn=1, session_number=1, content=(text_block(text),), session_id=session_id)


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
    assert (first.stop_reason, second.stop_reason) == ("end_turn", "end_turn")
    for forgetful in (DemoProvider(), provider):
        forgetful.forget()
        text, third = said(forgetful, request("three", first.session_id))
        assert (text, third.trigger, third.session_id) == ("", Trigger.EXPIRED, first.session_id)
        assert third.is_error
        assert third.errors == (f"No conversation found with session ID: {first.session_id}",)


def test_what_it_was_told_and_what_it_was_sent_are_told_apart() -> None:
    """All of it, in order, and the user's part only."""
    provider = DemoProvider()
    past = [
        Message(number=number, turn=1, role=role, content=(text_block(text),), created_at=NOW)
        for number, (role, text) in enumerate([("user", "a"), ("assistant", "said"), ("user", "b")], 1)
    ]
    asked = attrs.evolve(request("one"), history=tuple(past))
    text, first = said(provider, asked)
    assert text == "You said “one”. From the stored history I know that you said “a”, “b”."
    said(provider, request("two", first.session_id))
    assert said(provider, request("three", first.session_id))[0] == (
        "You said “three”. Before that, in this session, you said “one”, “two”. "
        "From the stored history I know that you said “a”, “b”."
    )
    assert said(provider, request("hello"))[0] == "You said “hello”. This is the first thing I hear from you."


def test_a_session_is_named_after_its_conversation_as_far_as_a_name_may_go() -> None:
    """512 characters."""
    asked = attrs.evolve(request("one"), key="k" * 512)
    assert said(DemoProvider(), asked)[1].session_id == ("demo-" + "k" * 512)[:512]
    assert DemoProvider().name == "demo"


def test_a_scripted_result_names_its_own_session_if_it_has_one() -> None:
    """Otherwise the one that answered."""
    provider = DemoProvider([Result(session_id="mine"), Result()])
    assert said(provider, request("one"))[1].session_id == "mine"
    assert said(provider, request("one"))[1].session_id == "demo-k-1"


def test_the_same_messages_get_the_same_answers() -> None:
    """No clock and no chance."""
    assert list(DemoProvider().stream(request("one"))) == list(DemoProvider().stream(request("one")))


def test_long_messages_are_told_by_their_beginning() -> None:
    """One line of it."""
    text, _ = said(DemoProvider(), request("x" * 100 + "\nmore"))
    assert text.startswith("You said “" + "x" * 59 + "…”.")
    text, _ = said(DemoProvider(), request("x" * 61))
    assert text.startswith("You said “" + "x" * 59 + "…”.")
    text, _ = said(DemoProvider(), request("x" * 60 + "\nmore"))
    assert text.startswith("You said “" + "x" * 60 + "”.")


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
