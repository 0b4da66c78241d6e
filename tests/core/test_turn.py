"""A running turn without I/O: what it lets pass, what it keeps, when it heals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsm import ProviderError, Reply, Result, State, TextDelta, ToolResult, ToolUse, TurnFailed, TurnStatus
from fsm._core.turn import RunningTurn
from fsm.content import text_block
from fsm.events import EXPIRED

CALL, ANSWER = ToolUse("t", "look", {"at": "it"}), ToolResult("t", "seen")
DEAD = Result(subtype=EXPIRED, is_error=True)


def fed(*events: object, resumed: bool = False, heal: bool = True) -> RunningTurn:
    """A turn that was fed these events."""
    turn = RunningTurn("k", 1, resumed=resumed, heal=heal)
    for event in events:
        turn.feed(event)
    return turn


def test_what_was_said_is_kept_in_order_as_messages_of_their_roles() -> None:
    turn = fed(TextDelta("let "), TextDelta("me"), CALL, ANSWER, TextDelta("done"), Result())
    assert turn.text == "let medone"
    assert turn.answer().messages == (
        (
            "assistant",
            (text_block("let me"), {"type": "tool_use", "id": "t", "name": "look", "input": {"at": "it"}}),
            None,
        ),
        ("user", ({"type": "tool_result", "tool_use_id": "t", "content": "seen"},), None),
        ("assistant", (text_block("done"),), None),
    )
    assert turn.text == "let medone"


def test_a_failed_tool_is_kept_as_such() -> None:
    ((_, (block,), _),) = fed(ToolResult("t", "no", is_error=True)).answer().messages
    assert block["is_error"] is True


def test_the_providers_own_blocks_are_kept_instead_of_what_the_events_said() -> None:
    blocks = ({"type": "thinking", "thinking": "…", "signature": "s"}, text_block("hello"))
    turn = fed(TextDelta("hello"), Result(content=blocks, provider_data={"container": "c"}))
    assert turn.answer().messages == (("assistant", blocks, {"container": "c"}),)
    assert fed(Result(content=blocks)).text == "hello"
    assert fed(Result(content=())).answer().messages == ()


def test_what_the_provider_keeps_goes_with_the_last_message() -> None:
    turn = fed(CALL, ANSWER, TextDelta("done"), Result(provider_data={"a": 1}))
    plain = fed(CALL, ANSWER, TextDelta("done"), Result()).answer().messages
    assert turn.answer().messages == (*plain[:-1], (*plain[-1][:2], {"a": 1}))


def test_a_provider_without_deltas_says_it_all_in_its_result() -> None:
    assert fed(Result(text="hello")).answer().messages == (("assistant", (text_block("hello"),), None),)
    failed = fed(Result(text="API Error: 429", is_error=True))
    assert failed.text == ""
    assert failed.answer().messages == ()


@pytest.mark.parametrize("thing", [None, "text", 3, {"subtype": "success"}, TextDelta, object()])
def test_what_is_no_event_is_refused_by_its_type(thing: object) -> None:
    turn = fed(TextDelta("a"))
    with pytest.raises(ProviderError, match="which is not an event"):
        turn.feed(thing)
    assert (turn.text, turn.done) == ("a", False)


@pytest.mark.parametrize("more", [TextDelta("b"), Result(), DEAD, "text"])
def test_nothing_may_follow_the_result(more: object) -> None:
    turn = fed(TextDelta("a"), Result(session_id="s"))
    with pytest.raises(ProviderError, match="after its result"):
        turn.feed(more)
    assert (turn.text, turn.result) == ("a", Result(session_id="s"))


@given(
    said=st.lists(st.sampled_from([TextDelta("a"), CALL, ANSWER]), max_size=2),
    result=st.sampled_from([DEAD, Result(), Result(is_error=True), Result(subtype=EXPIRED)]),
    resumed=st.booleans(),
    heal=st.booleans(),
)
def test_a_turn_heals_only_a_resumed_session_reported_dead_before_anything_was_said(
    said: list[object], result: Result, resumed: bool, heal: bool
) -> None:
    """G11."""
    turn = fed(*said, result, resumed=resumed, heal=heal)
    assert turn.should_heal == (resumed and heal and not said and result.subtype == EXPIRED)


def test_a_turn_resumes_nothing_unless_told_and_heals_unless_told_otherwise() -> None:
    """G11."""
    for turn, heals in ((RunningTurn("k", 1), False), (RunningTurn("k", 1, resumed=True), True)):
        turn.feed(DEAD)
        assert turn.should_heal is heals


def test_a_turn_heals_once() -> None:
    """G11: the second death in a turn is its end."""
    turn = fed(DEAD, resumed=True)
    turn.heal()
    assert (turn.done, turn.healed) == (False, True)
    turn.feed(DEAD)
    assert not turn.should_heal
    assert turn.answer().healed


def test_an_answer_of_nothing_but_empty_deltas_is_no_message() -> None:
    turn = fed(TextDelta(""), Result())
    assert turn.answer().messages == ()


def test_there_is_no_reply_before_the_end() -> None:
    turn = fed(TextDelta("a"))
    with pytest.raises(RuntimeError, match="read its events to the end"):
        _ = turn.reply
    assert turn.end(State.ACTIVE, TurnStatus.INTERRUPTED) is turn.reply
    assert turn.reply.summary == "The answer was cut off; please send your message again."


def test_raise_for_error_returns_a_good_reply_and_raises_any_other() -> None:
    good = Reply(key="k", turn=1, text="hello", state=State.ACTIVE, status=TurnStatus.SUCCEEDED, result=Result())
    assert good.raise_for_error() is good
    failed = Reply(
        key="k", turn=2, text="", state=State.ACTIVE, status=TurnStatus.FAILED, result=Result(subtype="error_max_turns")
    )
    with pytest.raises(
        TurnFailed, match=r"'k': turn 2 failed \(error_max_turns\); the conversation is active"
    ) as caught:
        failed.raise_for_error()
    assert caught.value.reply is failed
    assert "idempotency" not in str(caught.value)
    assert caught.value.key == "k"
    cut_off = Reply(key="k", turn=3, text="", state=State.ACTIVE, status=TurnStatus.INTERRUPTED, replayed=True)
    with pytest.raises(TurnFailed, match=r"turn 3 interrupted; .* with another idempotency key"):
        cut_off.raise_for_error()
    assert failed.summary == failed.result.summary
