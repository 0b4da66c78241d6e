"""The machine: its states, its triggers and its table, as plain data, and the check that a table is sound.

A conversation holds at most one *provider session id*, the name of a context that lives at an AI provider and dies
there without notice. The state says what is known about that id::

    fresh    no provider session is held
    active   one is held and believed resumable
    stale    the held one was reported dead; only a reset may follow

Four triggers move the machine. Three are the meaning of a turn's result: ``succeeded``, ``failed``, ``expired``. The
fourth is the command to start over: ``reset``. Every pair of state and trigger without a row is illegal.

The table is the single source of the machine, the diagrams, the models and the documentation. :func:`build` makes a
machine of ``transitions`` from it. That library checks little by itself, so :func:`validate` checks the table first.
Every name resolves, no two rows overlap or leave a gap, and every state can be reached and left again.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from attrs import field, frozen
from transitions import Machine

from fsm.errors import InvalidTable

__all__ = ["INITIAL", "TABLE", "Row", "State", "Trigger", "build", "validate"]

NAME = "conversation-fsm"
"""The name of the machine in the log of ``transitions``."""


class State(StrEnum):
    """The knowledge of a conversation about the provider session that it holds."""

    FRESH = "fresh"
    """No provider session is held; the next one starts with its context rebuilt from the stored history."""
    ACTIVE = "active"
    """One provider session id is held and believed resumable."""
    STALE = "stale"
    """The held session was reported dead. Nothing is held; only a reset may follow."""


class Trigger(StrEnum):
    """The cause of a move of the machine."""

    SUCCEEDED = "succeeded"
    """A turn ended with an answer."""
    FAILED = "failed"
    """A turn ended with an error that leaves the session resumable (G14)."""
    EXPIRED = "expired"
    """A turn ended with ``error_during_execution``: the provider session is dead."""
    RESET = "reset"
    """Start over with a new session: asked for, or needed by the next turn."""


@frozen
class Row:
    """One row of the table.

    Attributes:
        source: the state before.
        trigger: the cause of the move.
        target: the state afterwards.
        effects: the names of the methods that collect what is persisted, in order.
        when: the name of the guard that must hold, or None.
        unless: the name of the guard that must not hold, or None.
    """

    source: State
    trigger: Trigger
    target: State
    effects: tuple[str, ...] = field(default=(), kw_only=True)
    when: str | None = field(default=None, kw_only=True)
    unless: str | None = field(default=None, kw_only=True)

    def __str__(self) -> str:
        guard = f" [{self.when}]" if self.when else f" [not {self.unless}]" if self.unless else ""
        return f"{self.source} --{self.trigger}{guard}--> {self.target}"


INITIAL = State.FRESH

FRESH, ACTIVE, STALE = State
SUCCEEDED, FAILED, EXPIRED, RESET = Trigger

TABLE: tuple[Row, ...] = (
    Row(FRESH, SUCCEEDED, ACTIVE, effects=("bind",), when="names_live_session"),
    Row(FRESH, SUCCEEDED, FRESH, unless="names_live_session"),
    Row(FRESH, FAILED, ACTIVE, effects=("bind",), when="names_live_session"),
    Row(FRESH, FAILED, FRESH, unless="names_live_session"),
    Row(ACTIVE, SUCCEEDED, ACTIVE, effects=("rebind",)),
    Row(ACTIVE, FAILED, ACTIVE, effects=("rebind",)),
    Row(FRESH, EXPIRED, STALE, effects=("mark_dead", "close")),
    Row(ACTIVE, EXPIRED, STALE, effects=("mark_dead", "close")),
    Row(STALE, RESET, FRESH, effects=("open",)),
    Row(FRESH, RESET, FRESH, effects=("close", "open")),
    Row(ACTIVE, RESET, FRESH, effects=("close", "open")),
)
"""Every legal move and its effects.

>>> print(TABLE[0])
fresh --succeeded [names_live_session]--> active
"""


def validate(table: Sequence[Row], builder: type, initial: State = INITIAL) -> None:
    """Check that a table is a sound machine.

    Args:
        table: the rows.
        builder: the class whose methods are the guards and effects that the rows name.
        initial: the state in which every conversation starts.

    Raises:
        InvalidTable: a name does not resolve. Or two rows of one state and trigger overlap or leave a gap. Or a state
            can't be reached from the initial one, or can't get back to it. The message names the row or state.

    >>> validate([Row(State.FRESH, Trigger.RESET, State.FRESH, effects=("opne",))], object)
    Traceback (most recent call last):
    ...
    fsm.errors.InvalidTable: row «fresh --reset--> fresh»: object has no method 'opne'
    """
    for row in table:
        for name in (*row.effects, row.when, row.unless):
            if name is not None and not callable(getattr(builder, name, None)):
                raise InvalidTable(f"row «{row}»: {builder.__name__} has no method {name!r}")
    pairs: dict[tuple[State, Trigger], list[Row]] = {}
    for row in table:
        pairs.setdefault((row.source, row.trigger), []).append(row)
    for rows in pairs.values():
        _check_guards(rows)
    for state in State:
        if state not in _reachable(table, initial):
            raise InvalidTable(f"state {state.value!r} can't be reached from {initial.value!r}")
        if initial not in _reachable(table, state):
            raise InvalidTable(f"state {state.value!r} is a trap: no way leads back to {initial.value!r}")


def _check_guards(rows: Sequence[Row]) -> None:
    """Refuse the rows of one state and trigger unless they are one without a guard, or the two sides of one guard."""
    first, *others = rows
    if not others and first.when is None and first.unless is None:
        return
    if not others:
        raise InvalidTable(f"row «{first}» leaves a gap: no row says what happens otherwise")
    second, *more = others
    sides = {first.when, first.unless}
    if more or sides != {second.when, second.unless} or len(sides) != 2 or first.when == second.when:
        raise InvalidTable(f"row «{second}» overlaps with row «{first}»")


def _reachable(table: Sequence[Row], start: State) -> set[State]:
    """Return the states to which rows lead from one state, itself included."""
    reached, frontier = {start}, [start]
    while frontier:
        source = frontier.pop()
        targets = {row.target for row in table if row.source == source} - reached
        reached |= targets
        frontier.extend(targets)
    return reached


def build(table: Sequence[Row], builder: type) -> Machine:
    """Return a machine without models that runs this table, after :func:`validate` has checked it.

    Effects run *before* the state changes, so an effect that raises leaves the state as it was.
    """
    validate(table, builder)
    return Machine(
        model=None,
        states=list(State),
        initial=INITIAL,
        transitions=[
            {
                "trigger": row.trigger,
                "source": row.source,
                "dest": row.target,
                "conditions": row.when,
                "unless": row.unless,
                "before": list(row.effects),
            }
            for row in table
        ],
        auto_transitions=False,
        send_event=True,
        queued=False,
        name=NAME,
    )
