"""Records and rows: how each value is written into its column and read back, and which statement writes an effect.

Columns are named like the attributes of the records, so one table of codecs serves all of them. A row that this
library can't have written raises :class:`~fsm.errors.CorruptRecord` with its table and key, instead of becoming a
record that breaks a guarantee.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, TypeAlias, TypeVar

from attrs import fields, frozen

from fsm import Conversation, Message, Result, Running, Session, State, Transition, Trigger, Turn, TurnStatus
from fsm.errors import CorruptRecord
from fsm.store import (
    AddMessage,
    BindSession,
    CloseSession,
    Effect,
    EndTurn,
    ExtendTurn,
    LogTransition,
    MarkSessionDead,
    OpenSession,
    StartTurn,
)

__all__ = ["Row", "Values", "created", "micros", "moved", "read", "values_of"]

R = TypeVar("R", Conversation, Session, Turn, Message, Transition)

Row: TypeAlias = Sequence[Any]
"""The values of a row's columns, in their order."""

Values: TypeAlias = dict[str, Any]
"""The values of columns, by their names."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def micros(time: datetime) -> int:
    """Return a time as microseconds since 1970 in UTC.

    >>> micros(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC))
    1000000
    """
    return (time - EPOCH) // MICROSECOND


def _time(value: int) -> datetime:
    return EPOCH + value * MICROSECOND


# `json.dumps` makes an encoder for each call that has options.
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=dict).encode
_encode_escaped = json.JSONEncoder(allow_nan=False, separators=(",", ":"), default=dict).encode


def _json(value: Any) -> str:
    """Return JSON that every database can hold: a lone surrogate is escaped, all other text stands as it is."""
    text = _encode(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        return _encode_escaped(value)
    return text


def _object(text: str) -> Mapping[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise TypeError("not a JSON object")
    return value


def _list(text: str) -> tuple[Any, ...]:
    value = json.loads(text)
    if not isinstance(value, list):
        raise TypeError("not a JSON list")
    return tuple(value)


def _blocks(text: str) -> tuple[Any, ...]:
    blocks = _list(text)
    if not all(isinstance(block, dict) for block in blocks):
        raise TypeError("not a list of blocks")
    return blocks


@frozen
class Codec:
    """How the values of a column are written and read.

    Attributes:
        write: makes the column's value of an attribute's; None is written as NULL without it.
        read: makes the attribute's value of a column's; NULL is read as None without it.
    """

    write: Callable[[Any], Any]
    read: Callable[[Any], Any]


def _name(value: Any) -> str:
    return str(value.value)


TIME = Codec(micros, _time)
OBJECT = Codec(_json, _object)
STATE = Codec(_name, State)
FLAG = Codec(bool, bool)

CODECS: Mapping[str, Codec] = {
    **dict.fromkeys(("at", "created_at", "updated_at", "started_at", "ended_at", "opened_at", "closed_at"), TIME),
    **dict.fromkeys(("metadata", "usage", "provider_data"), OBJECT),
    **dict.fromkeys(("state", "source", "target"), STATE),
    **dict.fromkeys(("is_error", "healed", "brings_results"), FLAG),
    "status": Codec(_name, TurnStatus),
    "trigger": Codec(_name, Trigger),
    "errors": Codec(_json, _list),
    "content": Codec(_json, _blocks),
}
"""How the columns of these names are written and read; all others hold the attribute's value itself."""

RUNNING = ("running_turn", "running_owner", "running_until")
"""The columns that hold the one :class:`~fsm.Running` of a conversation."""


@cache
def _writers(record: Any) -> tuple[tuple[str, Callable[[Any], Any] | None], ...]:
    """Return the attributes of a class, each with what writes it, or None if it is written as it is."""
    return tuple((field.name, CODECS[field.name].write if field.name in CODECS else None) for field in fields(record))


def _columns(record: Any) -> Values:
    """Return the columns of a record, by their names. A statement takes the columns that it has."""
    values = {}
    for name, write in _writers(record.__class__):
        value = getattr(record, name)
        values[name] = value if write is None or value is None else write(value)
    return values


# Writing


def created(after: Conversation) -> Values:
    """Return the row of a conversation."""
    running = after.running
    held = (None, None, None) if running is None else (running.turn, running.owner, micros(running.until))
    return {**_columns(after), **dict(zip(RUNNING, held, strict=True))}


def moved(before: Conversation, after: Conversation) -> Values:
    """Return the row of a conversation after a step, and the guard: the version and the time of the commit before.

    The time matters because a server that crashes forgets commits that it was not told to sync. What is committed in
    their place has the same versions.
    """
    return {**created(after), "expected": before.version, "seen": micros(before.updated_at)}


def _ended(end: EndTurn) -> Values:
    """Return what its end changes in the row of a turn."""
    reported = _columns(end.result or NO_RESULT)
    return {**reported, **_columns(end), "ended_at": micros(end.at), **({} if end.result else UNREPORTED)}


NO_RESULT = Result()
UNREPORTED = {"subtype": None}
"""The columns of a turn without a result that differ from those of an empty result."""

VALUES: Mapping[type, Callable[[Any], Values]] = {
    AddMessage: lambda added: _columns(added.message),
    StartTurn: lambda started: _columns(started.turn),
    EndTurn: _ended,
    LogTransition: lambda logged: _columns(logged.transition),
    OpenSession: lambda opened: _columns(opened.session),
    BindSession: _columns,
    CloseSession: lambda closed: {
        "number": closed.number,
        "closed_at": micros(closed.at),
        "closed_reason": closed.reason,
    },
    MarkSessionDead: _columns,
    ExtendTurn: _columns,
}
"""The columns that an effect writes."""


def values_of(conversation: int, effect: Effect) -> Values:
    """Return the columns that an effect writes, by their names.

    Args:
        conversation: the conversation's id.
        effect: the effect.
    """
    return {"conversation": conversation, **VALUES[type(effect)](effect)}


# Reading


def _conversation(values: Values) -> Conversation:
    turn, owner, until = (values.pop(name) for name in RUNNING)
    running = None if turn is None else Running(turn, owner, _time(until))
    conversation = Conversation(running=running, **values)
    if (conversation.state is State.ACTIVE) != (conversation.session_id is not None):
        raise ValueError(f"state {conversation.state.value} does not go with what it holds (G1)")
    return conversation


MAKERS: Mapping[type, Callable[[Values], Any]] = {Conversation: _conversation}
"""How a record is made of its columns, if not by their names alone."""


def read(record: type[R], columns: Sequence[str], rows: Sequence[Row], key: str | None = None) -> list[R]:
    """Return the records of some rows.

    Args:
        record: the class of the records.
        columns: the names of the columns, in their order.
        rows: the rows.
        key: the conversation, or None if the rows are conversations.

    Raises:
        CorruptRecord: one of the rows can't be what this library wrote.
    """
    kind: Any = record
    make: Callable[[Values], Any] = MAKERS.get(kind, lambda values: kind(**values))
    readers = [(name, CODECS[name].read if name in CODECS else None) for name in columns]
    records = []
    for row in rows:
        values: Values = {"key": key} if kind is Transition else {}
        try:
            for (name, reader), value in zip(readers, row, strict=True):
                values[name] = value if reader is None or value is None else reader(value)
            values.pop("conversation", None)
            records.append(make(values))
        except (ValueError, TypeError, OverflowError) as error:
            raise CorruptRecord(
                f"row {row[0]!r}, {row[1]!r} of table {record.__name__.lower()} is corrupt ({type(error).__name__}: "
                "its columns do not hold what was written); restore it from a backup",
                key,
            ) from error
    return records
