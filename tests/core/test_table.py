"""The machine: its table is checked, its moves are those of the table, and illegal ones change nothing."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsm import TABLE, InvalidTable, InvalidTransition, Row, State, Trigger
from fsm._core.effects import BindSession, CloseSession, MarkSessionDead, OpenSession
from fsm._core.machine import MACHINE, Cursor, build, fire, validate
from fsm.records import Session

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FRESH, ACTIVE, STALE = State
SUCCEEDED, FAILED, EXPIRED, RESET = Trigger


def cursor(state: State, named: str | None = None, dead: frozenset[str] = frozenset()) -> Cursor:
    """A cursor in the first session of a conversation."""
    return Cursor(state, "demo", 1, "held" if state is ACTIVE else None, "why", NOW, named, dead)


CURSORS = st.builds(
    cursor,
    st.sampled_from(State),
    st.sampled_from([None, "held", "other", "dead"]),
    st.just(frozenset({"dead"})),
)


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
        (STALE, RESET, None, FRESH, [OpenSession(Session(2, "demo", NOW, "why", parent=1))]),
        (
            FRESH,
            RESET,
            None,
            FRESH,
            [CloseSession(1, "why", NOW), OpenSession(Session(2, "demo", NOW, "why", parent=1))],
        ),
        (
            ACTIVE,
            RESET,
            None,
            FRESH,
            [CloseSession(1, "why", NOW), OpenSession(Session(2, "demo", NOW, "why", parent=1))],
        ),
    ],
)
def test_each_row_of_the_design_moves_and_persists_what_it_says(
    source: State, trigger: Trigger, named: str | None, target: State, effects: list[object]
) -> None:
    """The table of the design, written down a second time by hand."""
    moved = cursor(source, named)
    fire(moved, trigger)
    assert (moved.state, moved.effects) == (target, effects)
    assert moved.session_id == (None if target is not ACTIVE else named or "held")


@pytest.mark.parametrize("state", [FRESH, ACTIVE])
@pytest.mark.parametrize("trigger", [SUCCEEDED, FAILED])
def test_a_dead_id_that_is_echoed_is_not_adopted(state: State, trigger: Trigger) -> None:
    """G2: whether nothing is held, or another id is."""
    moved = cursor(state, "dead", frozenset({"dead"}))
    fire(moved, trigger)
    assert (moved.state, moved.session_id, moved.effects) == (state, "held" if state is ACTIVE else None, [])


def test_an_id_that_is_dead_already_is_not_buried_again() -> None:
    """The echo of a dead id on another error adds no second row."""
    moved = cursor(ACTIVE, "dead", frozenset({"dead"}))
    fire(moved, EXPIRED)
    assert moved.effects[0] == MarkSessionDead("held", 1, NOW)
    assert isinstance(moved.effects[1], CloseSession)


@given(CURSORS, st.sampled_from(Trigger))
def test_a_trigger_moves_along_the_table_or_raises_and_changes_nothing(moved: Cursor, trigger: Trigger) -> None:
    """Every pair that has no row is illegal."""
    source, held = moved.state, moved.session_id
    targets = {row.target for row in TABLE if (row.source, row.trigger) == (source, trigger)}
    if targets:
        fire(moved, trigger)
        assert moved.state in targets
    else:
        with pytest.raises(InvalidTransition, match=f"'k': '{trigger}' is not possible in state '{source}'"):
            fire(moved, trigger, "k")
        assert (moved.state, moved.session_id, moved.effects) == (source, held, [])


def test_the_machine_owns_no_model_and_no_automatic_triggers() -> None:
    """One machine for the whole process, with the triggers of the table only."""
    for machine in (MACHINE, build()):
        assert machine.models == []
        assert set(machine.events) == set(Trigger)
        assert machine.has_queue is False
        assert machine.initial == FRESH.name


def test_a_table_is_checked_with_the_methods_of_its_own_cursor() -> None:
    """A machine of one's own is checked like the library's."""

    class Mute:
        """Has no effects at all."""

    with pytest.raises(InvalidTable, match="Mute has no method"):
        build(TABLE, Mute)


def test_an_effect_that_raises_leaves_the_state_as_it_was() -> None:
    """Effects run before the state changes."""

    class Clumsy(Cursor):
        def close(self, _: object) -> None:
            raise ZeroDivisionError

    machine = build(cursor=Clumsy)
    moved = Clumsy(ACTIVE, "demo", 1, "held", "why", NOW)
    with pytest.raises(ZeroDivisionError):
        machine.events[EXPIRED].trigger(moved)
    assert (moved.state, moved.session_id) == (ACTIVE, "held")


BACK = Row(STALE, RESET, FRESH)
THERE = Row(FRESH, EXPIRED, STALE)


@pytest.mark.parametrize(
    ("table", "what"),
    [
        ([Row(FRESH, RESET, FRESH, ("opne",))], "row «fresh --reset--> fresh»: Cursor has no method 'opne'"),
        (
            [Row(FRESH, RESET, FRESH, when="is_monday")],
            "row «fresh --reset [is_monday]--> fresh»: Cursor has no method 'is_monday'",
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
    """The error names the row or the state."""
    with pytest.raises(InvalidTable) as caught:
        validate(table)
    assert what in str(caught.value)


def test_a_sound_table_is_accepted_whatever_the_order_of_its_rows() -> None:
    """Order means nothing."""
    validate(TABLE[::-1])
