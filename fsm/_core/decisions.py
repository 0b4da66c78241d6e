"""The decisions: from a snapshot and a command to a step, without any I/O.

Every function here takes the frozen :class:`~fsm.records.Conversation` as it was loaded, and what the command brings.
Times and names are arguments, so the same arguments give the same step. It returns a :class:`~fsm.store.Step`, or
raises and has changed nothing. The store commits the step, guarded by the version of the snapshot. On
:class:`~fsm.errors.Conflict` the caller loads again and decides again.

==========================  ==================================================================================
:func:`begin`               start a turn; on its way renew a stale session, a changed provider, an expired turn
:func:`extend`              lengthen the lease of the running turn
:func:`heal`                replace the session that the running turn found dead, so that it can ask again
:func:`finish`              end the running turn with its result
:func:`interrupt`           end the running turn without a result
:func:`expire_lease`        end a running turn whose owner is gone
:func:`record_late_result`  keep the text of a turn that another worker or a reset had ended
:func:`reset`               start over with a new session
==========================  ==================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

import attrs

from fsm._core.builder import Builder
from fsm._core.effects import ExtendTurn, MarkSessionDead, StartTurn, Step
from fsm._core.table import State, Trigger
from fsm._core.turn import Answer
from fsm.content import Block
from fsm.errors import InvalidTransition
from fsm.events import INTERRUPTED, Result
from fsm.records import Conversation, Running, Turn, TurnStatus

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

    The step also ends an abandoned turn as interrupted. It opens a session if the conversation has none, or if the one
    that it has is dead or belongs to another provider (G15).

    Args:
        conversation: the snapshot; its version is 0 if it is not stored yet.
        content: the user's message.
        provider: the name of the provider that will answer.
        owner: the name of the manager that runs the turn.
        now: the time, in UTC.
        lease: how long the owner may give no sign of life.
        idempotency_key: the caller's name for the turn, or None.
        metadata: the fields to merge into the conversation's metadata.
        abandoned: True if the running turn's owner is known to be gone, False if it is known to be at work. Either
            way the lease does not matter. None if nothing is known, so that the lease decides.

    Raises:
        ConversationBusy: another turn is running.
    """
    builder = Builder(conversation, now)
    builder.require_idle(abandoned=abandoned)
    turn = builder.turn_count = builder.turn_count + 1
    _open_session_for(builder, provider, turn)
    first = builder.message_count + 1
    started = Turn(
        number=turn,
        session_number=builder.session_number,
        status=TurnStatus.RUNNING,
        first_message=first,
        last_message=first,
        started_at=now,
        idempotency_key=idempotency_key,
        brings_results=any("tool_use_id" in block for block in content),
    )
    builder.effects.append(StartTurn(started))
    builder.add_message(turn, "user", content)
    builder.running = Running(turn, owner, now + lease)
    if metadata:
        builder.metadata = {**builder.metadata, **metadata}
    return builder.step()


def _open_session_for(builder: Builder, provider: str, turn: int) -> None:
    """Open a session for a turn unless one is open that the turn can go on with."""
    before = builder.provider
    builder.change_provider(provider)
    if builder.session_number == 0:
        builder.open_session("first turn")
    elif before != provider:
        builder.move(Trigger.RESET, f"provider changed from {before} to {provider}", turn=turn)
    elif builder.state is State.STALE:
        builder.move(Trigger.RESET, "next turn after a dead session", turn=turn)


