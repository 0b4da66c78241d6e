"""The commits of one running turn: each decided from the newest snapshot, and decided again if somebody was first.

It promises that what a turn writes is written once, on top of what is there, whoever else writes meanwhile; and that
what a crashed database has forgotten of the turn is put back before anything is written on top of it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from fsm import conversation as decide
from fsm.effects import StartTurn, Step
from fsm.errors import Conflict, StoreError
from fsm.log import LOGGER
from fsm.records import Conversation
from fsm.turn import Answer
from fsm.waiting import TRIES

if TYPE_CHECKING:
    from fsm.driver import Driver

__all__ = ["Commits"]

S = TypeVar("S", Step, Step | None)


class Commits:
    """The commits of one running turn.

    Args:
        driver: what drives it.
        begun: the step that began it.

    Attributes:
        conversation: the newest snapshot.
    """

    def __init__(self, driver: Driver, begun: Step) -> None:
        self.conversation = begun.after
        self._driver = driver
        self._turn = next(effect.turn for effect in begun.effects if isinstance(effect, StartTurn))
        self._steps = [begun]

    async def make(self, decision: Callable[..., S], *named: str | None, **arguments: Any) -> S:
        """Decide and commit, if there is anything to; when somebody else was first, load and decide again.

        Args:
            decision: one of :mod:`fsm.conversation`; it is given the snapshot, the turn and the time.
            named: provider session ids; it is told which of them are dead.
            arguments: what else it wants.

        Raises:
            TurnSuperseded: somebody else has ended the turn.
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
            StoreError: something else has happened, and another turn has this one's number, perhaps even its owner.
        """
        key = self.conversation.key
        found = await self._driver.ports.call(self._driver.store.load, key)
        for number, step in enumerate(self._steps):
            if step.before == found or (found is None and step.before.version == 0):
                for forgotten in self._steps[number:]:
                    await self._driver.ports.call(self._driver.store.commit, forgotten)
                fields = {"conversation": key, "turn": self._turn.number, "version": step.before.version}
                LOGGER.warning("store.restore_completed", extra=fields)
                return self._steps[-1].after
        if found is None:
            return await self._driver.load(key)
        await self._check_number(found)
        return found

    async def keep_lease(self, least: timedelta = timedelta.min) -> None:
        """Extend the lease if half of it is over, or less than ``least`` of it is left.

        Raises:
            TurnSuperseded: somebody else has ended the turn.
        """
        settings, running = self._driver.settings, self.conversation.running
        if running is None or running.until - settings.clock() > max(settings.lease_length / 2, least):
            return
        await self.make(decide.extend, owner=self._driver.owner, lease=settings.lease_length)

    async def keep_late(self, answer: Answer, resumed: str | None) -> None:
        """Somebody else has ended the turn: keep what was said with it, outside the context (G10).

        Raises:
            StoreError: the turn was forgotten by the database, and another has its number.
        """
        named = None if answer.result is None else answer.result.session_id
        self.conversation = await self._look_again()
        await self.make(decide.late, resumed, named, answer=answer, resumed=resumed)

    async def _check_number(self, conversation: Conversation) -> None:
        """See that the turn which has this number is this one."""
        number = self._turn.number
        turns = self._driver.store.turns
        found = await self._driver.ports.call(turns, conversation, limit=1, before=number + 1)
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
