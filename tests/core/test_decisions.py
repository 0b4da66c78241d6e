"""The decisions: what each command does to a snapshot, and what it refuses."""

from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest

from fsm import Conversation, ConversationBusy, InvalidTransition, Result, Running, State, TurnStatus, TurnSuperseded
from fsm._core import decisions as decide
from fsm._core.effects import (
    AddMessage,
    EndTurn,
    ExtendTurn,
    LogTransition,
    MarkSessionDead,
    OpenSession,
    StartTurn,
    Step,
)
from fsm._core.table import Trigger
from fsm._core.turn import Answer
from fsm.content import text_block
from fsm.events import EXPIRED

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(seconds=30)
LEASE = timedelta(seconds=60)
NEW = Conversation(key="k", id=1, created_at=NOW, updated_at=NOW)
HELLO = (text_block("hello"),)
SAID = Answer((("assistant", HELLO, None),))
DEAD = Result(subtype=EXPIRED, is_error=True, session_id="s-2", errors=("gone",))


def begin(conversation: Conversation, **changes: Any) -> Step:
    """A turn of owner o at provider demo."""
    arguments = {"content": HELLO, "provider": "demo", "owner": "o", "now": LATER, "lease": LEASE}
    return decide.begin(conversation, **{**arguments, **changes})


def finish(conversation: Conversation, result: Result, **changes: Any) -> Step:
    """The end of the running turn."""
    arguments = {"turn": conversation.turn_count, "owner": "o", "result": result, "answer": SAID, "now": LATER}
    return decide.finish(conversation, **{**arguments, **changes})


FIRST = begin(NEW)
ACTIVE = finish(FIRST.after, Result(session_id="s-1")).after
STALE = finish(begin(ACTIVE).after, DEAD).after
COMMANDS = {
    "extend": lambda conversation, owner: decide.extend(conversation, turn=1, owner=owner, now=LATER, lease=LEASE),
    "heal": lambda conversation, owner: decide.heal(
        conversation, turn=1, owner=owner, result=DEAD, now=LATER, lease=LEASE
    ),
    "finish": lambda conversation, owner: finish(conversation, Result(), turn=1, owner=owner),
    "interrupt": lambda conversation, owner: decide.interrupt(
        conversation, turn=1, owner=owner, answer=SAID, now=LATER
    ),
}


def test_the_first_turn_opens_the_first_session_and_stores_the_message() -> None:
    assert [type(effect) for effect in FIRST.effects] == [OpenSession, StartTurn, AddMessage]
    after = FIRST.after
    assert (after.version, after.session_number, after.turn_count, after.message_count, after.transition_count) == (
        1,
        1,
        1,
        1,
        0,
    )
    assert (after.state, after.provider, after.running) == (State.FRESH, "demo", Running(1, "o", LATER + LEASE))
    assert FIRST.effects[0].session.opened_reason == "first turn"


def test_metadata_is_merged() -> None:
    once = begin(NEW, metadata={"a": 1, "b": 1}).after
    again = begin(once, metadata={"b": 2}, abandoned=True).after
    assert again.metadata == {"a": 1, "b": 2}
    assert begin(again, abandoned=True).after.metadata == again.metadata


def test_a_running_turn_makes_the_conversation_busy_until_its_lease_is_over() -> None:
    running = FIRST.after
    with pytest.raises(ConversationBusy, match=r"'k': turn 1 is running, by o until 00:01:30 UTC"):
        begin(running, now=running.running.until - timedelta(microseconds=1))
    taken_over = begin(running, now=running.running.until)
    assert (
        EndTurn(
            number=1,
            session_number=1,
            status=TurnStatus.INTERRUPTED,
            state=State.FRESH,
            last_message=None,
            at=running.running.until,
        )
        in taken_over.effects
    )
    assert taken_over.after.running.turn == 2


def test_an_abandoned_turn_is_ended_whatever_its_lease() -> None:
    assert begin(FIRST.after, abandoned=True).after.running.turn == 2
    assert decide.expire_lease(FIRST.after, now=LATER, abandoned=True).after.running is None
    assert decide.reset(FIRST.after, reason="r", provider="demo", now=LATER, abandoned=True).after.running is None


