"""Stores that are wrong in one way each; the rest of them is :class:`~fsm.testing.ReferenceStore`.

:data:`fsm.testing.mutants.MUTANTS` names them and says what each breaks.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Any

import attrs

from fsm._core import effects as fx
from fsm._core.table import Trigger
from fsm.content import text_block, text_of
from fsm.errors import Conflict, StoreError
from fsm.records import Conversation, Message, Transition, Turn
from fsm.testing.reference import ReferenceStore

__all__ = [
    "ChecksBeforeItLocks",
    "ClearsWithoutLogging",
    "ConfusesKeys",
    "CrashesOnConflict",
    "DoublesRowsOnRetry",
    "ForgetsDeadIds",
    "ForgetsToolResults",
    "KeepsTextOnly",
    "LastWriterWins",
    "LosesTheLastCommit",
    "LosesTheLastMessage",
    "OrdersByTheClock",
    "PagesOverlap",
    "ReadsNewestFirst",
    "SharesIdempotencyKeys",
    "StoresTheIdFromTheError",
    "SwallowsFailedWrites",
    "TellsFailedTurns",
    "TrustsTheVersion",
    "WritesHalfAStep",
]


class _Wrong(ReferenceStore):
    """A store that opens a second time as wrong as it was."""

    def reopened(self) -> ReferenceStore:
        return type(self)(self._rows, self._lock)


class LosesTheLastMessage(_Wrong):
    """The answer with which a turn ends is acknowledged and never written."""

    def messages(
        self, conversation: Conversation, *, limit: int | None = None, before: int | None = None
    ) -> Sequence[Message]:
        lost = conversation.message_count if conversation.running is None else None
        found = super().messages(conversation, limit=limit, before=before)
        return [message for message in found if message.number != lost or message.role == "user"]


class LastWriterWins(_Wrong):
    """It writes whatever it is given over whatever is there: no compare-and-swap."""

    def commit(self, step: fx.Step) -> None:
        with self._lock:
            known = self._rows.get(step.before.key)
            if known is not None and known.conversation.version != step.before.version:
                before = step.before
                self._rows[before.key] = attrs.evolve(
                    known,
                    conversation=before,
                    sessions=known.sessions[: before.session_number],
                    turns=known.turns[: before.turn_count],
                    messages=known.messages[: before.message_count],
                    transitions=known.transitions[: before.transition_count],
                )
                if before.version == 0:
                    del self._rows[before.key]
            super().commit(step)


class ChecksBeforeItLocks(LastWriterWins):
    """It looks at the version first and writes later: of two threads both pass, and one turn vanishes."""

    def commit(self, step: fx.Step) -> None:
        known = super().load(step.before.key)
        if (known.version if known else 0) != step.before.version:
            raise Conflict("somebody else was first", step.before.key)
        time.sleep(0.001)
        super().commit(step)


class TrustsTheVersion(_Wrong):
    """It compares the version alone, so a step lands on another commit that took the place of its snapshot."""

    def commit(self, step: fx.Step) -> None:
        known = super().load(step.before.key)
        if known is not None and known.version == step.before.version:
            step = attrs.evolve(step, before=known, after=attrs.evolve(step.after, id=known.id))
        super().commit(step)


class ForgetsDeadIds(_Wrong):
    """It remembers no id that was reported dead, so one that is echoed is adopted again."""

    def dead(self, conversation: Conversation, session_ids: Collection[str]) -> frozenset[str]:  # noqa: ARG002
        return frozenset()


class ForgetsToolResults(_Wrong):
    """It reads no tool results of turns that failed, so the model is told that nobody knows whether the tool ran."""

    def unheard(self, *_: Any, **__: Any) -> Sequence[Message]:
        return ()


class StoresTheIdFromTheError(_Wrong):
    """It keeps the id that came back with the error, and every later message resumes the dead session."""

    def load(self, key: str) -> Conversation | None:
        conversation = super().load(key)
        if conversation is None or conversation.session_id is not None:
            return conversation
        turns = self.turns(conversation, limit=1)
        if not turns or turns[0].subtype != "error_during_execution":
            return conversation
        return attrs.evolve(conversation, session_id=turns[0].session_id)


class WritesHalfAStep(_Wrong):
    """A step that is refused half-way leaves what was written until then: no transaction."""

    def commit(self, step: fx.Step) -> None:
        try:
            super().commit(step)
        except StoreError:
            for count in range(len(step.effects) - 1, 0, -1):
                try:
                    super().commit(attrs.evolve(step, effects=step.effects[:count]))
                except StoreError:
                    continue
                break
            raise


class SwallowsFailedWrites(_Wrong):
    """A write that was refused is acknowledged."""

    def commit(self, step: fx.Step) -> None:
        try:
            super().commit(step)
        except StoreError:
            return


class ClearsWithoutLogging(_Wrong):
    """A dead session is cleared, and the log has no trace of it."""

    def transitions(
        self, conversation: Conversation, *, limit: int | None = None, before: int | None = None
    ) -> Sequence[Transition]:
        found = super().transitions(conversation, limit=limit, before=before)
        return [move for move in found if move.trigger is not Trigger.EXPIRED]


class ReadsNewestFirst(_Wrong):
    """A page of messages comes newest first."""

    def messages(
        self, conversation: Conversation, *, limit: int | None = None, before: int | None = None
    ) -> Sequence[Message]:
        return list(super().messages(conversation, limit=limit, before=before))[::-1]


class OrdersByTheClock(_Wrong):
    """Messages are ordered by their time; the clock is put back, and they change places."""

    def messages(
        self, conversation: Conversation, *, limit: int | None = None, before: int | None = None
    ) -> Sequence[Message]:
        found = super().messages(conversation, limit=limit, before=before)
        return sorted(found, key=lambda message: message.created_at)


class PagesOverlap(_Wrong):
    """The row at which a page must end is in it: off by one."""

    def messages(
        self, conversation: Conversation, *, limit: int | None = None, before: int | None = None
    ) -> Sequence[Message]:
        return super().messages(conversation, limit=limit, before=None if before is None else before + 1)


class TellsFailedTurns(_Wrong):
    """The context has the messages of failed turns too, orphans without an answer."""

    def context(
        self, conversation: Conversation, *, first_session: int, last_session: int, limit: int | None
    ) -> Sequence[Message]:
        turns = [turn for turn in self.turns(conversation) if first_session <= turn.session_number <= last_session]
        ended = {turn.number for turn in turns if turn.ended_at is not None}
        found = [message for message in self.messages(conversation) if message.turn in ended]
        return found if limit is None else found[max(0, len(found) - limit) :]


class DoublesRowsOnRetry(_Wrong):
    """A step that is committed once more is written once more."""

    def commit(self, step: fx.Step) -> None:
        with self._lock:
            known = self._rows.get(step.after.key)
            if known is None or known.conversation != step.after:
                return super().commit(step)
            again = tuple(effect.message for effect in step.effects if isinstance(effect, fx.AddMessage))
            self._rows[step.after.key] = attrs.evolve(known, messages=known.messages + again)
        return None


class SharesIdempotencyKeys(_Wrong):
    """An idempotency key that one conversation has used is taken in all of them."""

    def turn_by_idempotency_key(self, conversation: Conversation, idempotency_key: str) -> Turn | None:  # noqa: ARG002
        for known in self.conversations():
            if found := super().turn_by_idempotency_key(known, idempotency_key):
                return found
        return None


class ConfusesKeys(_Wrong):
    """Two keys that differ in upper and lower case only are one conversation."""

    def load(self, key: str) -> Conversation | None:
        keys = [known.key for known in self.conversations() if known.key.casefold() == key.casefold()]
        return super().load(keys[0]) if keys else None


class KeepsTextOnly(_Wrong):
    """It stores the text of a message, and loses images, tool calls and everything else."""

    def commit(self, step: fx.Step) -> None:
        effects = (
            fx.AddMessage(attrs.evolve(effect.message, content=(text_block(text_of(effect.message.content)),)))
            if isinstance(effect, fx.AddMessage)
            else effect
            for effect in step.effects
        )
        super().commit(attrs.evolve(step, effects=tuple(effects)))


class LosesTheLastCommit(_Wrong):
    """It acknowledges before it writes: opened again, the last commit is not there."""

    def __init__(self, *rows: Any) -> None:
        super().__init__(*rows)
        self._written: dict[str, Any] = dict(self._rows)

    def commit(self, step: fx.Step) -> None:
        written = dict(self._rows)
        super().commit(step)
        self._written = written

    def reopened(self) -> ReferenceStore:
        return type(self)(self._written, self._lock)


class CrashesOnConflict(_Wrong):
    """A lost race raises another error than a conflict, so the caller does not decide again."""

    def commit(self, step: fx.Step) -> None:
        try:
            super().commit(step)
        except Conflict as error:
            raise RuntimeError("optimistic lock failed") from error


# Providers
