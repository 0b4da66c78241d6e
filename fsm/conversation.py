"""The decisions: from a snapshot and a command to a step, without any I/O.

Every function here takes the frozen :class:`~fsm.records.Conversation` as it was loaded, and what the command brings
(times and names come in as arguments: there is no clock and no randomness), and returns a
:class:`~fsm.effects.Step`, or raises and has changed nothing. Committing the step is the store's part, guarded by
the version of the snapshot; on :class:`~fsm.errors.Conflict` the caller loads again and decides again.

==============  ==============================================================================
:func:`begin`      start a turn; renews a stale session, a changed provider, a lapsed turn on its way
:func:`extend`     lengthen the lease of the running turn
:func:`heal`       replace the session that the running turn found dead, and let it try again
:func:`finish`     end the running turn with its result
:func:`interrupt`  end the running turn without one
:func:`lapse`      end a running turn whose owner is gone
:func:`late`       keep the text of a turn that had been ended by somebody else
:func:`reset`      start over with a new session
==============  ==============================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import attrs

from fsm.content import Block
from fsm.effects import (
    AddMessage,
    Effect,
    EndTurn,
    ExtendTurn,
    LogTransition,
    OpenSession,
    StartTurn,
    Step,
)
from fsm.errors import ConversationBusy, InvalidKey, TurnSuperseded
from fsm.machine import Cursor, fire
from fsm.records import Conversation, Message, Role, Running, Session, Transition, Turn, TurnStatus
from fsm.results import EXPIRED, INTERRUPTED, Result
from fsm.states import State, Trigger
from fsm.turn import Answer

__all__ = [
    "KEY_LENGTH",
    "begin",
    "check_key",
    "extend",
    "finish",
    "heal",
    "interrupt",
    "lapse",
    "late",
    "reset",
]

KEY_LENGTH = 512
"""The longest key, in characters."""


def check_key(key: object, name: str = "key") -> str:
    """The key, if it is one: 1 to 512 characters of text, no NUL, no lone surrogate.

    Raises:
        InvalidKey: it is not; the message says why.

    >>> check_key("slack:C042")
    'slack:C042'
    >>> check_key("")
    Traceback (most recent call last):
    ...
    fsm.errors.InvalidKey: the key is empty; a key has 1 to 512 characters
    """
    if not isinstance(key, str):
        raise InvalidKey(f"the {name} is of type {type(key).__name__}; a key is text of 1 to {KEY_LENGTH} characters")
    if not key:
        raise InvalidKey(f"the {name} is empty; a key has 1 to {KEY_LENGTH} characters")
    if len(key) > KEY_LENGTH:
        raise InvalidKey(f"the {name} has {len(key)} characters; a key has 1 to {KEY_LENGTH}")
    if "\0" in key:
        raise InvalidKey(f"the {name} has a NUL character, which no database keeps; leave it out")
    try:
        key.encode()
    except UnicodeEncodeError:
        raise InvalidKey(f"the {name} has a lone surrogate; a key must be text in UTF-8") from None
    return key


class _Draft:
    """A step in the making: the conversation as it is being changed, and the effects so far."""

    def __init__(self, before: Conversation, now: datetime) -> None:
        self.before = before
        self.now = now
        self.state = before.state
        self.provider = before.provider
        self.session = before.session
        self.session_id = before.session_id
        self.turns = before.turns
        self.messages = before.messages
        self.transitions = before.transitions
        self.running = before.running
        self.metadata = before.metadata
        self.effects: list[Effect] = []

    def step(self) -> Step:
        after = attrs.evolve(
            self.before,
            state=self.state,
            version=self.before.version + 1,
            provider=self.provider,
            session=self.session,
            session_id=self.session_id,
            turns=self.turns,
            messages=self.messages,
            transitions=self.transitions,
            running=self.running,
            metadata=self.metadata,
            updated_at=self.now,
        )
        return Step(self.before, after, tuple(self.effects))

    def fenced(self, turn: int, owner: str) -> Running:
        """The running turn, if it is this one and this owner's (G10)."""
        running = self.running
        if running is None or running.turn != turn or running.owner != owner:
            raise TurnSuperseded(
                f"turn {turn} had been ended by a reset or taken over before its result came; "
                "its text is kept with it, and the conversation goes on without it",
                self.before.key,
            )
        return running

    def move(
        self,
        trigger: Trigger,
        reason: str,
        *,
        provider: str | None = None,
        turn: int | None = None,
        named: str | None = None,
        dead: frozenset[str] = frozenset(),
    ) -> None:
        """Let the machine move, take over what it collected, log it (G6)."""
        cursor = Cursor(
            self.state,
            provider or self.provider,
            self.session,
            self.session_id,
            reason,
            self.now,
            named,
            dead,
        )
        fire(cursor, trigger, self.before.key)
        self.effects += cursor.effects
        self.transitions += 1
        self.effects.append(
            LogTransition(
                Transition(
                    key=self.before.key,
                    number=self.transitions,
                    trigger=trigger,
                    source=self.state,
                    target=cursor.state,
                    session=cursor.session,
                    session_id=cursor.session_id,
                    version=self.before.version + 1,
                    at=self.now,
                    turn=turn,
                    reason=reason,
                )
            )
        )
        self.state, self.session, self.session_id = cursor.state, cursor.session, cursor.session_id
        self.provider = cursor.provider

    def say(
        self,
        turn: int,
        role: Role,
        content: tuple[Block, ...],
        provider_data: Mapping[str, Any] | None = None,
    ) -> None:
        self.messages += 1
        self.effects.append(AddMessage(Message(self.messages, turn, role, content, self.now, provider_data)))

    def answer(self, turn: int, answer: Answer) -> None:
        for role, content, provider_data in answer.messages:
            self.say(turn, role, content, provider_data)

    def end(self, turn: int, status: TurnStatus, answer: Answer) -> None:
        self.answer(turn, answer)
        self.running = None
        self.effects.append(EndTurn(turn, self.session, status, self.messages, self.now, answer.result, answer.healed))