def test_a_stale_conversation_is_reset_by_the_next_turn() -> None:
    step = begin(STALE)
    (move,) = step.transitions
    assert (move.source, move.target, move.turn, move.reason) == (
        State.STALE,
        State.FRESH,
        3,
        "next turn after a dead session",
    )
    assert (step.after.session_number, step.after.session_id) == (2, None)


def test_a_change_of_provider_resets_with_that_reason() -> None:
    """G15, whatever the state."""
    for conversation in (ACTIVE, STALE, decide.interrupt(FIRST.after, turn=1, owner="o", answer=SAID, now=NOW).after):
        step = begin(conversation, provider="other")
        (move,) = step.transitions
        assert (move.reason, move.turn) == ("provider changed from demo to other", step.after.turn_count)
        assert (step.after.provider, step.after.state, step.after.session_id) == ("other", State.FRESH, None)


def test_a_result_that_means_death_makes_it_stale_and_marks_both_ids_dead() -> None:
    step = finish(begin(ACTIVE).after, DEAD)
    assert [effect.session_id for effect in step.effects if isinstance(effect, MarkSessionDead)] == ["s-1", "s-2"]
    assert (step.after.state, step.after.session_id, step.after.running) == (State.STALE, None, None)
    assert step.transitions[0].reason == EXPIRED


def test_healing_goes_through_stale_and_leaves_the_turn_running() -> None:
    step = decide.heal(begin(ACTIVE).after, turn=2, owner="o", result=DEAD, now=LATER, lease=LEASE)
    assert [(move.source, move.target, move.reason) for move in step.transitions] == [
        (State.ACTIVE, State.STALE, EXPIRED),
        (State.STALE, State.FRESH, "heal"),
    ]
    assert step.after.running == Running(2, "o", LATER + LEASE)
    assert step.after.session_number == 2


def test_healing_needs_a_dead_session() -> None:
    with pytest.raises(InvalidTransition, match="conversation 'k': 'expired' is not possible in state 'stale'"):
        decide.heal(STALE_RUNNING, turn=3, owner="o", result=DEAD, now=LATER, lease=LEASE)


STALE_RUNNING = attrs.evolve(STALE, running=Running(3, "o", LATER + LEASE), turn_count=3)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize(
    "conversation",
    [
        decide.interrupt(FIRST.after, turn=1, owner="o", answer=SAID, now=NOW).after,
        begin(FIRST.after, abandoned=True).after,
        attrs.evolve(FIRST.after, running=Running(1, "somebody else", LATER)),
    ],
    ids=["ended", "another turn runs", "another owner runs it"],
)
def test_only_the_owner_of_the_running_turn_may_move_it(command: Any, conversation: Conversation) -> None:
    """G10: the fence."""
    with pytest.raises(TurnSuperseded, match="conversation 'k': turn 1 had been ended by a reset or taken over"):
        command(conversation, "o")


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_the_owner_may(command: Any) -> None:
    assert command(FIRST.after, "o").after.version == 2


def test_extending_changes_the_lease_and_nothing_else() -> None:
    step = decide.extend(FIRST.after, turn=1, owner="o", now=LATER + LEASE, lease=LEASE)
    expected = attrs.evolve(
        FIRST.after, version=2, running=Running(1, "o", LATER + 2 * LEASE), updated_at=LATER + LEASE
    )
    assert (step.after, step.effects) == (expected, ())


def test_an_interrupt_keeps_what_was_said_and_moves_nothing() -> None:
    step = decide.interrupt(begin(ACTIVE).after, turn=2, owner="o", answer=SAID, now=LATER)
    assert [type(effect) for effect in step.effects] == [AddMessage, EndTurn]
    assert (step.after.state, step.after.session_id, step.after.running) == (State.ACTIVE, "s-1", None)


@pytest.mark.parametrize(
    ("result", "status"),
    [
        (Result(), TurnStatus.SUCCEEDED),
        (Result(is_error=True), TurnStatus.FAILED),
        (DEAD, TurnStatus.FAILED),
        (Result(subtype="interrupted", is_error=True), TurnStatus.INTERRUPTED),
    ],
)
def test_a_turn_stands_as_its_result_says(result: Result, status: TurnStatus) -> None:
    assert decide.status_of(result) is status


def test_a_move_is_that_of_the_turn_that_has_ended() -> None:
    assert [move.turn for move in finish(begin(ACTIVE).after, Result(session_id="s-1")).transitions] == [2]


