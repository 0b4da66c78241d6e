"""From rows to records: what is stored, as the values of :mod:`fsm.records`.

It promises that a row which this library can't have written raises :class:`~fsm.errors.CorruptRecord` naming table and
row, instead of handing on a record that breaks a guarantee.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from fsm._core.table import State, Trigger
from fsm.errors import CorruptRecord
from fsm.records import Conversation, Message, Running, Session, Transition, Turn, TurnStatus
from persistence.rows import EPOCH, MICROSECOND, Row

__all__ = [
    "read",
    "read_conversation",
    "read_message",
    "read_session",
    "read_transition",
    "read_turn",
]

R = TypeVar("R")


def _time(value: int) -> datetime:
    return EPOCH + value * MICROSECOND


def _time_or_none(value: int | None) -> datetime | None:
    return None if value is None else _time(value)


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


def read_conversation(row: Row) -> Conversation:
    """A conversation from its row."""
    running = None if row[10] is None else Running(row[10], row[11], _time(row[12]))
    conversation = Conversation(
        key=row[1],
        id=row[0],
        created_at=_time(row[15]),
        updated_at=_time(row[16]),
        state=State(row[2]),
        version=row[3],
        provider=row[4],
        session_number=row[5],
        session_id=row[6],
        turn_count=row[7],
        message_count=row[8],
        transition_count=row[9],
        running=running,
        metadata=_object(row[13]) if row[13] != "{}" else {},
        window=row[14],
    )
    if (conversation.state is State.ACTIVE) != (conversation.session_id is not None):
        raise ValueError(f"state {conversation.state.value} does not go with what it holds (G1)")
    return conversation


def read_session(row: Row) -> Session:
    """A session from its row."""
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


def read_turn(row: Row) -> Turn:
    """A turn from its row."""
    return Turn(
        number=row[1],
        session_number=row[2],
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
        brings_results=bool(row[19]),
    )


def read_message(row: Row) -> Message:
    """A message from its row."""
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


def read_transition(row: Row, key: str) -> Transition:
    """A transition from its row."""
    return Transition(
        key=key,
        number=row[1],
        trigger=Trigger(row[2]),
        source=State(row[3]),
        target=State(row[4]),
        session_number=row[5],
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
