"""What a step writes: the statements for its effects, in their order, each with its values.

A :class:`~persistence.queries.Write` is plain data, so that a dialect may send all of them at once. Which row stands
behind an effect is decided here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from fsm._core import effects as fx
from fsm._core.effects import Step
from persistence import rows
from persistence.queries import Statements, Write

__all__ = ["EFFECTS", "Writes"]


RowOf: TypeAlias = Callable[[int, Any], rows.Row]
"""The row of an effect, by the conversation's id and the effect."""

EFFECTS: Mapping[type, tuple[str, RowOf]] = {
    fx.AddMessage: ("add_message", rows.message_row),
    fx.StartTurn: ("start_turn", rows.turn_row),
    fx.EndTurn: ("end_turn", rows.end_row),
    fx.LogTransition: ("log_transition", rows.transition_row),
    fx.OpenSession: ("open_session", rows.session_row),
    fx.BindSession: ("bind_session", rows.bind_row),
    fx.CloseSession: ("close_session", rows.close_row),
    fx.MarkSessionDead: ("mark_dead", rows.mark_dead_row),
    fx.ExtendTurn: ("extend_turn", rows.extend_row),
}
"""For each effect its statement, and the row that it writes."""


class Writes:
    """What steps write to one database.

    Args:
        sql: the statements of the database.
    """

    def __init__(self, sql: Statements) -> None:
        self._create = sql.create
        self._move = sql.move
        self._effects = {kind: (getattr(sql, name), row_of) for kind, (name, row_of) in EFFECTS.items()}

    def of(self, step: Step) -> list[Write]:
        """What a step writes; the first is its guard."""
        before, after = step.before, step.after
        writes: list[Write] = [
            (self._move, rows.move_row(before, after))
            if before.version
            else (self._create, rows.conversation_row(after))
        ]
        for effect in step.effects:
            statement, row_of = self._effects[type(effect)]
            writes.append((statement, row_of(after.id, effect)))
        return writes
