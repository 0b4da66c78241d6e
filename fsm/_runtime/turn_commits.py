"""The commits of one running turn: each decided from the newest snapshot, and decided again if somebody was first.

It promises that what a turn writes is written once, on top of what is there, whoever else writes meanwhile; and that
what a crashed database has forgotten of the turn is put back before anything is written on top of it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from fsm._core import decisions as decide
from fsm._core.effects import StartTurn, Step
from fsm._core.turn import Answer
from fsm._runtime.log import LOGGER
from fsm._runtime.turn_queue import TRIES
from fsm.errors import Conflict, ConversationNotFound, FSMError, StoreError, TurnSuperseded
from fsm.records import Conversation
from fsm.store import Store

if TYPE_CHECKING:
    from fsm._runtime.engine import Driver

__all__ = ["Commits"]

S = TypeVar("S", Step, Step | None)


class Commits:
    """The commits of one running turn.

    The turn's own task or thread writes here; the keeper's thread calls :meth:`renew`. What the two commit at the same
    time is told apart by the store: one of them gets a conflict.

    Args:
        driver: what drives it.
        begun: the step that begins it.

    Attributes:
        conversation: the newest snapshot.
    """

    def __init__(self, driver: Driver, begun: Step) -> None:
        self.conversation = begun.after
        self._driver = driver
        self._turn = next(effect.turn for effect in begun.effects if isinstance(effect, StartTurn))
        self._steps = [begun]
        self._epoch = epoch_of(driver.store)

    async def make(self, decision: Callable[..., S], *named: str | None, **arguments: Any) -> S:
        """Decide and commit, if there is anything to; when somebody else was first, load and decide again.

        Args:
            decision: one of :mod:`fsm._core.decisions`; it is given the snapshot, the turn and the time.
            named: provider session ids; it is told which of them are dead.
            arguments: what else it wants.

        Raises:
            TurnSuperseded: somebody else has ended the turn.
            ConversationNotFound: the conversation was deleted.
            StoreError: the store refused.
        """
        for number in range(TRIES):
            try:
                if number:
                    self.conversation = await self._look_again()
                step = await self._decided(decision, named, arguments)
                if step is not None:
                    await self._driver.commit(step)
                    self.conversation = step.after
                    self._steps.append(step)
            except Conflict as error:
                conflict = error
            else:
                return step
        raise conflict

    async def _decided(self, decision: Callable[..., S], named: tuple[str | None, ...], arguments: dict[str, Any]) -> S:
        if named:
            arguments = {**arguments, "dead": await self._driver.dead(self.conversation, *named)}
        now = self._driver.settings.clock()
        return decision(self.conversation, turn=self._turn.number, now=now, **arguments)

    async def _look_again(self) -> Conversation:
        """The conversation as it stands; what the database has forgotten of this turn is stored again.

        A server that crashes forgets commits that it was not told to sync: all of a turn but its end, if the store is
        not a strict one. If nothing else has happened since, the very same steps can be stored once more.

        Raises:
            ConversationNotFound: the conversation was deleted, and must not come back.
            StoreError: something else has happened, and another turn has this one's number, perhaps even its owner.
        """
        key = self.conversation.key
        found = await self._driver.ask(key, self._driver.store.load, key)
        for number, step in enumerate(self._steps):
            if step.before == found or (found is None and step.before.version == 0 and self._may_be_forgotten):
                for forgotten in self._steps[number:]:
                    await self._driver.ask(key, self._driver.store.commit, forgotten)
                fields = {"conversation": key, "turn": self._turn.number, "version": step.before.version}
                LOGGER.warning("store.restore_completed", extra=fields)
                return self._steps[-1].after
        if found is None or (found.id != self.conversation.id and not self._may_be_forgotten):
            raise ConversationNotFound(
                f"it was deleted while turn {self._turn.number} ran; nothing of that turn is stored", key
            )
        await self._check_number(found)
        return found

    @property
    def _may_be_forgotten(self) -> bool:
        """Whether the database may have lost the beginning; otherwise somebody has deleted the conversation."""
        return epoch_of(self._driver.store) != self._epoch

    async def keep_lease(self, least: timedelta = timedelta.min) -> None:
        """Extend the lease if half of it is over, or less than ``least`` of it is left.

        Raises:
            TurnSuperseded: somebody else has ended the turn.
        """
        settings, running = self._driver.settings, self.conversation.running
        if running is None or running.until - settings.clock() > max(settings.lease_length / 2, least):
            return
        await self.make(decide.extend, owner=self._driver.owner, lease=settings.lease_length)

    def renew(self, signed_at: datetime) -> None:
        """Extend the lease if half of it is over; called by the keeper's thread, which must not fail.

        Args:
            signed_at: when the provider gave its newest sign of life; the lease counts from there.
        """
        try:
            if not self._renew(self.conversation, signed_at):
                found = self._driver.store.load(self.conversation.key)
                if found is not None and found.id == self.conversation.id:
                    self._renew(found, signed_at)
        except TurnSuperseded:
            return  # for the turn itself to find out
        except Exception as error:  # noqa: BLE001  # a store is somebody else's code; it is tried again soon
            fields = {"conversation": self.conversation.key, "turn": self._turn.number, "error": type(error).__name__}
            LOGGER.warning("lease.renew_failed", extra=fields)

    def _renew(self, before: Conversation, signed_at: datetime) -> bool:
        """Extend the lease of this snapshot; False if it is not the newest."""
        settings, running = self._driver.settings, before.running
        now, until = settings.clock(), signed_at + settings.lease_length
        if running is None or running.until - now > settings.lease_length / 2 or until <= max(now, running.until):
            return True
        step = decide.extend(before, turn=self._turn.number, owner=self._driver.owner, now=now, lease=until - now)
        try:
            self._driver.store.commit(step)
        except Conflict:
            return False
        if self.conversation is before:
            self._steps.append(step)
            self.conversation = step.after
        return True

    async def release(self) -> None:
        """Try once to end a turn whose answer could not be stored, so that nobody has to wait for its lease."""
        with suppress(FSMError):
            await self.make(decide.interrupt, owner=self._driver.owner, answer=Answer())

    async def keep_late(self, answer: Answer, resumed: str | None) -> None:
        """Somebody else has ended the turn: keep what was said with it, outside the context (G10).

        Raises:
            StoreError: the turn was forgotten by the database, and another has its number.
        """
        named = None if answer.result is None else answer.result.session_id
        self.conversation = await self._look_again()
        await self.make(decide.record_late_result, resumed, named, answer=answer, resumed=resumed)

    async def _check_number(self, conversation: Conversation) -> None:
        """See that the turn which has this number is this one."""
        number = self._turn.number
        turns = self._driver.store.turns
        found = await self._driver.ask(conversation.key, turns, conversation, limit=1, before=number + 1)
        mine = (self._turn.first_message, self._turn.started_at)
        if [(turn.first_message, turn.started_at) for turn in found] != [mine]:
            raise StoreError(
                f"the database has lost the beginning of turn {number}, as a server that crashes may, and another turn "
                "has taken its place; nothing of it is stored. Send the message again",
                self.conversation.key,
            )

    def forget(self) -> None:
        """Nobody knows whether the turn was begun at all: put nothing back."""
        self._steps.clear()


def epoch_of(store: Store) -> int:
    return int(getattr(store, "epoch", 0))