NOTHING = Answer()


def _clear_way(draft: _Draft, *, abandoned: bool, force: bool = False) -> None:
    """End the running turn if that may be done; otherwise the conversation is busy (G5)."""
    running = draft.running
    if running is None:
        return
    if abandoned or running.until <= draft.now:
        draft.end(running.turn, TurnStatus.INTERRUPTED, NOTHING)
    elif force:
        draft.end(running.turn, TurnStatus.SUPERSEDED, NOTHING)
    else:
        raise ConversationBusy(
            f"turn {running.turn} is running, by {running.owner} until {running.until:%H:%M:%S} UTC; wait for it "
            '(on_busy="wait"), or end it with reset(force=True)',
            draft.before.key,
        )


def begin(
    conversation: Conversation,
    *,
    content: tuple[Block, ...],
    provider: str,
    owner: str,
    now: datetime,
    lease: timedelta,
    idempotency_key: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    abandoned: bool = False,
) -> Step:
    """Start a turn with the user's message (G8).

    On its way it ends a running turn whose lease is over, opens the first session, renews a stale one, and leaves a
    session that belongs to another provider (G15).

    Args:
        conversation: the snapshot; version 0 for one that is not stored yet.
        content: the user's message.
        provider: the name of the provider that will answer.
        owner: who runs the turn.
        now: the time, in UTC.
        lease: how long the owner may take without a sign of life.
        idempotency_key: the caller's name for the turn, or None.
        metadata: merged into the conversation's.
        abandoned: the running turn's owner is known to have given it up, so its lease does not matter.

    Raises:
        ConversationBusy: another turn is running.
    """
    draft = _Draft(conversation, now)
    _clear_way(draft, abandoned=abandoned)
    turn = draft.turns = draft.turns + 1
    if draft.session == 0:
        draft.session, draft.provider = 1, provider
        draft.effects.append(OpenSession(Session(1, provider, now, "first turn")))
    elif draft.provider != provider:
        reason = f"provider changed from {draft.provider} to {provider}"
        draft.move(Trigger.RESET, reason, provider=provider, turn=turn)
    elif draft.state is State.STALE:
        draft.move(Trigger.RESET, "next turn after a dead session", turn=turn)
    first = draft.messages + 1
    draft.effects.append(
        StartTurn(Turn(turn, draft.session, TurnStatus.RUNNING, first, first, now, idempotency_key=idempotency_key))
    )
    draft.say(turn, "user", content)
    draft.running = Running(turn, owner, now + lease)
    if metadata:
        draft.metadata = {**draft.metadata, **metadata}
    return draft.step()


def extend(conversation: Conversation, *, turn: int, owner: str, now: datetime, lease: timedelta) -> Step:
    """Lengthen the lease of the running turn.

    Raises:
        TurnSuperseded: it is not running any more, or not this owner's.
    """
    draft = _Draft(conversation, now)
    draft.running = attrs.evolve(draft.fenced(turn, owner), until=now + lease)
    return draft.step()


