"""The machine: its table is checked, its moves are those of the table, and illegal ones change nothing."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsm import TABLE, InvalidTable, InvalidTransition, Row, State, Trigger
from fsm._core.builder import MACHINE, Builder
from fsm._core.effects import BindSession, CloseSession, LogTransition, MarkSessionDead, OpenSession
from fsm._core.table import build, validate
from fsm.records import Conversation, Session

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FRESH, ACTIVE, STALE = State
SUCCEEDED, FAILED, EXPIRED, RESET = Trigger


DEAD = frozenset({"dead"})


def builder(state: State, cls: type[Builder] = Builder) -> Builder:
    """Return a builder on a conversation in its first session."""
    held = "held" if state is ACTIVE else None
    conversation = Conversation(
        key="k",
        id=1,
        created_at=NOW,
        updated_at=NOW,
        state=state,
        version=3,
        provider="demo",
        session_number=1,
        session_id=held,
    )
    return cls(conversation, NOW)


def collected(moved: Builder) -> list[object]:
    """Return the effects of its moves, their log aside."""
    return [effect for effect in moved.effects if not isinstance(effect, LogTransition)]


@pytest.mark.parametrize(
    ("source", "trigger", "named", "target", "effects"),
    [
        (FRESH, SUCCEEDED, "s", ACTIVE, [BindSession(1, "s")]),
        (FRESH, FAILED, "s", ACTIVE, [BindSession(1, "s")]),
        (FRESH, SUCCEEDED, None, FRESH, []),
        (FRESH, FAILED, None, FRESH, []),
        (ACTIVE, SUCCEEDED, None, ACTIVE, []),
        (ACTIVE, SUCCEEDED, "held", ACTIVE, []),
        (ACTIVE, FAILED, "s", ACTIVE, [BindSession(1, "s")]),
        (FRESH, EXPIRED, None, STALE, [CloseSession(1, "why", NOW)]),
        (FRESH, EXPIRED, "s", STALE, [MarkSessionDead("s", 1, NOW), CloseSession(1, "why", NOW)]),
        (
            ACTIVE,
            EXPIRED,
            "s",
            STALE,
            [MarkSessionDead("held", 1, NOW), MarkSessionDead("s", 1, NOW), CloseSession(1, "why", NOW)],
        ),
        (ACTIVE, EXPIRED, "held", STALE, [MarkSessionDead("held", 1, NOW), CloseSession(1, "why", NOW)]),
        (
            STALE,
            RESET,
            None,
            FRESH,
            [OpenSession(Session(number=2, provider="demo", opened_at=NOW, opened_reason="why", parent=1))],
        ),
        (
            FRESH,
            RESET,
            None,
            FRESH,
            [
                CloseSession(1, "why", NOW),
                OpenSession(Session(number=2, provider="demo", opened_at=NOW, opened_reason="why", parent=1)),
            ],
        ),
        (
            ACTIVE,
            RESET,
            None,
            FRESH,
            [
                CloseSession(1, "why", NOW),
                OpenSession(Session(number=2, provider="demo", opened_at=NOW, opened_reason="why", parent=1)),
            ],
        ),
    ],
)
def test_each_row_of_the_design_moves_and_persists_what_it_says(
    source: State, trigger: Trigger, named: str | None, target: State, effects: list[object]
) -> None:
    moved = builder(source)
    moved.move(trigger, "why", named=named)
    assert (moved.state, collected(moved)) == (target, effects)
    assert moved.session_id == (None if target is not ACTIVE else named or "held")


@pytest.mark.parametrize("state", [FRESH, ACTIVE])
@pytest.mark.parametrize("trigger", [SUCCEEDED, FAILED])
def test_a_dead_id_that_is_echoed_is_not_adopted(state: State, trigger: Trigger) -> None:
    """G2: whether nothing is held, or another id is."""
    moved = builder(state)
    moved.move(trigger, "why", named="dead", dead=DEAD)
    assert (moved.state, moved.session_id, collected(moved)) == (state, "held" if state is ACTIVE else None, [])


def test_an_id_that_is_dead_already_is_not_marked_again() -> None:
    moved = builder(ACTIVE)
    moved.move(EXPIRED, "why", named="dead", dead=DEAD)
    assert moved.effects[0] == MarkSessionDead("held", 1, NOW)
    assert isinstance(moved.effects[1], CloseSession)


@given(st.sampled_from(State), st.sampled_from([None, "held", "other", "dead"]), st.sampled_from(Trigger))
def test_a_trigger_moves_along_the_table_or_raises_and_changes_nothing(
    source: State, named: str | None, trigger: Trigger
) -> None:
    moved = builder(source)
    held = moved.session_id
    targets = {row.target for row in TABLE if (row.source, row.trigger) == (source, trigger)}
    if targets:
        moved.move(trigger, "why", named=named, dead=DEAD)
        assert moved.state in targets
    else:
        with pytest.raises(InvalidTransition, match=f"'k': '{trigger}' is not possible in state '{source}'"):
            moved.move(trigger, "why", named=named, dead=DEAD)
        assert (moved.state, moved.session_id, moved.effects, moved.transition_count) == (source, held, [], 0)


def test_the_machine_owns_no_model_and_no_automatic_triggers() -> None:
    for machine in (MACHINE, build(TABLE, Builder)):
        assert machine.models == []
        assert set(machine.events) == set(Trigger)
        assert machine.has_queue is False
        assert machine.initial == FRESH.name


def test_a_table_is_checked_with_the_methods_of_the_class_that_it_moves() -> None:
    class Mute:
        """Has no effects at all."""

    with pytest.raises(InvalidTable, match="Mute has no method"):
        build(TABLE, Mute)


def test_an_effect_that_raises_leaves_the_state_as_it_was() -> None:
    class Clumsy(Builder):
        def close(self, _: object) -> None:
            raise ZeroDivisionError

    moved = builder(ACTIVE, Clumsy)
    with pytest.raises(ZeroDivisionError):
        moved.move(EXPIRED, "why")
    assert (moved.state, moved.session_id) == (ACTIVE, "held")


BACK = Row(STALE, RESET, FRESH)
THERE = Row(FRESH, EXPIRED, STALE)


@pytest.mark.parametrize(
    ("table", "what"),
    [
        ([Row(FRESH, RESET, FRESH, effects=("opne",))], "row «fresh --reset--> fresh»: Builder has no method 'opne'"),
        (
            [Row(FRESH, RESET, FRESH, when="is_monday")],
            "row «fresh --reset [is_monday]--> fresh»: Builder has no method 'is_monday'",
        ),
        (
            [Row(FRESH, RESET, FRESH), Row(FRESH, RESET, STALE)],
            "row «fresh --reset--> stale» overlaps with row «fresh --reset--> fresh»",
        ),
        (
            [Row(FRESH, RESET, FRESH, when="names_live_session"), Row(FRESH, RESET, STALE, when="names_live_session")],
            "row «fresh --reset [names_live_session]--> stale» overlaps",
        ),
        (
            [Row(FRESH, RESET, FRESH, when="names_live_session"), Row(FRESH, RESET, STALE)],
            "row «fresh --reset--> stale» overlaps",
        ),
        (
            [
                Row(FRESH, RESET, FRESH, when="names_live_session"),
                Row(FRESH, RESET, STALE, unless="names_live_session"),
                Row(FRESH, RESET, ACTIVE),
            ],
            "row «fresh --reset [not names_live_session]--> stale» overlaps",
        ),
        (
            [Row(FRESH, RESET, FRESH, unless="names_live_session")],
            "row «fresh --reset [not names_live_session]--> fresh» leaves a gap",
        ),
        ([THERE, BACK], "state 'active' can't be reached from 'fresh'"),
        ([THERE, BACK, Row(FRESH, SUCCEEDED, ACTIVE)], "state 'active' is a trap: no way leads back to 'fresh'"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused_by_name(table: list[Row], what: str) -> None:
    with pytest.raises(InvalidTable) as caught:
        validate(table, Builder)
    assert what in str(caught.value)


def test_a_sound_table_is_accepted_whatever_the_order_of_its_rows() -> None:
    validate(TABLE[::-1], Builder)