def extend(conversation: Conversation, *, turn: int, owner: str, now: datetime, lease: timedelta) -> Step:
    """Lengthen the lease of the running turn.

    Raises:
        TurnSuperseded: it is not running any more, or not this owner's.
    """
    builder = Builder(conversation, now)
    builder.running = attrs.evolve(builder.check_owner(turn, owner), until=now + lease)
    return builder.step()


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
    """Replace the session that the running turn found dead, so that the turn can ask again, once (G11).

    Args:
        conversation: the snapshot.
        turn: the running turn.
        owner: the name of the manager that runs it.
        result: its result, whose trigger is ``expired``.
        now: the time, in UTC.
        lease: how long the second attempt may give no sign of life.
        dead: the ids that were reported dead before, of the held one and the one in the result.

    Raises:
        InvalidTransition: the result does not report a dead session.
        TurnSuperseded: the turn is not running any more, or not this owner's.
    """
    if result.trigger is not Trigger.EXPIRED:
        raise InvalidTransition(
            f"a result {result.reason!r} does not report a dead session, so there is nothing to heal; finish the turn",
            conversation.key,
        )
    builder = Builder(conversation, now)
    running = builder.check_owner(turn, owner)
    builder.move(result.trigger, result.reason, turn=turn, named=result.session_id, dead=dead)
    builder.move(Trigger.RESET, "heal", turn=turn)
    builder.running = attrs.evolve(running, until=now + lease)
    return builder.step()


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
        owner: the name of the manager that runs it.
        result: what the AI reported.
        answer: what the AI said, with the result.
        now: the time, in UTC.
        dead: the ids that were reported dead before, of the held one and the one in the result.
        fitted: the most characters, history and message together, that a later new session is told. It is known after a
            request was refused for its size; None if none was (G22).

    Raises:
        TurnSuperseded: it is not running any more, or not this owner's.
    """
    builder = Builder(conversation, now)
    builder.check_owner(turn, owner)
    builder.move(result.trigger, result.reason, turn=turn, named=result.session_id, dead=dead)
    if fitted is not None:
        builder.window = fitted
    builder.end_turn(turn, status_of(result), answer)
    return builder.step()


def interrupt(conversation: Conversation, *, turn: int, owner: str, answer: Answer, now: datetime) -> Step:
    """End the running turn without a result; the answer so far is kept, and the machine does not move.

    Raises:
        TurnSuperseded: it is not running any more, or not this owner's.
    """
    builder = Builder(conversation, now)
    builder.check_owner(turn, owner)
    builder.end_turn(turn, TurnStatus.INTERRUPTED, answer)
    return builder.step()


def expire_lease(conversation: Conversation, *, now: datetime, abandoned: bool | None = None) -> Step | None:
    """End a running turn whose lease is over or whose owner is gone (G9); return None if there is none to end.

    Args:
        conversation: the snapshot.
        now: the time, in UTC.
        abandoned: what is known of the turn's owner; see :func:`begin`.
    """
    builder = Builder(conversation, now)
    return builder.step() if builder.end_abandoned_turn(abandoned=abandoned) else None


def record_late_result(
    conversation: Conversation,
    *,
    turn: int,
    answer: Answer,
    now: datetime,
    resumed: str | None = None,
    dead: frozenset[str] = frozenset(),
) -> Step | None:
    """Keep the answer of a turn that another worker or a reset had ended (G10).

    The machine does not move and the turn's status stays, so the text never gets into a context. Ids that the late
    result reports dead are marked (G2), except the id that the conversation holds: the turn that resumes it finds out.

    Args:
        conversation: the snapshot.
        turn: the turn that came late.
        answer: what the AI said.
        now: the time, in UTC.
        resumed: the provider session id that the turn had resumed, or None.
        dead: the ids, of those resumed and named, that were reported dead before.

    Returns:
        The step, or None if there is nothing to keep.
    """
    builder = Builder(conversation, now)
    for session_id in _reported_dead(answer.result, resumed):
        if session_id not in dead | {conversation.session_id}:
            builder.effects.append(MarkSessionDead(session_id, builder.session_number, now))
    if answer.messages:
        builder.add_answer(turn, answer)
        builder.effects.append(ExtendTurn(turn, builder.message_count))
    return builder.step() if builder.effects else None


def _reported_dead(result: Result | None, resumed: str | None) -> Iterator[str]:
    """Yield the ids that a result reports dead: the one that was resumed and the one that it names."""
    if result is not None and result.trigger is Trigger.EXPIRED:
        yield from (named for named in dict.fromkeys((resumed, result.session_id)) if named is not None)


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
        reason: the reason, for the log and the closed session.
        provider: the provider that the new session belongs to.
        now: the time, in UTC.
        force: end a running turn as ``superseded``.
        abandoned: what is known of the running turn's owner; see :func:`begin`.

    Raises:
        ConversationBusy: a turn is running and ``force`` was not given.
    """
    builder = Builder(conversation, now)
    builder.require_idle(abandoned=abandoned, force=force)
    builder.change_provider(provider)
    builder.move(Trigger.RESET, reason)
    return builder.step()


def status_of(result: Result) -> TurnStatus:
    """Return the status of a turn with this result."""
    if result.subtype == INTERRUPTED:
        return TurnStatus.INTERRUPTED
    return TurnStatus.SUCCEEDED if result.trigger is Trigger.SUCCEEDED else TurnStatus.FAILED
