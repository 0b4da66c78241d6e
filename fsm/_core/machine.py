"""The machine at work: the table of :mod:`fsm._core.table`, run by ``transitions`` over a cursor.

There is one :data:`MACHINE` for the whole process, built when this module is imported, and it owns no model. What
it moves is a :class:`Cursor`, a small mutable thing that lives for the length of one decision; a conversation costs
no memory here. The cursor's methods are the guards and effects that the table names: they only collect, so one
that raised would leave nothing half-changed.

``transitions`` checks little by itself, so :func:`validate` checks the table before the machine is built: every
name resolves, no two rows overlap and none leaves a gap, every state can be reached, none is a trap.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import cast

from attrs import Factory, define
from transitions import EventData, Machine, MachineError

from fsm._core.effects import BindSession, CloseSession, Effect, MarkSessionDead, OpenSession
from fsm._core.table import INITIAL, TABLE, Row, State, Trigger
from fsm.errors import InvalidTable, InvalidTransition
from fsm.records import Session

__all__ = ["MACHINE", "Cursor", "build", "fire", "validate"]

NAME = "conversation-fsm"
"""What the machine is called in the log of ``transitions``."""


@define(eq=False)
class Cursor:
    """What the machine moves while one step is decided.

    Attributes:
        state: where it stands; the machine changes it.
        provider: the provider that a newly opened session belongs to.
        session: the number of the newest session.
        session_id: the provider session id that is held.
        named: the provider session id that the result came with.
        dead: those of the two that were reported dead before.
        reason: why the machine is moved.
        now: when.
        effects: what has been collected.
    """

    state: State
    provider: str
    session: int
    session_id: str | None
    reason: str
    now: datetime
    named: str | None = None
    dead: frozenset[str] = frozenset()
    effects: list[Effect] = Factory(list)

    def names_live_session(self, _: EventData) -> bool:
        """Guard: the result names a session, and not one that was reported dead (G2)."""
        return self.named is not None and self.named not in self.dead

    def bind(self, _: EventData) -> None:
        """Effect: hold the session that the result names."""
        named = cast("str", self.named)  # the guard has seen to it
        self.session_id = named
        self.effects.append(BindSession(self.session, named))

    def rebind(self, event: EventData) -> None:
        """Effect: hold the session that the result names, if it is another one and alive."""
        if self.named != self.session_id and self.names_live_session(event):
            self.bind(event)

    def mark_dead(self, _: EventData) -> None:
        """Effect: the id that was held and the one the error came with are dead, for ever (G2)."""
        for session_id in dict.fromkeys((self.session_id, self.named)):
            if session_id is not None and session_id not in self.dead:
                self.effects.append(MarkSessionDead(session_id, self.session, self.now))

    def close(self, _: EventData) -> None:
        """Effect: close the open session with its reason; nothing is held any more."""
        self.session_id = None
        self.effects.append(CloseSession(self.session, self.reason, self.now))

    def open(self, _: EventData) -> None:
        """Effect: open the next session, its parent the one before (G7)."""
        parent, self.session = self.session, self.session + 1
        self.effects.append(
            OpenSession(Session(self.session, self.provider, self.now, self.reason, parent=parent or None))
        )


def validate(table: Sequence[Row], cursor: type = Cursor, initial: State = INITIAL) -> None:
    """Check that a table can be a machine of this kind.

    Args:
        table: the rows.
        cursor: the class whose methods are the guards and effects that the rows name.
        initial: where every conversation starts.

    Raises:
        InvalidTable: a name does not resolve; two rows of one state and trigger overlap or leave a gap; a state
            can't be reached from the initial one, or can't get back to it. The message names the row or state.

    >>> validate([Row(State.FRESH, Trigger.RESET, State.FRESH, ("opne",))])
    Traceback (most recent call last):
    ...
    fsm.errors.InvalidTable: row «fresh --reset--> fresh»: Cursor has no method 'opne'
    """
    for row in table:
        for name in (*row.effects, row.when, row.unless):
            if name is not None and not callable(getattr(cursor, name, None)):
                raise InvalidTable(f"row «{row}»: {cursor.__name__} has no method {name!r}")
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
    """The rows of one state and trigger: one without a guard, or a pair with the two sides of one guard."""
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
    reached, frontier = {start}, [start]
    while frontier:
        source = frontier.pop()
        targets = {row.target for row in table if row.source == source} - reached
        reached |= targets
        frontier.extend(targets)
    return reached


def build(table: Sequence[Row] = TABLE, cursor: type = Cursor) -> Machine:
    """A machine without models that runs this table; raises :class:`~fsm.errors.InvalidTable`.

    Effects run *before* the state changes: one that raises leaves the cursor where it was.
    """
    validate(table, cursor)
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


def _is_not_ours(record: logging.LogRecord) -> bool:
    """Whether a log record of ``transitions`` is about somebody else's machine: ours moves with every turn."""
    return not (isinstance(record.args, tuple) and record.args[:1] == (MACHINE.name,))


MACHINE = build()
"""The one machine of the process. It holds no state, so any number of threads may use it at once."""

logging.getLogger("transitions.core").addFilter(_is_not_ours)


def fire(cursor: Cursor, trigger: Trigger, key: str | None = None) -> None:
    """Move the cursor, collecting the effects of the row that applies.

    Args:
        cursor: what is moved.
        trigger: what happens to it.
        key: the conversation, for the error message.

    Raises:
        InvalidTransition: the table has no such row; the cursor is as it was.
    """
    try:
        MACHINE.events[trigger].trigger(cursor)
    except MachineError as error:
        raise InvalidTransition(
            f"{trigger.value!r} is not possible in state {cursor.state.value!r}; "
            "load the conversation again and decide from what it is now",
            key,
        ) from error
