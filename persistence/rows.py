"""From records to rows: how the values of :mod:`fsm.records` and of the effects are written into columns.

A row is a tuple in the order of its table's columns (:mod:`persistence.models`); :mod:`persistence.reading` is the way
back. An update has its row too, in the order in which its statement (:mod:`persistence.queries`) wants its values.
A test holds each row against the names of its statement.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from fsm._core.effects import (
    AddMessage,
    BindSession,
    CloseSession,
    EndTurn,
    ExtendTurn,
    LogTransition,
    MarkSessionDead,
    OpenSession,
    StartTurn,
)
from fsm.content import Block
from fsm.records import Conversation

__all__ = [
    "EPOCH",
    "MICROSECOND",
    "Row",
    "bind_row",
    "close_row",
    "conversation_row",
    "end_row",
    "extend_row",
    "mark_dead_row",
    "message_row",
    "micros",
    "move_row",
    "session_row",
    "transition_row",
    "turn_row",
]

Row: TypeAlias = Sequence[Any]
"""The values of a row's columns, in their order."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

TEXT_BLOCK = frozenset({"type", "text"})
"""The fields of a plain block of text."""


def micros(time: datetime) -> int:
    """A time as microseconds since 1970 in UTC.

    >>> micros(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC))
    1000000
    """
    return (time - EPOCH) // MICROSECOND


def _micros_or_none(time: datetime | None) -> int | None:
    return None if time is None else micros(time)


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


def _content(blocks: tuple[Block, ...]) -> str:
    """A message's blocks as JSON; nearly all are one of text, and its text alone is encoded at half the cost."""
    if len(blocks) == 1 and blocks[0].keys() == TEXT_BLOCK:
        block = blocks[0]
        if block["type"] == "text" and isinstance(block["text"], str):
            return '[{"type":"text","text":' + _json(block["text"]) + "}]"
    return _json(blocks)


def _json_or_none(value: Any) -> str | None:
    return None if value is None else _json(value)


# In what follows, `_value_` is `value` without the descriptor of enum, at a tenth of its cost.


def conversation_row(conversation: Conversation) -> Row:
    """The row of a conversation."""
    return (
        conversation.id,
        conversation.key,
        *_moving(conversation),
        micros(conversation.created_at),
        micros(conversation.updated_at),
    )


def move_row(before: Conversation, after: Conversation) -> Row:
    """What changes in the row of a conversation, and what tells the commit before from every other.

    That is its version, and its time as well: a server that crashes forgets commits that it was not told to sync, and
    what is committed in their place has the same versions.
    """
    return *_moving(after), micros(after.updated_at), after.id, before.version, micros(before.updated_at)


def _moving(conversation: Conversation) -> Row:
    """The columns that a commit may change, but for its time."""
    running = conversation.running
    return (
        conversation.state._value_,
        conversation.version,
        conversation.provider,
        conversation.session_number,
        conversation.session_id,
        conversation.turn_count,
        conversation.message_count,
        conversation.transition_count,
        running and running.turn,
        running and running.owner,
        running and micros(running.until),
        _json(conversation.metadata) if conversation.metadata else "{}",
        conversation.window,
    )


def session_row(conversation: int, opened: OpenSession) -> Row:
    """The row of a session."""
    session = opened.session
    return (
        conversation,
        session.number,
        session.parent,
        session.provider,
        session.session_id,
        micros(session.opened_at),
        session.opened_reason,
        _micros_or_none(session.closed_at),
        session.closed_reason,
    )


def bind_row(conversation: int, bound: BindSession) -> Row:
    """What binding changes in the row of a session."""
    return bound.session_id, conversation, bound.number


def close_row(conversation: int, closed: CloseSession) -> Row:
    """What closing changes in the row of a session."""
    return micros(closed.at), closed.reason, conversation, closed.number


def turn_row(conversation: int, started: StartTurn) -> Row:
    """The row of a turn."""
    turn = started.turn
    return (
        conversation,
        turn.number,
        turn.session_number,
        turn.status._value_,
        turn.first_message,
        turn.last_message,
        micros(turn.started_at),
        _micros_or_none(turn.ended_at),
        turn.subtype,
        turn.is_error,
        turn.session_id,
        _json(turn.errors) if turn.errors else "[]",
        turn.stop_reason,
        _json_or_none(turn.usage),
        turn.cost_usd,
        turn.http_status,
        turn.healed,
        turn.state and turn.state._value_,
        turn.idempotency_key,
        turn.brings_results,
    )


def end_row(conversation: int, end: EndTurn) -> Row:
    """What its end changes in the row of a turn."""
    result = end.result
    return (
        end.session_number,
        end.status._value_,
        end.last_message,
        micros(end.at),
        result and result.subtype,
        bool(result and result.is_error),
        result and result.session_id,
        _json(result.errors) if result and result.errors else "[]",
        result and result.stop_reason,
        result and result.usage_json,
        result and result.cost_usd,
        result and result.http_status,
        end.healed,
        end.state._value_,
        conversation,
        end.number,
    )


def extend_row(conversation: int, extended: ExtendTurn) -> Row:
    """What a late message changes in the row of its turn."""
    return extended.last_message, conversation, extended.number


def message_row(conversation: int, added: AddMessage) -> Row:
    """The row of a message."""
    message = added.message
    return (
        conversation,
        message.number,
        message.turn,
        message.role,
        _content(message.content),
        micros(message.created_at),
        _json_or_none(message.provider_data),
    )


def transition_row(conversation: int, logged: LogTransition) -> Row:
    """The row of a transition."""
    transition = logged.transition
    return (
        conversation,
        transition.number,
        transition.trigger._value_,
        transition.source._value_,
        transition.target._value_,
        transition.session_number,
        transition.session_id,
        transition.version,
        micros(transition.at),
        transition.turn,
        transition.reason,
    )


def mark_dead_row(conversation: int, buried: MarkSessionDead) -> Row:
    """The row of a dead id."""
    return conversation, buried.session_id, buried.session_number, micros(buried.at)