def test_a_heal_moves_twice_within_its_turn_and_gives_it_time_to_try_again() -> None:
    """G11: both moves belong to the turn, and its lease starts again."""
    later = LATER + LEASE / 2
    step = decide.heal(begin(ACTIVE).after, turn=2, owner="o", result=DEAD, now=later, lease=LEASE)
    assert [(move.trigger, move.turn) for move in step.transitions] == [(Trigger.EXPIRED, 2), (Trigger.RESET, 2)]
    assert step.after.running == Running(2, "o", later + LEASE)


def test_the_log_says_why_without_the_providers_words() -> None:
    step = finish(FIRST.after, Result(subtype="error_api", is_error=True, http_status=429, errors=("secret",)))
    assert step.transitions[0].reason == "error_api, HTTP 429"


def test_late_text_is_appended_to_its_turn() -> None:
    """G10: with the next free number, and nothing moves."""
    running = begin(ACTIVE).after
    step = decide.record_late_result(running, turn=1, answer=SAID, now=LATER)
    message, extension = step.effects
    assert message.message.number == running.message_count + 1
    assert message.message.turn == 1
    assert extension == ExtendTurn(1, running.message_count + 1)
    assert step.after.running == running.running


def test_a_late_death_marks_ids_that_are_not_held() -> None:
    """G2 and G10: the held id is for the turn that resumes it to find dead."""
    answer = Answer(result=DEAD)
    step = decide.record_late_result(ACTIVE, turn=1, answer=answer, now=LATER, resumed="s-0")
    assert [effect.session_id for effect in step.effects] == ["s-0", "s-2"]
    known = frozenset({"s-2"})
    assert decide.record_late_result(ACTIVE, turn=1, answer=answer, now=LATER, resumed="s-1", dead=known) is None
    assert decide.record_late_result(ACTIVE, turn=1, answer=Answer(result=Result()), now=LATER, resumed="s-0") is None


def test_a_reset_needs_force_while_a_turn_runs() -> None:
    with pytest.raises(ConversationBusy):
        decide.reset(FIRST.after, reason="r", provider="demo", now=LATER)
    step = decide.reset(FIRST.after, reason="r", provider="demo", now=LATER, force=True)
    assert (
        EndTurn(
            number=1, session_number=1, status=TurnStatus.SUPERSEDED, state=State.FRESH, last_message=None, at=LATER
        )
        in step.effects
    )
    assert (step.after.session_number, step.after.running) == (2, None)


@pytest.mark.parametrize("conversation", [ACTIVE, STALE])
def test_a_reset_opens_the_next_session_from_any_state(conversation: Conversation) -> None:
    step = decide.reset(conversation, reason="why", provider="demo", now=LATER)
    assert (step.after.state, step.after.session_number) == (State.FRESH, 2)
    assert [(move.reason, move.turn) for move in step.transitions] == [("why", None)]


def test_nothing_lapses_that_is_not_over() -> None:
    assert decide.expire_lease(ACTIVE, now=LATER) is None
    assert decide.expire_lease(FIRST.after, now=LATER) is None
    assert decide.expire_lease(FIRST.after, now=LATER + LEASE).after.running is None


def test_every_move_stands_at_the_version_of_its_commit() -> None:
    """G6."""
    for step in (FIRST, finish(FIRST.after, Result(session_id="s")), begin(STALE)):
        assert step.after.version == step.before.version + 1
        for effect in step.effects:
            if isinstance(effect, LogTransition):
                assert effect.transition.version == step.after.version


def test_a_caller_is_told_of_every_step_but_those_that_let_a_turn_go_on() -> None:
    healed = decide.heal(begin(ACTIVE).after, turn=2, owner="o", result=DEAD, now=LATER, lease=LEASE)
    assert [step.must_be_durable for step in (FIRST, healed)] == [False, False]
    done = finish(FIRST.after, Result())
    reset = decide.reset(ACTIVE, reason="r", provider="demo", now=LATER)
    assert [step.must_be_durable for step in (done, reset)] == [True, True]
    ending = begin(FIRST.after, abandoned=True)  # of the turn that was left behind
    late = decide.record_late_result(begin(reset.after).after, turn=1, answer=SAID, now=LATER)
    assert [step and step.must_be_durable for step in (ending, late)] == [True, True]
