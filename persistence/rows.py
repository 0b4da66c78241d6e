"""Rows and records: how the values of :mod:`fsm.records` are written into columns and read back.

Reading promises that a row which this library can't have written raises :class:`~fsm.errors.CorruptRecord` naming
table and row, instead of handing on a record that breaks a guarantee.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from fsm.effects import EndTurn
from fsm.errors import CorruptRecord
from fsm.records import Conversation, Message, Running, Session, Transition, Turn, TurnStatus
from fsm.states import State, Trigger

__all__ = [
    "conversation_columns",
    "end_columns",
    "guard_columns",
    "message_columns",
    "micros",
    "read",
    "read_conversation",
    "read_message",
    "read_session",
    "read_transition",
    "read_turn",
    "session_columns",
    "transition_columns",
    "turn_columns",
]

Row = Sequence[Any]
R = TypeVar("R")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def micros(time: datetime | None) -> int | None:
    """A time as microseconds since 1970 in UTC.

    >>> micros(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC))
    1000000
    """
    return None if time is None else (time - _EPOCH) // _MICROSECOND


def _time(value: int) -> datetime:
    return _EPOCH + timedelta(microseconds=value)


def _time_or_none(value: int | None) -> datetime | None:
    return None if value is None else _time(value)


# An encoder is made once: `json.dumps` makes one for each call that is not a plain one.
_as_it_stands = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=dict).encode
_escaped = json.JSONEncoder(allow_nan=False, separators=(",", ":"), default=dict).encode


def _json(value: Any) -> str:
    """JSON as text that every database can hold: a lone surrogate is escaped, all else stands as it is."""
    text = _as_it_stands(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        return _escaped(value)
    return text


def _json_or_none(value: Any) -> str | None:
    return None if value is None else _json(value)


def _object(text: str) -> Mapping[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise TypeError("not a JSON object")
    return value


def _object_or_none(text: str | None) -> Mapping[str, Any] | None:
    return None if text is None else _object(text)


def _list(text: str) -> tuple[Any, ...]:
    value = json.loads(text)
    if not isinstance(value, list):
        raise TypeError("not a JSON list")
    return tuple(value)


def conversation_columns(conversation: Conversation) -> dict[str, Any]:
    """The columns of a conversation."""
    running = conversation.running
    return {
        "id": conversation.id,
        "key": conversation.key,
        "state": conversation.state.value,
        "version": conversation.version,
        "provider": conversation.provider,
        "session": conversation.session,
        "session_id": conversation.session_id,
        "turns": conversation.turns,
        "messages": conversation.messages,
        "transitions": conversation.transitions,
        "running_turn": running and running.turn,
        "running_owner": running and running.owner,
        "running_until": running and micros(running.until),
        "metadata": _json(conversation.metadata) if conversation.metadata else "{}",
        "created_at": micros(conversation.created_at),
        "updated_at": micros(conversation.updated_at),
    }


def guard_columns(conversation: Conversation) -> dict[str, Any]:
    """The columns that tell one commit of a conversation from every other.

    Its version, and its time as well: a server that crashes forgets commits that it was not told to sync, and what is
    committed in their place has the same versions.
    """
    return {"expected": conversation.version, "seen": micros(conversation.updated_at)}


def read_conversation(row: Row) -> Conversation:
    """A conversation from its columns, in their order."""
    running = None if row[10] is None else Running(row[10], row[11], _time(row[12]))
    conversation = Conversation(
        key=row[1],
        id=row[0],
        created_at=_time(row[14]),
        updated_at=_time(row[15]),
        state=State(row[2]),
        version=row[3],
        provider=row[4],
        session=row[5],
        session_id=row[6],
        turns=row[7],
        messages=row[8],
        transitions=row[9],
        running=running,
        metadata=_object(row[13]) if row[13] != "{}" else {},
    )
    if (conversation.state is State.ACTIVE) != (conversation.session_id is not None):
        raise ValueError(f"state {conversation.state.value} does not go with what it holds (G1)")
    return conversation


def session_columns(conversation: int, session: Session) -> dict[str, Any]:
    """The columns of a session."""
    return {
        "conversation": conversation,
        "number": session.number,
        "parent": session.parent,
        "provider": session.provider,
        "session_id": session.session_id,
        "opened_at": micros(session.opened_at),
        "opened_reason": session.opened_reason,
        "closed_at": micros(session.closed_at),
        "closed_reason": session.closed_reason,
    }


def read_session(row: Row) -> Session:
    """A session from its columns, in their order."""
    return Session(
        number=row[1],
        parent=row[2],
        provider=row[3],
        session_id=row[4],
        opened_at=_time(row[5]),
        opened_reason=row[6],
        closed_at=_time_or_none(row[7]),
        closed_reason=row[8],
    )


def turn_columns(conversation: int, turn: Turn) -> dict[str, Any]:
    """The columns of a turn."""
    return {
        "conversation": conversation,
        "number": turn.number,
        "session": turn.session,
        "status": turn.status.value,
        "first_message": turn.first_message,
        "last_message": turn.last_message,
        "started_at": micros(turn.started_at),
        "ended_at": micros(turn.ended_at),
        "subtype": turn.subtype,
        "is_error": turn.is_error,
        "session_id": turn.session_id,
        "errors": _json(turn.errors) if turn.errors else "[]",
        "stop_reason": turn.stop_reason,
        "usage": _json_or_none(turn.usage),
        "cost_usd": turn.cost_usd,
        "http_status": turn.http_status,
        "healed": turn.healed,
        "state": turn.state and turn.state.value,
        "idempotency_key": turn.idempotency_key,
    }


def end_columns(conversation: int, end: EndTurn) -> dict[str, Any]:
    """The columns that a turn's end writes."""
    result = end.result
    return {
        "conversation": conversation,
        "number": end.number,
        "session": end.session,
        "status": end.status.value,
        "last_message": end.last_message,
        "ended_at": micros(end.at),
        "subtype": result and result.subtype,
        "is_error": bool(result and result.is_error),
        "session_id": result and result.session_id,
        "errors": _json(result.errors) if result and result.errors else "[]",
        "stop_reason": result and result.stop_reason,
        "usage": _json_or_none(result and result.usage),
        "cost_usd": result and result.cost_usd,
        "http_status": result and result.http_status,
        "healed": end.healed,
        "state": end.state.value,
    }


