"""The records: one frozen value for each row of the database.

Rows are named by natural keys, a conversation and a number that counts from 1 without gaps (G5). Times are aware
``datetime`` values in UTC; they are for people and never decide an order.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

import attrs
from attrs import field, frozen

from fsm._core.table import INITIAL, State, Trigger
from fsm.content import Block, text_of

__all__ = [
    "Conversation",
    "Message",
    "Record",
    "Role",
    "Running",
    "Session",
    "Transition",
    "Turn",
    "TurnStatus",
]

Role = Literal["user", "assistant"]


class Record:
    """The base of all records."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the record as an object that can be written as JSON: times in ISO 8601, states by their names.

        >>> from datetime import UTC
        >>> Running(1, "worker-1", datetime(2026, 1, 1, tzinfo=UTC)).to_dict()
        {'turn': 1, 'owner': 'worker-1', 'until': '2026-01-01T00:00:00+00:00'}
        """
        return attrs.asdict(self, filter=_is_told, value_serializer=_as_json)  # type: ignore[arg-type]


def _is_told(attribute: attrs.Attribute[Any], _: object) -> bool:
    """Leave out ``Result.raw``, which is not stored and may hold anything."""
    return attribute.name != "raw"


def _as_json(_: object, __: object, value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return value.value if isinstance(value, StrEnum) else value


class TurnStatus(StrEnum):
    """The status of a turn."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    """Cut off: an exception, a cancellation, an abandoned stream, a killed process, a person's stop."""
    SUPERSEDED = "superseded"
    """A forced reset ended it before its result came."""


@frozen
class Running(Record):
    """The one turn that runs in a conversation, and who may finish it.

    Attributes:
        turn: its number.
        owner: names the manager that runs it.
        until: the end of its lease; after that any worker may end the turn.
    """

    turn: int
    owner: str
    until: datetime


@frozen(kw_only=True)
class Conversation(Record):
    """A conversation as it stood at one version: the snapshot that decisions are made from.

    Attributes:
        key: the caller's name for it.
        id: the store's name for it.
        created_at: when its first turn began.
        updated_at: when it was last committed.
        state: fresh, active or stale.
        version: how many commits it has seen; the guard of the next one. 0: not stored yet.
        provider: the provider that its present session belongs to.
        session_number: the number of its newest session.
        session_id: the provider session id it holds; None unless it is active (G1).
        turn_count: how many turns were begun.
        message_count: how many messages are stored.
        transition_count: how many moves were logged.
        running: the turn that runs, or None.
        metadata: the caller's own JSON object.
        window: the most characters to ask a new session with, history and message together, after a request was refused
            for its size; None if none was (G22).
    """

    key: str
    id: int
    created_at: datetime
    updated_at: datetime
    state: State = INITIAL
    version: int = 0
    provider: str = ""
    session_number: int = 0
    session_id: str | None = None
    turn_count: int = 0
    message_count: int = 0
    transition_count: int = 0
    running: Running | None = None
    metadata: Mapping[str, Any] = field(factory=dict, hash=False)
    window: int | None = None


@frozen(kw_only=True)
class Session(Record):
    """One period in which a conversation is bound to one provider context; immutable once closed.

    Attributes:
        number: 1, 2, … in its conversation.
        provider: the provider it belongs to.
        opened_at: when.
        opened_reason: why it was opened.
        parent: the session before it; None for the first (G7).
        session_id: the provider session id it was last bound to.
        closed_at: when it was closed; None while it is open.
        closed_reason: why it was closed.
    """

    number: int
    provider: str
    opened_at: datetime
    opened_reason: str
    parent: int | None = None
    session_id: str | None = None
    closed_at: datetime | None = None
    closed_reason: str | None = None


@frozen(kw_only=True)
class Turn(Record):
    """One user message and all that the AI answered to it, as stored.

    Attributes:
        number: 1, 2, … in its conversation.
        session_number: the session it ran in; after a heal, the new one.
        status: running, then succeeded, failed, interrupted or superseded.
        first_message: the number of its user message.
        last_message: the number of its last message.
        started_at: when it began.
        ended_at: when it ended; None while it runs.
        subtype, is_error, session_id, errors, stop_reason, usage, cost_usd, http_status: its result's, if it had one.
        healed: whether a dead session was replaced within it.
        state: the conversation's state when it ended; None while it runs.
        idempotency_key: the caller's name for it (G13).
        brings_results: whether its user message holds tool results.
    """

    number: int
    session_number: int
    status: TurnStatus
    first_message: int
    last_message: int
    started_at: datetime
    ended_at: datetime | None = None
    subtype: str | None = None
    is_error: bool = False
    session_id: str | None = None
    errors: tuple[str, ...] = ()
    stop_reason: str | None = None
    usage: Mapping[str, Any] | None = field(default=None, hash=False)
    cost_usd: float | None = None
    http_status: int | None = None
    healed: bool = False
    state: State | None = None
    idempotency_key: str | None = None
    brings_results: bool = False


@frozen(kw_only=True)
class Message(Record):
    """One message, as stored; never changed, never removed (G4).

    Attributes:
        number: 1, 2, … in its conversation.
        turn: the turn it belongs to.
        role: ``user`` or ``assistant``.
        content: its blocks.
        created_at: when it was stored.
        provider_data: what the provider keeps with it, or None.

    >>> from datetime import UTC, datetime
    >>> content = ({"type": "text", "text": "hello"},)
    >>> Message(number=1, turn=1, role="user", content=content, created_at=datetime.now(UTC)).text
    'hello'
    """

    number: int
    turn: int
    role: Role
    content: tuple[Block, ...] = field(hash=False)
    created_at: datetime
    provider_data: Mapping[str, Any] | None = field(default=None, hash=False)

    @property
    def text(self) -> str:
        """The text of its text blocks."""
        return text_of(self.content)


@frozen(kw_only=True)
class Transition(Record):
    """One move of the machine, as logged.

    Attributes:
        key: the conversation that moved.
        number: 1, 2, … in its conversation.
        trigger: what moved it.
        source: the state before.
        target: the state after.
        session_number: the number of its newest session afterwards.
        session_id: the provider session id it holds afterwards (G6).
        version: the version of the commit that made the move.
        at: when.
        turn: the turn in which it happened, or None.
        reason: why, in a few words, or None.
    """

    key: str
    number: int
    trigger: Trigger
    source: State
    target: State
    session_number: int
    session_id: str | None
    version: int
    at: datetime
    turn: int | None = None
    reason: str | None = None
