"""The check of a stored conversation: its row, its sessions and its log must agree (G1, G2, G6, G7, G15)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from fsm._core.table import State, Trigger
from fsm.records import Conversation, Session, Transition
from fsm.store import Store
from fsm.testing.moves import Place, Replay, TraceError

__all__ = ["check_dead", "check_row", "check_sessions", "rows"]

PAGE = 200
"""How many rows are held at once."""


class _Numbered(Protocol):
    @property
    def number(self) -> int: ...


R = TypeVar("R", bound=_Numbered)


def rows(table: str, read: Callable[..., Sequence[R]], conversation: Conversation, count: int) -> Iterator[R]:
    """Yield all rows, from the first to the last, page by page; they are numbered without gaps and as many as
    counted."""
    due = 1
    while due <= count:
        page = read(conversation, limit=PAGE, before=min(due + PAGE, count + 1))
        found = [row for row in page if row.number >= due]
        if not found:
            Place(conversation.key, table, due).fails("G5", f"it is missing; {count} are counted")
        for row in found:
            if row.number != due:
                Place(conversation.key, table, due).fails("G5", f"it is missing; {row.number} comes next")
            due += 1
            yield row
    for row in read(conversation, limit=1):
        if row.number > count:
            Place(conversation.key, table, row.number).fails("G5", f"only {count} are counted")


def check_row(conversation: Conversation) -> None:
    fails = Place(conversation.key, "conversation", None).fails
    if (conversation.session_id is not None) != (conversation.state is State.ACTIVE):
        fails("G1", f"it is {conversation.state} and holds {conversation.session_id!r}")
    if conversation.version < 1 or conversation.session_number < 1 or conversation.turn_count < 1:
        fails("G5", "it has no version, no session or no turn; a conversation begins with its first turn")
    running = conversation.running
    if running is not None and running.turn != conversation.turn_count:
        fails("G5", f"turn {running.turn} runs, but {conversation.turn_count} is the newest")


def check_sessions(store: Store, conversation: Conversation) -> Replay:
    """Check the sessions against the moves: each reset opens one, and each end of one has its reason."""
    replay = Replay(conversation.key)
    sessions = rows("session", store.sessions, conversation, conversation.session_number)
    session, bound = next(sessions), None
    if session.parent is not None:
        Place(conversation.key, "session", 1).fails("G7", f"it is the first, but its parent is {session.parent}")
    for move in rows("transition", store.transitions, conversation, conversation.transition_count):
        was_open = replay.state is not State.STALE
        replay.take(move)
        if move.trigger in {Trigger.RESET, Trigger.EXPIRED} and was_open:
            _check_closed(conversation.key, session, bound, move)
        if move.trigger is Trigger.RESET:
            opened = next(sessions, None)
            if opened is None:
                reason = f"it opens session {move.session_number}"
                raise TraceError(conversation.key, "transition", move.number, "G6", reason)
            _check_opened(conversation, session, opened, move)
            session, bound = opened, None
        bound = move.session_id or bound
    _check_end(conversation, replay, session, bound)
    for extra in sessions:
        Place(conversation.key, "session", extra.number).fails("G6", "no move has opened it")
    return replay


def _check_closed(key: str, session: Session, bound: str | None, move: Transition) -> None:
    fails = Place(key, "session", session.number).fails
    if session.closed_at is None or not session.closed_reason:
        fails("G7", f"move {move.number} closed it, but it is open or has no reason")
    if session.closed_reason != move.reason:
        fails("G7", f"it was closed for {session.closed_reason!r}, but move {move.number} says {move.reason!r}")
    if session.session_id != bound:
        fails("G6", f"it is bound to {session.session_id!r}, but the log says {bound!r}")


def _check_opened(conversation: Conversation, before: Session, session: Session, move: Transition) -> None:
    fails = Place(conversation.key, "session", session.number).fails
    if session.parent != before.number:
        fails("G7", f"its parent is {session.parent}, not {before.number}")
    if session.opened_reason != move.reason:
        fails("G7", f"it was opened for {session.opened_reason!r}, but move {move.number} says {move.reason!r}")


def _check_end(conversation: Conversation, replay: Replay, session: Session, bound: str | None) -> None:
    """Check that the log ends in the state of the conversation."""
    fails = Place(conversation.key, "conversation", None).fails
    for name in ("state", "session_number", "session_id"):
        stored, replayed = getattr(conversation, name), getattr(replay, name)
        if stored != replayed:
            fails("G6", f"its {name} is {stored!r}, but its log leads to {replayed!r}")
    if replay.version > conversation.version:
        fails("G6", f"its version is {conversation.version}, but its log goes up to {replay.version}")
    if session.provider != conversation.provider:
        fails("G15", f"its provider is {conversation.provider!r}, but that of its session {session.provider!r}")
    fails = Place(conversation.key, "session", session.number).fails
    if (session.closed_at is None) != (conversation.state is not State.STALE):
        fails("G7", f"it is {'open' if session.closed_at is None else 'closed'} in state {conversation.state}")
    if session.session_id != bound:
        fails("G6", f"it is bound to {session.session_id!r}, but the log says {bound!r}")


def check_dead(store: Store, conversation: Conversation, replay: Replay) -> None:
    """Check that an id that was reported dead is remembered, and not held."""
    held = conversation.session_id
    if held is not None and store.dead(conversation, {held}):
        Place(conversation.key, "conversation", None).fails("G2", f"it holds {held!r}, which was reported dead")
    for session_id in replay.dead:
        if not store.dead(conversation, {session_id}):
            Place(conversation.key, "conversation", None).fails("G2", f"it forgot that {session_id!r} is dead")