def read_turn(row: Row) -> Turn:
    """A turn from its columns, in their order."""
    return Turn(
        number=row[1],
        session=row[2],
        status=TurnStatus(row[3]),
        first_message=row[4],
        last_message=row[5],
        started_at=_time(row[6]),
        ended_at=_time_or_none(row[7]),
        subtype=row[8],
        is_error=bool(row[9]),
        session_id=row[10],
        errors=_list(row[11]),
        stop_reason=row[12],
        usage=_object_or_none(row[13]),
        cost_usd=row[14],
        http_status=row[15],
        healed=bool(row[16]),
        state=None if row[17] is None else State(row[17]),
        idempotency_key=row[18],
    )


def message_columns(conversation: int, message: Message) -> dict[str, Any]:
    """The columns of a message."""
    return {
        "conversation": conversation,
        "number": message.number,
        "turn": message.turn,
        "role": message.role,
        "content": _json(message.content),
        "created_at": micros(message.created_at),
        "provider_data": _json_or_none(message.provider_data),
    }


def read_message(row: Row) -> Message:
    """A message from its columns, in their order."""
    content = _list(row[4])
    if not all(isinstance(block, dict) for block in content):
        raise TypeError("not a list of blocks")
    return Message(
        number=row[1],
        turn=row[2],
        role=row[3],
        content=content,
        created_at=_time(row[5]),
        provider_data=_object_or_none(row[6]),
    )


def transition_columns(conversation: int, transition: Transition) -> dict[str, Any]:
    """The columns of a transition."""
    return {
        "conversation": conversation,
        "number": transition.number,
        "trigger": transition.trigger.value,
        "source": transition.source.value,
        "target": transition.target.value,
        "session": transition.session,
        "session_id": transition.session_id,
        "version": transition.version,
        "at": micros(transition.at),
        "turn": transition.turn,
        "reason": transition.reason,
    }


def read_transition(row: Row, key: str) -> Transition:
    """A transition from its columns, in their order."""
    return Transition(
        key=key,
        number=row[1],
        trigger=Trigger(row[2]),
        source=State(row[3]),
        target=State(row[4]),
        session=row[5],
        session_id=row[6],
        version=row[7],
        at=_time(row[8]),
        turn=row[9],
        reason=row[10],
    )


def read(table: str, rows: Sequence[Row], reader: Callable[[Row], R], key: str | None = None) -> list[R]:
    """Read rows of one table; ``key`` names the conversation in an error.

    Raises:
        CorruptRecord: one of them can't be what this library wrote.
    """
    records = []
    for row in rows:
        try:
            records.append(reader(row))
        except (ValueError, TypeError, OverflowError) as error:
            raise CorruptRecord(
                f"row {row[0]!r}, {row[1]!r} of table {table} is corrupt ({type(error).__name__}: its columns do not "
                "hold what was written); restore it from a backup",
                key,
            ) from error
    return records
