"""Records and rows: how each value is written into its column and read back, and which statement writes an effect.

Columns are named like the attributes of the records, so one table of codecs serves all of them. A row that this
library can't have written raises :class:`~fsm.errors.CorruptRecord` with its table and key, instead of becoming a
record that breaks a guarantee.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from types import SimpleNamespace
from typing import Any, TypeAlias, TypeVar, cast

import attrs
from attrs import fields, frozen

from fsm import Conversation, Message, Result, Running, Session, State, Transition, Trigger, Turn, TurnStatus
from fsm.errors import CorruptRecord
from fsm.store import (
    AddMessage,
    CloseSession,
    Effect,
    EndTurn,
    LogTransition,
    OpenSession,
    StartTurn,
    Step,
)

__all__ = ["Row", "Values", "effect_row", "micros", "read", "step_row"]

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
_decode = json.JSONDecoder().decode
_encode_escaped = json.JSONEncoder(allow_nan=False, separators=(",", ":"), default=dict).encode


def _json(value: Any) -> str:
    """Return JSON that every database can hold: a lone surrogate is escaped, all other text stands as it is."""
    if not value:  # most metadata and most lists of errors
        return "{}" if isinstance(value, Mapping) else "[]"
    text = _encode(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        return _encode_escaped(value)
    return text


def _object(text: str) -> Mapping[str, Any]:
    value = _decode(text)
    if not isinstance(value, dict):
        raise TypeError("not a JSON object")
    return value


def _list(text: str) -> tuple[Any, ...]:
    value = _decode(text)
    if not isinstance(value, list):
        raise TypeError("not a JSON list")
    return tuple(value)


def _blocks(text: str) -> tuple[Any, ...]:
    blocks = _list(text)
    if not set(map(type, blocks)) <= {dict}:
        raise TypeError("not a list of blocks")
    return blocks


@frozen
class Codec:
    """How the values of a column are written and read.

    Attributes:
        write: makes the column's value of an attribute's, or None if they are equal; None is written as NULL.
        read: makes the attribute's value of a column's, or None if they are equal; NULL is read as None.
    """

    write: Callable[[Any], Any] | None = None
    read: Callable[[Any], Any] | None = None


TIME = Codec(micros, _time)
OBJECT = Codec(_json, _object)
STATE = Codec(str.__str__, State)
FLAG = Codec(read=bool)
PLAIN = Codec()

CODECS: Mapping[str, Codec] = {
    **dict.fromkeys(("at", "created_at", "updated_at", "started_at", "ended_at", "opened_at", "closed_at"), TIME),
    **dict.fromkeys(("metadata", "usage", "provider_data"), OBJECT),
    **dict.fromkeys(("state", "source", "target"), STATE),
    **dict.fromkeys(("is_error", "healed", "brings_results"), FLAG),
    "status": Codec(str.__str__, TurnStatus),
    "trigger": Codec(str.__str__, Trigger),
    "errors": Codec(_json, _list),
    "content": Codec(_json, _blocks),
    "running_turn": Codec(attrgetter("turn")),
    "running_owner": Codec(attrgetter("owner")),
    "running_until": Codec(lambda running: micros(running.until), _time),
    "seen": TIME,
}
"""How the values of these names are written and read; all others are the attribute's value itself."""

RUNNING = ("running_turn", "running_owner", "running_until")
"""The columns that hold the one :class:`~fsm.Running` of a conversation."""


# Writing

RECORDS: Mapping[type, str] = {
    AddMessage: "message",
    StartTurn: "turn",
    LogTransition: "transition",
    OpenSession: "session",
}
"""The attribute of an effect that holds the record to insert; the other effects hold the columns themselves."""

RENAMED: Mapping[type, Mapping[str, str]] = {
    EndTurn: {"ended_at": "at"},
    CloseSession: {"closed_at": "at", "closed_reason": "reason"},
}
"""The columns that are named otherwise than the attributes of their effect."""

NO_RESULT = SimpleNamespace(
    **{**dict.fromkeys(field.name for field in fields(Result)), "is_error": False, "errors": ()}
)
"""The columns of the result of a turn that has none."""

GUARD = {"expected": "before.version", "seen": "before.updated_at"}
"""The values that a step compares with the row of its conversation: the version and the time of the commit before.

The time matters because a server that crashes forgets commits that were not synced. The next commits get the same
versions."""


def step_row(names: Sequence[str]) -> Callable[[Step], Row]:
    """Return a function that makes of a step the values for the row of its conversation.

    Args:
        names: the columns, and ``expected`` and ``seen`` for the guard; in the order of the values.
    """
    paths = ["after.running" if name in RUNNING else GUARD.get(name, f"after.{name}") for name in names]
    return _row(names, paths)


def effect_row(effect: type, names: Sequence[str]) -> Callable[[Effect, int], Row]:
    """Return a function that makes of an effect, and the id of its conversation, the values for its row.

    Args:
        effect: the class of the effect.
        names: the columns, in the order of the values.
    """
    at = names.index("conversation")
    columns = [name for name in names if name != "conversation"]
    row = _row(columns, [_path(effect, name) for name in columns])

    def with_conversation(effect: Effect, conversation: int) -> Row:
        if isinstance(effect, EndTurn) and effect.result is None:
            effect = attrs.evolve(effect, result=cast("Any", NO_RESULT))
        values = row(effect)
        values.insert(at, conversation)
        return values

    return with_conversation


def _path(effect: type, name: str) -> str:
    """Return the attributes of an effect that lead to the value of a column."""
    attribute = RENAMED.get(effect, {}).get(name, name)
    if effect is EndTurn and name in vars(NO_RESULT):
        return f"result.{name}"
    return f"{RECORDS[effect]}.{attribute}" if effect in RECORDS else attribute


def _row(columns: Sequence[str], paths: Sequence[str]) -> Callable[[Any], list[Any]]:
    """Return a function that makes of a step or an effect the values of columns, which it finds at these paths."""
    values_in = attrgetter(*paths)
    written = [(at, write) for at, name in enumerate(columns) if (write := CODECS.get(name, PLAIN).write) is not None]

    def row(thing: Any) -> list[Any]:
        values = list(values_in(thing))
        for at, write in written:
            value = values[at]
            if value is not None:
                values[at] = write(value)
        return values

    return row


# Reading


def _conversation(values: Values) -> Conversation:
    turn, owner, until = (values.pop(name) for name in RUNNING)
    running = None if turn is None else Running(turn, owner, until)
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
    readers = [(name, reader) for name in columns if (reader := CODECS.get(name, PLAIN).read) is not None]
    is_part = "conversation" in columns
    records = []
    for row in rows:
        values: Values = dict(zip(columns, row, strict=True))
        try:
            for name, reader in readers:
                if values[name] is not None:
                    values[name] = reader(values[name])
            if is_part:
                del values["conversation"]
            if kind is Transition:
                values["key"] = key
            records.append(make(values))
        except (ValueError, TypeError, OverflowError) as error:
            raise CorruptRecord(
                f"row {row[0]!r}, {row[1]!r} of table {record.__name__.lower()} is corrupt ({type(error).__name__}: "
                "its columns do not hold what was written); restore it from a backup",
                key,
            ) from error
    return records