def heal(
    conversation: Conversation,
    *,
    turn: int,
    owner: str,
    result: Result,
    now: datetime,
    lease: timedelta,
    dead: frozenset[str] = frozenset(),
) -> Step:
    """Replace the session that the running turn found dead; the turn goes on and tries again, once (G11).

    Args:
        conversation: the snapshot.
        turn: the running turn.
        owner: who runs it.
        result: its result, whose trigger is ``expired``.
        now: the time, in UTC.
        lease: how long the second try may take without a sign of life.
        dead: which of the ids held and named were buried before.

    Raises:
        InvalidTransition: the result is no reason to heal.
        TurnSuperseded: the turn is not running any more, or not this owner's.
    """
    draft = _Draft(conversation, now)
    running = draft.fenced(turn, owner)
    draft.move(result.trigger, _reason(result), turn=turn, named=result.session_id, dead=dead)
    draft.move(Trigger.RESET, "heal", turn=turn)
    draft.running = attrs.evolve(running, until=now + lease)
    return draft.step()


def finish(
    conversation: Conversation,
    *,
    turn: int,
    owner: str,
    result: Result,
    answer: Answer,
    now: datetime,
    dead: frozenset[str] = frozenset(),
) -> Step:
    """End the running turn with its result: the machine moves, the answer is stored.

    Args:
        conversation: the snapshot.
        turn: the running turn.
        owner: who runs it.
        result: what the AI reported.
        answer: what it said, the result among it.
        now: the time, in UTC.
        dead: which of the ids held and named were reported dead before.

    Raises:
        TurnSuperseded: it is not running any more, or not this owner's.
    """
    draft = _Draft(conversation, now)
    draft.fenced(turn, owner)
    draft.move(result.trigger, _reason(result), turn=turn, named=result.session_id, dead=dead)
    draft.end(turn, _status(result), answer)
    return draft.step()


def interrupt(conversation: Conversation, *, turn: int, owner: str, answer: Answer, now: datetime) -> Step:
    """End the running turn without a result; what was said so far is kept, the machine does not move.

    Raises:
        TurnSuperseded: it is not running any more, or not this owner's.
    """
    draft = _Draft(conversation, now)
    draft.fenced(turn, owner)
    draft.end(turn, TurnStatus.INTERRUPTED, answer)
    return draft.step()


def lapse(conversation: Conversation, *, now: datetime, abandoned: bool = False) -> Step | None:
    """End a running turn whose lease is over or whose owner gave it up (G9); None if there is none to end."""
    draft = _Draft(conversation, now)
    running = draft.running
    if running is None or not (abandoned or running.until <= now):
        return None
    draft.end(running.turn, TurnStatus.INTERRUPTED, NOTHING)
    return draft.step()


def late(conversation: Conversation, *, turn: int, answer: Answer, now: datetime) -> Step | None:
    """Keep what a turn said after it had been ended by somebody else (G10); None if it said nothing.

    The machine does not move and the turn's status stays, so the text never gets into a context.
    """
    if not answer.messages:
        return None
    draft = _Draft(conversation, now)
    draft.answer(turn, answer)
    draft.effects.append(ExtendTurn(turn, draft.messages))
    return draft.step()


def reset(
    conversation: Conversation,
    *,
    reason: str,
    provider: str,
    now: datetime,
    force: bool = False,
    abandoned: bool = False,
) -> Step:
    """Start over with a new session; the stored history stays (G4).

    Args:
        conversation: the snapshot.
        reason: why, for the log and the closed session.
        provider: the provider that the new session belongs to.
        now: the time, in UTC.
        force: end a running turn as ``superseded``.
        abandoned: the running turn's owner is known to have given it up.

    Raises:
        ConversationBusy: a turn is running and ``force`` was not given.
    """
    draft = _Draft(conversation, now)
    _clear_way(draft, abandoned=abandoned, force=force)
    draft.move(Trigger.RESET, reason, provider=provider)
    return draft.step()


def _status(result: Result) -> TurnStatus:
    if result.subtype == INTERRUPTED:
        return TurnStatus.INTERRUPTED
    return TurnStatus.SUCCEEDED if result.trigger is Trigger.SUCCEEDED else TurnStatus.FAILED


def _reason(result: Result) -> str:
    """Why the machine moves, in the words of the result's kind; never the provider's own text."""
    if result.trigger is Trigger.FAILED and result.http_status is not None:
        return f"{result.subtype}, HTTP {result.http_status}"
    return EXPIRED if result.trigger is Trigger.EXPIRED else result.subtype
