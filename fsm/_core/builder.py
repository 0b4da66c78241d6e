"""A step in the making: the conversation as a decision changes it, and the effects so far.

The functions of :mod:`fsm._core.decisions` are written with a :class:`Builder`. The machine moves the builder itself:
the guards and effects that the table names are its methods. They only collect, so one that raised would leave nothing
half-written. There is one :data:`MACHINE` in a process. It keeps no models, so a conversation takes no memory in it.
Any number of threads may use it at once.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast

import attrs
from transitions import EventData, MachineError

from fsm._core.effects import (
    AddMessage,
    BindSession,
    CloseSession,
    Effect,
    EndTurn,
    LogTransition,
    MarkSessionDead,
    OpenSession,
    Step,
)
from fsm._core.table import TABLE, Trigger, build
from fsm._core.turn import Answer
from fsm.content import Block
from fsm.errors import ConversationBusy, InvalidTransition, TurnSuperseded
from fsm.records import Conversation, Message, Role, Running, Session, Transition, TurnStatus

__all__ = ["MACHINE", "Builder"]

CHANGING = (
    *("state", "provider", "session_number", "session_id", "turn_count", "message_count", "transition_count"),
    *("running", "metadata", "window"),
)
"""The fields of a conversation that a step may change, its version and its time aside."""


class Builder:
    """A step in the making.

    Args:
        before: the snapshot that is decided from.
        now: the time, in UTC.

    Attributes:
        effects: the rows to write so far, in order.
        reason: the reason of the move under way.
        named: the provider session id in the result, or None.
        dead: the ids, of those held and named, that were reported dead before.
    """

    def __init__(self, before: Conversation, now: datetime) -> None:
        self.before = before
        self.now = now
        self.state = before.state
        self.provider = before.provider
        self.session_number = before.session_number
        self.session_id = before.session_id
        self.turn_count = before.turn_count
        self.message_count = before.message_count
        self.transition_count = before.transition_count
        self.running = before.running
        self.metadata = before.metadata
        self.window = before.window
        self.effects: list[Effect] = []
        self.reason = ""
        self.named: str | None = None
        self.dead: frozenset[str] = frozenset()

    def step(self) -> Step:
        """Return the step, ready to be committed."""
        changed = {name: getattr(self, name) for name in CHANGING}
        after = attrs.evolve(self.before, version=self.before.version + 1, updated_at=self.now, **changed)
        return Step(self.before, after, tuple(self.effects))

    # The guard and the effects that the table names

    def names_live_session(self, _: EventData) -> bool:
        """Guard: the result names a session, and not one that was reported dead (G2)."""
        return self.named is not None and self.named not in self.dead

    def bind(self, _: EventData) -> None:
        """Effect: hold the session that the result names."""
        self.session_id = cast("str", self.named)  # the guard has seen to it
        self.effects.append(BindSession(self.session_number, self.session_id))

    def rebind(self, event: EventData) -> None:
        """Effect: hold the session that the result names, if it is another one and alive."""
        if self.named != self.session_id and self.names_live_session(event):
            self.bind(event)

    def mark_dead(self, _: EventData) -> None:
        """Effect: mark the id that was held, and the one that came with the error, as dead (G2)."""
        for session_id in dict.fromkeys((self.session_id, self.named)):
            if session_id is not None and session_id not in self.dead:
                self.effects.append(MarkSessionDead(session_id, self.session_number, self.now))

    def close(self, _: EventData) -> None:
        """Effect: close the open session with its reason; no id is held any more."""
        self.session_id = None
        self.effects.append(CloseSession(self.session_number, self.reason, self.now))

    def open(self, _: EventData) -> None:
        """Effect: open the next session, its parent the one before (G7)."""
        self.open_session(self.reason)

    # The parts of decisions

    def move(
        self,
        trigger: Trigger,
        reason: str,
        *,
        turn: int | None = None,
        named: str | None = None,
        dead: frozenset[str] = frozenset(),
    ) -> None:
        """Let the machine move this builder, and log the transition (G6).

        Raises:
            InvalidTransition: the table has no such row. The state and the effects are as they were.
        """
        source = self.state
        self.reason, self.named, self.dead = reason, named, dead
        try:
            MACHINE.events[trigger].trigger(self)
        except MachineError as error:
            raise InvalidTransition(
                f"{trigger.value!r} is not possible in state {source.value!r}; "
                "load the conversation again and decide from what it is now",
                self.before.key,
            ) from error
        self.transition_count += 1
        transition = Transition(
            key=self.before.key,
            number=self.transition_count,
            trigger=trigger,
            source=source,
            target=self.state,
            session_number=self.session_number,
            session_id=self.session_id,
            version=self.before.version + 1,
            at=self.now,
            turn=turn,
            reason=reason,
        )
        self.effects.append(LogTransition(transition))

    def open_session(self, reason: str) -> None:
        """Open the next session; the one before it, if there is one, is its parent."""
        parent, self.session_number = self.session_number or None, self.session_number + 1
        session = Session(
            number=self.session_number,
            provider=self.provider,
            opened_at=self.now,
            opened_reason=reason,
            parent=parent,
        )
        self.effects.append(OpenSession(session))

    def change_provider(self, provider: str) -> None:
        """Open sessions with this provider from now on, and forget the window that was measured with another one."""
        if provider != self.provider:
            self.provider, self.window = provider, None

    def check_owner(self, turn: int, owner: str) -> Running:
        """Return the running turn, if it is this turn and belongs to this owner (G10).

        Raises:
            TurnSuperseded: it is not.
        """
        running = self.running
        if running is None or running.turn != turn or running.owner != owner:
            raise TurnSuperseded(
                f"turn {turn} had been ended by a reset or taken over before its result came; "
                "its text is kept with it, and the conversation goes on without it",
                self.before.key,
            )
        return running

    def end_abandoned_turn(self, *, abandoned: bool | None) -> bool:
        """End the running turn as ``interrupted`` if its lease is over or its owner is gone; return whether it was.

        Args:
            abandoned: what is known of its owner; see :func:`fsm._core.decisions.begin`.
        """
        running = self.running
        if running is None or not (running.until <= self.now if abandoned is None else abandoned):
            return False
        self.end_turn(running.turn, TurnStatus.INTERRUPTED, Answer())
        return True

    def require_idle(self, *, abandoned: bool | None, force: bool = False) -> None:
        """End the running turn if that is allowed (G5).

        Raises:
            ConversationBusy: it is not abandoned, and ``force`` was not given.
        """
        running = self.running
        if running is None or self.end_abandoned_turn(abandoned=abandoned):
            return
        if not force:
            raise ConversationBusy(
                f"turn {running.turn} is running, by {running.owner} until {running.until:%H:%M:%S} UTC; wait for it "
                '(on_busy="wait"), or end it with reset(force=True)',
                self.before.key,
            )
        self.end_turn(running.turn, TurnStatus.SUPERSEDED, Answer())

    def add_message(
        self,
        turn: int,
        role: Role,
        content: tuple[Block, ...],
        provider_data: Mapping[str, Any] | None = None,
    ) -> None:
        """Append a message."""
        self.message_count += 1
        message = Message(
            number=self.message_count,
            turn=turn,
            role=role,
            content=content,
            created_at=self.now,
            provider_data=provider_data,
        )
        self.effects.append(AddMessage(message))

    def add_answer(self, turn: int, answer: Answer) -> None:
        """Append the messages of an answer."""
        for role, content, provider_data in answer.messages:
            self.add_message(turn, role, content, provider_data)

    def end_turn(self, turn: int, status: TurnStatus, answer: Answer) -> None:
        """Append the answer and end the running turn."""
        self.add_answer(turn, answer)
        self.running = None
        end = EndTurn(
            number=turn,
            session_number=self.session_number,
            status=status,
            state=self.state,
            # Without an answer, the newest message may be a late one of an earlier turn (G10).
            last_message=self.message_count if answer.messages else None,
            at=self.now,
            result=answer.result,
            healed=answer.healed,
        )
        self.effects.append(end)


def _is_not_ours(record: logging.LogRecord) -> bool:
    """Return whether a log record of ``transitions`` is about another machine than this one."""
    return not (isinstance(record.args, tuple) and record.args[:1] == (MACHINE.name,))


MACHINE = build(TABLE, Builder)
"""The machine of this process. It holds no state."""

# The machine moves with every turn. Its log repeats the log of this library.
logging.getLogger("transitions.core").addFilter(_is_not_ours)
