"""What a step writes: the statements for its effects, in their order, each with its values.

A :class:`Write` is plain data, so that a dialect may send all of them at once. Which rows stand behind an effect is
decided here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from fsm import effects as fx
from fsm.effects import Step
from persistence import rows
from persistence.statements import Statements, Write

__all__ = ["EFFECTS", "writes_of"]


Columns: TypeAlias = Callable[[int, Any], dict[str, Any]]
"""The columns that an effect writes, by the conversation's id and the effect."""


def _bound(conversation: int, effect: fx.BindSession) -> dict[str, Any]:
    return {"conversation": conversation, "number": effect.number, "session_id": effect.session_id}


def _closed(conversation: int, effect: fx.CloseSession) -> dict[str, Any]:
    closed = {"closed_reason": effect.reason, "closed_at": rows.micros(effect.at)}
    return {"conversation": conversation, "number": effect.number, **closed}


def _buried(conversation: int, effect: fx.BuryId) -> dict[str, Any]:
    buried = {"session_id": effect.session_id, "session": effect.session, "at": rows.micros(effect.at)}
    return {"conversation": conversation, **buried}


def _extended(conversation: int, effect: fx.ExtendTurn) -> dict[str, Any]:
    return {"conversation": conversation, "number": effect.number, "last_message": effect.last_message}


EFFECTS: Mapping[type, tuple[str, Columns]] = {
    fx.AddMessage: ("add_message", lambda conversation, effect: rows.message_columns(conversation, effect.message)),
    fx.StartTurn: ("start_turn", lambda conversation, effect: rows.turn_columns(conversation, effect.turn)),
    fx.EndTurn: ("end_turn", rows.end_columns),
    fx.LogTransition: (
        "log_transition",
        lambda conversation, effect: rows.transition_columns(conversation, effect.transition),
    ),
    fx.OpenSession: ("open_session", lambda conversation, effect: rows.session_columns(conversation, effect.session)),
    fx.BindSession: ("bind_session", _bound),
    fx.CloseSession: ("close_session", _closed),
    fx.BuryId: ("bury", _buried),
    fx.ExtendTurn: ("extend_turn", _extended),
}
"""For each effect its statement, and the columns that it writes."""


def writes_of(step: Step, sql: Statements) -> list[Write]:
    """What a step writes; the first is its guard.

    Args:
        step: what was decided.
        sql: the statements of the database.
    """
    columns = rows.conversation_columns(step.after)
    if step.before.version == 0:
        writes = [sql.create.write(columns)]
    else:
        writes = [sql.move.write({**columns, **rows.guard_columns(step.before)})]
    for effect in step.effects:
        name, columns_of = EFFECTS[type(effect)]
        writes.append(getattr(sql, name).write(columns_of(step.after.id, effect)))
    return writes
