"""A step in the making: what the decisions of :mod:`fsm._core.decisions` are written with."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from fsm._core.effects import AddMessage, Effect, EndTurn, LogTransition, Step
from fsm._core.machine import Cursor, fire
from fsm._core.table import Trigger
from fsm._core.turn import Answer
from fsm.content import Block
from fsm.errors import ConversationBusy, TurnSuperseded
from fsm.records import Conversation, Message, Role, Running, Transition, TurnStatus

__all__ = ["Draft"]


class Draft:
    """The conversation as it is being changed, and the effects so far.

    Args:
        before: the snapshot that is decided from.
        now: the time, in UTC.
    """

    def __init__(self, before: Conversation, now: datetime) -> None:
        self.before = before
        self.now = now
        self.state = before.state
        self.provider = before.provider
        self.session = before.session_number
        self.session_id = before.session_id
        self.turns = before.turn_count
        self.messages = before.message_count
        self.transitions = before.transition_count
        self.running = before.running
        self.metadata = before.metadata
        self.window = before.window
        self.effects: list[Effect] = []

    def step(self) -> Step:
        """The step, ready to be committed."""
        before = self.before
        after = Conversation(  # what `attrs.evolve` would make of it, at a quarter of the cost
            before.key,
            before.id,
            before.created_at,
            updated_at=self.now,
            state=self.state,
            version=before.version + 1,
            provider=self.provider,
            session_number=self.session,
            session_id=self.session_id,
            turn_count=self.turns,
            message_count=self.messages,
            transition_count=self.transitions,
            running=self.running,
            metadata=self.metadata,
            window=self.window,
        )
        return Step(before, after, tuple(self.effects))

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

    def end_lapsed(self, *, abandoned: bool | None) -> bool:
        """End the running turn as ``interrupted`` if anybody may; whether it was ended.

        What is known of its owner counts, and its lease if nothing is; see :func:`fsm._core.decisions.begin`.
        """
        running = self.running
        if running is None or not (running.until <= self.now if abandoned is None else abandoned):
            return False
        self.end(running.turn, TurnStatus.INTERRUPTED, Answer())
        return True

    def clear_way(self, *, abandoned: bool | None, force: bool = False) -> None:
        """End the running turn if that may be done; otherwise the conversation is busy (G5).

        Raises:
            ConversationBusy: it is running, and ``force`` was not given.
        """
        running = self.running
        if running is None or self.end_lapsed(abandoned=abandoned):
            return
        if not force:
            raise ConversationBusy(
                f"turn {running.turn} is running, by {running.owner} until {running.until:%H:%M:%S} UTC; wait for it "
                '(on_busy="wait"), or end it with reset(force=True)',
                self.before.key,
            )
        self.end(running.turn, TurnStatus.SUPERSEDED, Answer())

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
                    session_number=cursor.session,
                    session_id=cursor.session_id,
                    version=self.before.version + 1,
                    at=self.now,
                    turn=turn,
                    reason=reason,
                )
            )
        )
        self.state, self.session, self.session_id = cursor.state, cursor.session, cursor.session_id
        if self.provider != cursor.provider:
            self.provider, self.window = cursor.provider, None  # another model takes another size

    def say(
        self,
        turn: int,
        role: Role,
        content: tuple[Block, ...],
        provider_data: Mapping[str, Any] | None = None,
    ) -> None:
        """Append a message."""
        self.messages += 1
        self.effects.append(AddMessage(Message(self.messages, turn, role, content, self.now, provider_data)))

    def answer(self, turn: int, answer: Answer) -> None:
        """Append what the AI said."""
        for role, content, provider_data in answer.messages:
            self.say(turn, role, content, provider_data)

    def end(self, turn: int, status: TurnStatus, answer: Answer) -> None:
        """Append what the AI said, and end the running turn."""
        self.answer(turn, answer)
        self.running = None
        # The newest message is its own only if it has just said it: one of an earlier turn may have come late (G10).
        last = self.messages if answer.messages else None
        self.effects.append(
            EndTurn(turn, self.session, status, self.state, last, self.now, answer.result, answer.healed)
        )
