"""Replaying a log of moves, move by move.

It stops at the first move that breaks a guarantee (G1, G2, G5, G6). Such a move is not in the table, does not follow
from the one before, or holds an id that it must not hold.
"""

from __future__ import annotations

from attrs import Factory, define, frozen

from fsm._core.table import INITIAL, TABLE, State, Trigger
from fsm.errors import FSMError
from fsm.records import Transition

__all__ = ["Place", "Replay", "TraceError"]

EDGES = frozenset((row.source, row.trigger, row.target) for row in TABLE)


class TraceError(FSMError):
    """The recorded rows are not a behaviour of the machine.

    Attributes:
        key: the conversation.
        table: ``conversation``, ``session``, ``turn``, ``message`` or ``transition``.
        number: of the row in its conversation; None for the conversation's own row.
        guarantee: the guarantee that it breaks, such as ``G6``.

    >>> error = TraceError("ticket-42", "transition", 3, "G6", "it starts in fresh, but the one before led to stale")
    >>> print(error)
    conversation 'ticket-42': transition 3 breaks G6: it starts in fresh, but the one before led to stale
    """

    def __init__(self, key: str, table: str, number: int | None, guarantee: str, reason: str) -> None:
        place = table if number is None else f"{table} {number}"
        super().__init__(f"{place} breaks {guarantee}: {reason}", key)
        self.args = (key, table, number, guarantee, reason)
        self.table = table
        self.number = number
        self.guarantee = guarantee
        self.reason = reason


@define
class Replay:
    """A log that is replayed, move by move."""

    key: str
    state: State = INITIAL
    session_number: int = 1
    session_id: str | None = None
    version: int = 1
    number: int = 0
    turn: int = 0
    before: Transition | None = None
    dead: set[str] = Factory(set)

    def take(self, move: Transition) -> None:
        """Take the next move."""
        self._check_path(move)
        self._check_session(move)
        self._check_turn(move)
        if move.trigger is Trigger.EXPIRED and self.session_id is not None:
            self.dead.add(self.session_id)
        self.state, self.session_number, self.session_id = move.target, move.session_number, move.session_id
        self.version, self.number, self.before = move.version, move.number, move
        self.turn = move.turn or self.turn

    def _check_path(self, move: Transition) -> None:
        fails = Place(self.key, "transition", move.number).fails
        if move.number != self.number + 1:
            fails("G5", f"number {self.number + 1} was due")
        if move.source is not self.state:
            fails("G6", f"it starts in {move.source}, but the one before led to {self.state}")
        if (move.source, move.trigger, move.target) not in EDGES:
            fails("G6", f"the table has no row {move.source} --{move.trigger}--> {move.target}")
        healed = self.before is not None and (self.before.trigger, move.trigger) == (Trigger.EXPIRED, Trigger.RESET)
        if move.version <= self.version and not (move.version == self.version and healed):
            fails("G6", f"its version {move.version} does not come after version {self.version}")

    def _check_session(self, move: Transition) -> None:
        fails = Place(self.key, "transition", move.number).fails
        if (move.session_id is not None) != (move.target is State.ACTIVE):
            fails("G1", f"it leads to {move.target} and holds {move.session_id!r}")
        due = self.session_number + (move.trigger is Trigger.RESET)
        if move.session_number != due:
            fails("G6", f"it stands in session {move.session_number}, but {due} was due")
        if move.session_id in self.dead:
            fails("G2", f"it holds {move.session_id!r}, which was reported dead before")

    def _check_turn(self, move: Transition) -> None:
        fails = Place(self.key, "transition", move.number).fails
        if move.turn is None and move.trigger is not Trigger.RESET:
            fails("G6", f"{move.trigger} is what a turn's result means, but it names no turn")
        if move.turn is not None and move.turn < self.turn:
            fails("G5", f"it belongs to turn {move.turn}, after one of turn {self.turn}")


@frozen
class Place:
    """Where something may be found."""

    key: str
    table: str
    number: int | None

    def fails(self, guarantee: str, reason: str) -> None:
        """Raise the error for the first deviation."""
        raise TraceError(self.key, self.table, self.number, guarantee, reason)
