"""The decisions: from a snapshot and a command to a step, without any I/O.

Every function here takes the frozen :class:`~fsm.records.Conversation` as it was loaded, and what the command brings
(times and names come in as arguments: there is no clock and no randomness), and returns a
:class:`~fsm._core.effects.Step`, or raises and has changed nothing. Committing the step is the store's part, guarded by
the version of the snapshot; on :class:`~fsm.errors.Conflict` the caller loads again and decides again.

==================  ==========================================================================
:func:`begin`      start a turn; renews a stale session, a changed provider, a lapsed turn on its way
:func:`extend`     lengthen the lease of the running turn
:func:`heal`       replace the session that the running turn found dead, and let it try again
:func:`finish`     end the running turn with its result
:func:`interrupt`  end the running turn without one
:func:`expire_lease`      end a running turn whose owner is gone
:func:`late`       keep the text of a turn that had been ended by somebody else
:func:`reset`      start over with a new session
==================  ==========================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import attrs

from fsm._core.draft import Draft
from fsm._core.effects import ExtendTurn, MarkSessionDead, OpenSession, StartTurn, Step
from fsm._core.table import State, Trigger
from fsm._core.turn import Answer
from fsm.content import Block
from fsm.errors import InvalidTransition
from fsm.events import INTERRUPTED, Result
from fsm.records import Conversation, Running, Session, Turn, TurnStatus

__all__ = [
    "begin",
    "expire_lease",
    "extend",
    "finish",
    "heal",
    "interrupt",
    "record_late_result",
    "reset",
    "status_of",
]


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
    abandoned: bool | None = None,
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
        abandoned: whether the running turn's owner is known to have given it up; False if it is known to be at work.
            Either way the lease does not matter. None if nothing is known, so that the lease decides.

    Raises:
        ConversationBusy: another turn is running.
    """
    draft = Draft(conversation, now)
    draft.clear_way(abandoned=abandoned)
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
        StartTurn(
            Turn(
                number=turn,
                session_number=draft.session,
                status=TurnStatus.RUNNING,
                first_message=first,
                last_message=first,
                started_at=now,
                idempotency_key=idempotency_key,
                brings_results=any("tool_use_id" in block for block in content),
            )
        )
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
    draft = Draft(conversation, now)
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
    if result.trigger is not Trigger.EXPIRED:
        raise InvalidTransition(
            f"a result {result.reason!r} does not report a dead session, so there is nothing to heal; finish the turn",
            conversation.key,
        )
    draft = Draft(conversation, now)
    running = draft.fenced(turn, owner)
    draft.move(result.trigger, result.reason, turn=turn, named=result.session_id, dead=dead)
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
    fitted: int | None = None,
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
        fitted: with how many characters to ask later new sessions, history and message together, after a request was
            refused for its size; None if nothing new was found out (G22).

    Raises:
        TurnSuperseded: it is not running any more, or not this owner's.
    """
    draft = Draft(conversation, now)
    draft.fenced(turn, owner)
    draft.move(result.trigger, result.reason, turn=turn, named=result.session_id, dead=dead)
    if fitted is not None:
        draft.window = fitted
    draft.end(turn, status_of(result), answer)
    return draft.step()


def interrupt(conversation: Conversation, *, turn: int, owner: str, answer: Answer, now: datetime) -> Step:
    """End the running turn without a result; what was said so far is kept, the machine does not move.

    Raises:
        TurnSuperseded: it is not running any more, or not this owner's.
    """
    draft = Draft(conversation, now)
    draft.fenced(turn, owner)
    draft.end(turn, TurnStatus.INTERRUPTED, answer)
    return draft.step()


def expire_lease(conversation: Conversation, *, now: datetime, abandoned: bool | None = None) -> Step | None:
    """End a running turn whose lease is over or whose owner gave it up (G9); None if there is none to end.

    Args:
        conversation: the snapshot.
        now: the time, in UTC.
        abandoned: what is known of the turn's owner; see :func:`begin`.
    """
    draft = Draft(conversation, now)
    return draft.step() if draft.end_lapsed(abandoned=abandoned) else None


def record_late_result(
    conversation: Conversation,
    *,
    turn: int,
    answer: Answer,
    now: datetime,
    resumed: str | None = None,
    dead: frozenset[str] = frozenset(),
) -> Step | None:
    """Keep what a turn said after it had been ended by somebody else (G10).

    The machine does not move and the turn's status stays, so the text never gets into a context. Ids that the late
    result reports dead are buried (G2), but for one that the conversation holds: it is for the turn that resumes it to
    find that out.

    Args:
        conversation: the snapshot.
        turn: the turn that came late.
        answer: what it said.
        now: the time, in UTC.
        resumed: the provider session id that the turn had resumed.
        dead: which of the ids resumed and named were buried before.

    Returns:
        The step, or None if there is nothing to keep.
    """
    draft = Draft(conversation, now)
    result = answer.result
    if result is not None and result.trigger is Trigger.EXPIRED:
        for session_id in dict.fromkeys((resumed, result.session_id)):
            if session_id is not None and session_id not in dead | {conversation.session_id}:
                draft.effects.append(MarkSessionDead(session_id, draft.session, now))
    if answer.messages:
        draft.answer(turn, answer)
        draft.effects.append(ExtendTurn(turn, draft.messages))
    return draft.step() if draft.effects else None


def reset(
    conversation: Conversation,
    *,
    reason: str,
    provider: str,
    now: datetime,
    force: bool = False,
    abandoned: bool | None = None,
) -> Step:
    """Start over with a new session; the stored history stays (G4).

    Args:
        conversation: the snapshot.
        reason: why, for the log and the closed session.
        provider: the provider that the new session belongs to.
        now: the time, in UTC.
        force: end a running turn as ``superseded``.
        abandoned: what is known of the running turn's owner; see :func:`begin`.

    Raises:
        ConversationBusy: a turn is running and ``force`` was not given.
    """
    draft = Draft(conversation, now)
    draft.clear_way(abandoned=abandoned, force=force)
    draft.move(Trigger.RESET, reason, provider=provider)
    return draft.step()


def status_of(result: Result) -> TurnStatus:
    """How a turn with this result stands."""
    if result.subtype == INTERRUPTED:
        return TurnStatus.INTERRUPTED
    return TurnStatus.SUCCEEDED if result.trigger is Trigger.SUCCEEDED else TurnStatus.FAILED
