"""A running turn that drives itself: it asks its provider, feeds itself, heals, and stores how it ended.

However a turn ends, by its result, by an exception, a cancellation or because its caller walked away, it is ended in
the store once, and its provider is closed.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING

import attrs

from fsm._core import decisions as decide
from fsm._core.effects import Step
from fsm._core.table import State
from fsm._core.turn import RunningTurn
from fsm._runtime.log import LOGGER, cleared
from fsm._runtime.presence import Lease
from fsm._runtime.provider_stream import END, ProviderStream
from fsm._runtime.turn_commits import Commits
from fsm.content import Block
from fsm.errors import (
    Conflict,
    ConversationNotFound,
    FSMError,
    InvalidInput,
    StoreError,
    TurnSuperseded,
)
from fsm.events import Event, Result
from fsm.provider import Request
from fsm.records import TurnStatus
from fsm.reply import Reply

if TYPE_CHECKING:
    from fsm._runtime.engine import Driver

__all__ = ["DrivenTurn"]


UNASKED = timedelta(seconds=1)
"""How long after it was begun a turn may ask its provider without a look at who holds it: a caller that comes back
later may have been superseded meanwhile, and the session that it was to resume may be dead (G2)."""


class DrivenTurn:
    """A turn that was begun and is to be read to its end with :meth:`pull`, and closed with :meth:`close`.

    One task or thread at a time reads it. Its lease, of which only the time is written, is everybody's.

    Args:
        driver: what drives it.
        begun: the step that begins the turn.
        content: the user's message.
    """

    def __init__(self, driver: Driver, begun: Step, content: tuple[Block, ...]) -> None:
        conversation = begun.after
        self.key = conversation.key
        self.number = conversation.turn_count
        self._turn = RunningTurn(
            self.key, self.number, resumed=conversation.state is State.ACTIVE, heal=driver.settings.heal
        )
        self._driver = driver
        self._commits = Commits(driver, begun)
        self._provider = ProviderStream(driver.ports, self.key, self.number)
        self._lease = Lease(driver.settings.lease_seconds, driver.settings.clock, self._commits.renew)
        self._content = content
        self._request: Request | None = None
        self._ready: deque[Event] = deque()
        self._is_finishing = False
        self._is_over = False
        self._process = os.getpid()

    @property
    def text(self) -> str:
        """The text so far."""
        return self._turn.text

    @property
    def healed(self) -> bool:
        """Whether a dead session was replaced, so far."""
        return self._turn.healed

    @property
    def reply(self) -> Reply:
        """The reply; see :attr:`fsm.RunningTurn.reply`."""
        return self._turn.reply

    async def pull(self) -> Event | None:
        """The next event for the caller, or None at the end.

        The result is handed out after it was stored, and at once: what the provider does afterwards delays nobody. If
        anything goes wrong, the turn is ended before the error is raised.

        Raises:
            ProviderError: the provider broke its contract.
            StoreError: the store refused; ``error.reply`` holds what was answered (G16).
            TurnSuperseded: somebody else has ended the turn (G10).
            InvalidInput: the turn is read in another process than the one that began it.
        """
        if self._is_inherited:
            raise InvalidInput(
                f"turn {self.number} runs in the process that began it, and this is a child of that; read it there",
                self.key,
            )
        if not self._ready and not self._is_over:
            try:
                await self._pull()
            except BaseException as error:
                with self._driver.ports.shield(), self._let_go_afterwards():
                    await self._fail(error)
                raise
        return self._ready.popleft() if self._ready else None

    async def close(self) -> None:
        """End the turn as ``interrupted`` if it has not ended: its caller walks away.

        In a forked child this does nothing: the turn is the parent's.
        """
        self._ready.clear()
        if self._is_inherited:
            return
        if not self._is_over:
            with self._driver.ports.shield(), self._let_go_afterwards():
                await self._interrupt()
        await self._provider.settle()

    def run(self) -> None:
        """The turn is begun: keep its lease from now on."""
        self._driver.ports.watch(self._lease)

    def leave_to_parent(self) -> None:
        """In a forked child: what the provider answers is the parent's, and must not be closed here."""
        self._provider.leave_to_parent()

    @property
    def _is_inherited(self) -> bool:
        return self._process != os.getpid()

    async def _pull(self) -> None:
        """Read on until there is something to hand out."""
        while not self._ready:
            event = await self._next()
            if event is END:
                self._turn.exhausted()
            handed = self._turn.feed(event)
            result = self._turn.result
            if result is None:
                await self._commits.keep_lease()
            elif self._turn.should_heal:
                await self._heal(result)
                continue
            elif (narrower := self._turn.narrower) is not None:
                await self._narrow(narrower)
                continue
            else:
                await self._finish(result)
            self._ready.extend(handed)

    # The provider

    async def _next(self) -> object:
        """The provider's next event, or ``END``; it is asked first, if it was not."""
        if self._request is None:
            await self._commits.keep_lease(self._driver.settings.lease_length - UNASKED)
            request = await self._driver.requests.make(
                self._commits.conversation, self._content, self._turn.told_at_most
            )
            self._request = attrs.evolve(request, alive=self._lease.sign)
            self._turn.told = (
                None if request.session_id is not None else sum(len(told.text) for told in request.history)
            )
        return await self._provider.next(self._request)

    # The store

    async def _heal(self, result: Result) -> None:
        fields = {"conversation": self.key, "turn": self.number}
        LOGGER.info("session.heal_started", extra=fields)
        await self._provider.close()
        step = await self._commits.make(
            decide.heal,
            result.session_id,
            owner=self._driver.owner,
            result=result,
            lease=self._driver.settings.lease_length,
        )
        cleared(step, result)
        self._request = None
        self._turn.heal()

    async def _narrow(self, characters: int) -> None:
        """A new session has refused the request for its size: ask again with less of the history (G22)."""
        fields = {"conversation": self.key, "turn": self.number, "told": self._turn.told, "characters": characters}
        LOGGER.info("session.narrow_started", extra=fields)
        await self._provider.close()
        self._request = None
        self._turn.narrow(characters)

    async def _finish(self, result: Result) -> None:
        self._is_finishing = True
        step = await self._commits.make(
            decide.finish,
            result.session_id,
            owner=self._driver.owner,
            result=result,
            answer=self._turn.answer(),
            fitted=self._turn.fitting(self._content),
        )
        cleared(step, result)
        self._over(decide.status_of(result))
        self._provider.close_later()

    async def withdraw(self) -> None:
        """Take back a turn whose begin was cut off, so that nobody knows whether it was stored."""
        self._is_finishing = True
        self._commits.forget()
        with suppress(StoreError, ConversationNotFound), self._let_go_afterwards():
            await self._interrupt()

    async def _interrupt(self, cause: BaseException | None = None) -> None:
        await self._provider.close()
        answer = attrs.evolve(self._turn.answer(), result=None)
        try:
            await self._commits.make(decide.interrupt, owner=self._driver.owner, answer=answer)
        except TurnSuperseded:
            if self._is_finishing:  # what was cut off may have been the return of its own commit
                self._over(TurnStatus.SUPERSEDED)
            else:
                await self._keep_late()
        except (StoreError, ConversationNotFound) as error:
            self._turn.result = None
            error.reply = self._over(TurnStatus.INTERRUPTED, error)
            if isinstance(error, StoreError):
                await self._commits.release()
            raise
        else:
            self._turn.result = None
            self._over(TurnStatus.INTERRUPTED, cause)

    async def _keep_late(self) -> None:
        """Somebody else has ended the turn: keep what was said with it (G10)."""
        answer = self._turn.answer()
        reply = self._over(TurnStatus.SUPERSEDED)
        try:
            await self._commits.keep_late(answer, None if self._request is None else self._request.session_id)
        except (StoreError, ConversationNotFound) as error:
            error.reply = reply
            raise

    async def _fail(self, error: BaseException) -> None:
        """End the turn because of an error, which the caller is going to get."""
        if isinstance(error, TurnSuperseded):
            await self._provider.close()
            await self._keep_late()
        elif isinstance(error, StoreError | Conflict | ConversationNotFound):
            await self._give_up(error)
        elif not self._is_over:
            await self._cut_off(error)
        if isinstance(error, FSMError):
            error.reply = self._turn.reply

    async def _give_up(self, error: FSMError) -> None:
        """The store has refused to write what the turn wanted written (G16)."""
        await self._provider.close()
        result = self._turn.result
        self._over(TurnStatus.INTERRUPTED if result is None else decide.status_of(result), error)
        if isinstance(error, StoreError):  # what it has refused may have been at fault
            await self._commits.release()

    async def _cut_off(self, error: BaseException) -> None:
        """Something else has come up: end the turn as ``interrupted``."""
        try:
            await self._interrupt(error)
        except (StoreError, ConversationNotFound) as refused:
            if isinstance(error, Exception):
                raise refused from error
            error.add_note(str(refused))

    @contextmanager
    def _let_go_afterwards(self) -> Iterator[None]:
        """Whatever comes up while the turn is being ended, it holds up its own manager no longer."""
        try:
            yield
        finally:
            self._let_go()

    def _let_go(self) -> None:
        """The driver does not run this turn any more."""
        self._is_over = True
        self._driver.ports.let_go(self._lease)
        self._driver.forget(self.key, self.number)

    def _over(self, status: TurnStatus, error: BaseException | None = None) -> Reply:
        """The turn has ended; make its reply."""
        self._let_go()
        reply = self._turn.end(self._commits.conversation.state, status)
        result = reply.result
        fields: dict[str, object] = {
            "conversation": self.key,
            "turn": self.number,
            "status": status.value,
            "state": reply.state.value,
            "healed": reply.healed,
            "subtype": result and result.subtype,
            "http_status": result and result.http_status,
        }
        if error is not None:
            fields["error"] = type(error.__cause__ or error).__name__
        if status is TurnStatus.SUCCEEDED:
            LOGGER.info("turn.run_completed", extra=fields)
        else:
            LOGGER.warning("turn.run_failed", extra=fields)
        return reply
