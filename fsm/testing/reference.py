"""The reference store: what a store must do, in memory and in the plainest words.

It is what other stores are compared with, and quick enough to explore a hundred thousand steps. It keeps nothing when
the process ends; :meth:`ReferenceStore.reopened` is what another process would find.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import TypeVar

import attrs
from attrs import Factory, define

from fsm._core import effects as fx
from fsm.errors import Conflict, InvalidInput, StoreError
from fsm.records import Conversation, Message, Session, Transition, Turn, TurnStatus

__all__ = ["ReferenceStore"]

R = TypeVar("R")

UNHEARD = frozenset({TurnStatus.FAILED, TurnStatus.INTERRUPTED, TurnStatus.SUPERSEDED})
"""How a turn ends whose user message no session is known to have heard."""


@define
class _Rows:
    """All that is kept of one conversation: its row, and the rows of the other tables in the order of their numbers."""

    conversation: Conversation
    sessions: tuple[Session, ...] = ()
    turns: tuple[Turn, ...] = ()
    messages: tuple[Message, ...] = ()
    transitions: tuple[Transition, ...] = ()
    dead: frozenset[str] = frozenset()


@define
class ReferenceStore:
    """Conversations in memory; see :class:`fsm.store.Store` for what each method promises.

    >>> store = ReferenceStore()
    >>> store.load("ticket-42") is None
    True
    """

    _rows: dict[str, _Rows] = Factory(dict)
    _lock: threading.RLock = Factory(threading.RLock)

    def reopened(self) -> ReferenceStore:
        """Return a second store on the same conversations, as another process would open it."""
        return ReferenceStore(self._rows, self._lock)

    def close(self) -> None:
        """Do nothing: a store in memory has nothing to close."""

    def commit(self, step: fx.Step) -> None:
        """Write one step, whole."""
        key = step.before.key
        with self._lock:
            known = self._rows.get(key)
            if (known.conversation.version if known else 0) != step.before.version:
                raise Conflict(f"it is not at version {step.before.version} any more; load it and decide again", key)
            if known is not None and _commit_of(known.conversation) != _commit_of(step.before):
                raise Conflict("another commit has taken the place of its snapshot; load it and decide again", key)
            # On a copy: a step that is refused half-way must leave no trace.
            rows = attrs.evolve(known, conversation=step.after) if known else _Rows(step.after)
            for effect in step.effects:
                _write(rows, effect, key)
            self._rows[key] = rows

    def load(self, key: str) -> Conversation | None:
        """Return the conversation as it stands."""
        rows = self._rows.get(key)
        return None if rows is None else rows.conversation

    def dead(self, conversation: Conversation, session_ids: Collection[str]) -> frozenset[str]:
        """Return those of the ids that were reported dead."""
        return self._of(conversation).dead & frozenset(session_ids)

    def context(
        self, conversation: Conversation, *, first_session: int, last_session: int, limit: int | None
    ) -> Sequence[Message]:
        """Return the newest messages of succeeded turns of these sessions."""
        rows = self._of(conversation)
        told = {
            turn.number
            for turn in rows.turns
            if turn.status is TurnStatus.SUCCEEDED and first_session <= turn.session_number <= last_session
        }
        return _newest([message for message in rows.messages if message.turn in told], limit)

    def unheard(
        self, conversation: Conversation, *, first_session: int, last_session: int, limit: int | None
    ) -> Sequence[Message]:
        """Return the newest user messages with tool results of turns of these sessions that did not succeed."""
        rows = self._of(conversation)
        first_messages = {
            turn.first_message
            for turn in rows.turns
            if turn.brings_results and turn.status in UNHEARD and first_session <= turn.session_number <= last_session
        }
        return _newest([message for message in rows.messages if message.number in first_messages], limit)

    def turn_messages(self, conversation: Conversation, turn: Turn) -> Sequence[Message]:
        """Return all messages of one turn."""
        return [message for message in self._of(conversation).messages if message.turn == turn.number]

    def turn_by_idempotency_key(self, conversation: Conversation, idempotency_key: str) -> Turn | None:
        """Return the turn that was begun with this idempotency key."""
        turns = self._of(conversation).turns
        return next((turn for turn in turns if turn.idempotency_key == idempotency_key), None)

    def messages(
        self, conversation: Conversation, *, limit: int | None = None, before: int | None = None
    ) -> Sequence[Message]:
        """Return the messages."""
        return _page(self._of(conversation).messages, limit, before)

    def turns(
        self, conversation: Conversation, *, limit: int | None = None, before: int | None = None
    ) -> Sequence[Turn]:
        """Return the turns."""
        return _page(self._of(conversation).turns, limit, before)

    def sessions(
        self, conversation: Conversation, *, limit: int | None = None, before: int | None = None
    ) -> Sequence[Session]:
        """Return the sessions."""
        return _page(self._of(conversation).sessions, limit, before)

    def transitions(
        self, conversation: Conversation, *, limit: int | None = None, before: int | None = None
    ) -> Sequence[Transition]:
        """Return the log of moves."""
        return _page(self._of(conversation).transitions, limit, before)

    def conversations(self, *, limit: int | None = None, after: str | None = None) -> Sequence[Conversation]:
        """Return the conversations in the order of their keys."""
        _check_limit(limit)
        keys = sorted(key for key in self._rows if after is None or key > after)
        return [self._rows[key].conversation for key in keys[:limit]]

    def count(self) -> int:
        """Return the number of conversations."""
        return len(self._rows)

    def running(
        self, *, until: datetime | None = None, limit: int = 100, after: Conversation | None = None
    ) -> Sequence[Conversation]:
        """Return conversations with a running turn, the oldest lease first."""
        _check_limit(limit)
        if after is not None and after.running is None:
            raise InvalidInput("no turn runs in the conversation to go on after", after.key)
        leases = [
            (conversation.running.until, conversation.id, conversation.key)
            for conversation in self.conversations()
            if conversation.running is not None and (until is None or conversation.running.until <= until)
        ]
        if after is not None and after.running is not None:
            leases = [lease for lease in leases if lease[:2] > (after.running.until, after.id)]
        return [self._rows[key].conversation for _, _, key in sorted(leases)[:limit]]

    def _of(self, conversation: Conversation) -> _Rows:
        return self._rows.get(conversation.key) or _Rows(conversation)


def _commit_of(conversation: Conversation) -> tuple[int, datetime]:
    """Return the fields, other than the version, that tell two commits apart in a database that may forget."""
    return conversation.id, conversation.updated_at


def _write(rows: _Rows, effect: fx.Effect, key: str) -> None:
    match effect:
        case fx.AddMessage(message):
            rows.messages = _appended(rows.messages, message, key)
        case fx.StartTurn(turn):
            _check_start(rows, turn, key)
            rows.turns = _appended(rows.turns, turn, key)
        case fx.OpenSession(session):
            _check_open(rows, key)
            rows.sessions = _appended(rows.sessions, session, key)
        case fx.LogTransition(transition):
            rows.transitions = _appended(rows.transitions, transition, key)
        case fx.MarkSessionDead(session_id):
            rows.dead |= {session_id}
        case fx.BindSession(number, session_id):
            rows.sessions = _changed(rows.sessions, number, key, session_id=session_id)
        case fx.CloseSession(number, reason, at):
            rows.sessions = _changed(rows.sessions, number, key, closed_at=at, closed_reason=reason)
        case fx.ExtendTurn(number, last_message):
            rows.turns = _changed(rows.turns, number, key, last_message=last_message)
        case fx.EndTurn():
            rows.turns = _changed(rows.turns, effect.number, key, **_end(effect))


def _check_open(rows: _Rows, key: str) -> None:
    """Check that one session is open (G7)."""
    if any(session.closed_at is None for session in rows.sessions):
        raise StoreError("a session is open already; nothing was written", key)


def _check_start(rows: _Rows, turn: Turn, key: str) -> None:
    """Check what other stores check with unique indexes: one turn runs, and an idempotency key is used once (G5,
    G13)."""
    named = turn.idempotency_key
    if named is not None and any(other.idempotency_key == named for other in rows.turns):
        raise StoreError("a turn has this idempotency key already; nothing was written", key)
    if any(other.status is TurnStatus.RUNNING for other in rows.turns):
        raise StoreError("a turn is running already; nothing was written", key)


def _end(effect: fx.EndTurn) -> dict[str, object]:
    result = effect.result
    said = {
        name: getattr(result, name)
        for name in ("subtype", "is_error", "session_id", "errors", "stop_reason", "usage", "cost_usd", "http_status")
        if result is not None
    }
    return {
        "session_number": effect.session_number,
        "status": effect.status,
        "state": effect.state,
        **({} if effect.last_message is None else {"last_message": effect.last_message}),
        "ended_at": effect.at,
        "healed": effect.healed,
        **said,
    }


def _appended(rows: tuple[R, ...], row: R, key: str) -> tuple[R, ...]:
    if getattr(row, "number") != len(rows) + 1:  # noqa: B009  # every kind of row has one
        raise StoreError(f"a row {len(rows) + 1} of {type(row).__name__} was due; nothing was written", key)
    return (*rows, row)


def _changed(rows: tuple[R, ...], number: int, key: str, **changes: object) -> tuple[R, ...]:
    row = rows[number - 1] if 0 < number <= len(rows) else None
    finished = isinstance(row, Session) and row.closed_at is not None
    finished = finished or (isinstance(row, Turn) and "status" in changes and row.status is not TurnStatus.RUNNING)
    if row is None or finished:
        raise StoreError("a row that this step changes is missing or already closed. Nothing was written", key)
    changed: R = attrs.evolve(row, **changes)  # type: ignore[misc]  # R is one of the records
    return (*rows[: number - 1], changed, *rows[number:])


def _check_limit(limit: int | None) -> None:
    if limit is not None and limit < 0:
        raise InvalidInput(f"limit is {limit}; it must not be negative")


def _page(rows: Sequence[R], limit: int | None, before: int | None) -> Sequence[R]:
    if before is not None and before < 0:
        raise InvalidInput(f"before is {before}; it must not be negative")
    return _newest(rows if before is None else rows[: max(0, before - 1)], limit)


def _newest(rows: Sequence[R], limit: int | None) -> Sequence[R]:
    _check_limit(limit)
    return list(rows) if limit is None else list(rows[max(0, len(rows) - limit) :])
