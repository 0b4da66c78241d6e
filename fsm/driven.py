"""A running turn that drives itself: it asks its provider, feeds itself, heals, and stores how it ended.

However a turn ends, by its result, by an exception, a cancellation or because its caller walked away, it is ended in
the store once, and its provider is closed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Self

import attrs

from fsm import conversation as decide
from fsm.commits import Commits
from fsm.content import Block
from fsm.effects import Step
from fsm.errors import Conflict, ConversationNotFound, FSMError, ProviderError, StoreError, TurnSuperseded
from fsm.log import LOGGER, cleared
from fsm.provider import Request
from fsm.records import TurnStatus
from fsm.results import Event, Result, TextDelta
from fsm.states import State
from fsm.turn import Reply, RunningTurn

if TYPE_CHECKING:
    from fsm.driver import Driver

__all__ = ["DrivenTurn"]


UNASKED = timedelta(seconds=1)
"""How long after it was begun a turn may ask its provider without a look at who holds it: a caller that comes back
later may have been superseded meanwhile, and the session that it was to resume may be dead (G2)."""


class _End:
    """The provider has no more events."""


class DrivenTurn(RunningTurn):
    """A turn that was begun and is to be read to its end with :meth:`pull`, and closed with :meth:`close`.

    Args:
        driver: what drives it.
        begun: the step that began the turn.
        content: the user's message.
    """

    def __init__(self, driver: Driver, begun: Step, content: tuple[Block, ...]) -> None:
        conversation = begun.after
        super().__init__(
            conversation.key,
            conversation.turns,
            resumed=conversation.state is State.ACTIVE,
            heal=driver.settings.heal,
        )
        self._driver = driver
        self._commits = Commits(driver, begun)
        self._content = content
        self._request: Request | None = None
        self._events: AsyncIterator[object] | None = None
        self._is_finishing = False
        self._is_over = False
        self._stored: list[Event] = []

    @classmethod
    def replayed(cls, reply: Reply) -> Self:
        """A turn that was ended before and gives its stored reply (G13)."""
        turn = cls.__new__(cls)
        RunningTurn.__init__(turn, reply.key, reply.turn)
        turn._is_over = True
        turn._stored = [TextDelta(reply.text)] if reply.text else []
        if reply.result is not None:
            turn._stored.append(reply.result)
        turn._reply = reply
        return turn

    async def pull(self) -> Event | None:
        """The next event for the caller, or None at the end.

        The result is handed out after it was stored. If anything goes wrong, the turn is ended before the error is
        raised.

        Raises:
            ProviderError: the provider broke its contract.
            StoreError: the store refused; ``error.reply`` holds what was answered (G16).
            TurnSuperseded: somebody else has ended the turn (G10).
        """
        if self._stored:
            return self._stored.pop(0)
        if self._is_over:
            return None
        try:
            return await self._pull()
        except BaseException as error:
            with self._driver.ports.shield():
                await self._fail(error)
            raise

    async def close(self) -> None:
        """End the turn as ``interrupted`` if it has not ended: its caller walks away."""
        if not self._is_over:
            with self._driver.ports.shield():
                await self._interrupt()

    async def _pull(self) -> Event:
        while True:
            event = await self._next()
            if event is _End:
                self.exhausted()
            self.feed(event)
            if self.result is None:
                await self._commits.keep_lease()
            elif self.should_heal:
                await self._heal(self.result)
                continue
            else:
                await self._finish(self.result)
            return event  # type: ignore[return-value]  # feed() has let it pass, so it is one

    # The provider

    async def _next(self) -> object:
        """The provider's next event, or ``_End``; whatever it raises becomes an error that names the conversation."""
        if self._request is None:
            await self._commits.keep_lease(self._driver.settings.lease_length - UNASKED)
            self._request = await self._driver.request(self._commits.conversation, self._content)
        try:
            if self._events is None:
                self._events = self._driver.ports.events(self._request)
            return await anext(self._events, _End)
        except FSMError as error:
            error.key = error.key or self.key
            raise
        except Exception as error:
            raise ProviderError(
                f"the provider raised {type(error).__name__} in turn {self.number}; the turn is interrupted and the "
                "conversation takes the next message",
                self.key,
            ) from error

    async def _close_provider(self) -> None:
        events, self._events = self._events, None
        if events is None:
            return
        try:
            close: Callable[[], Awaitable[None]] = events.aclose  # type: ignore[attr-defined]  # of a generator
            await close()
        except Exception:  # noqa: BLE001  # the turn's own outcome matters more than a failed clean-up
            fields = {"conversation": self.key, "turn": self.number}
            LOGGER.exception("provider.close_failed", extra=fields)

    # The store

    async def _heal(self, result: Result) -> None:
        fields = {"conversation": self.key, "turn": self.number}
        LOGGER.info("session.heal_started", extra=fields)
        await self._close_provider()
        step = await self._commits.make(
            decide.heal,
            result.session_id,
            owner=self._driver.owner,
            result=result,
            lease=self._driver.settings.lease_length,
        )
        cleared(step, result)
        self._request = None
        self.retry()

    async def _finish(self, result: Result) -> None:
        self._is_finishing = True
        step = await self._commits.make(
            decide.finish, result.session_id, owner=self._driver.owner, result=result, answer=self.answer()
        )
        cleared(step, result)
        self._over(decide.status_of(result))
        extra = await self._next()
        await self._close_provider()
        if extra is not _End:
            self.feed(extra)

    async def withdraw(self) -> None:
        """Take back a turn whose begin was cut off, so that nobody knows whether it was stored."""
        self._is_finishing = True
        self._commits.forget()
        try:
            await self._interrupt()
        except (StoreError, ConversationNotFound):
            self._driver.forget(self.key, self.number)

    async def _interrupt(self) -> None:
        await self._close_provider()
        answer = attrs.evolve(self.answer(), result=None)
        try:
            await self._commits.make(decide.interrupt, owner=self._driver.owner, answer=answer)
        except TurnSuperseded:
            if self._is_finishing:  # what was cut off may have been the return of its own commit
                self._over(TurnStatus.SUPERSEDED)
            else:
                await self._keep_late()
        except StoreError as error:
            self.result = None
            error.reply = self._over(TurnStatus.INTERRUPTED)
            raise
        else:
            self.result = None
            self._over(TurnStatus.INTERRUPTED)

    async def _keep_late(self) -> None:
        """Somebody else has ended the turn: keep what was said with it (G10)."""
        answer = self.answer()
        reply = self._over(TurnStatus.SUPERSEDED)
        try:
            await self._commits.keep_late(answer, None if self._request is None else self._request.session_id)
        except StoreError as error:
            error.reply = reply
            raise

    async def _fail(self, error: BaseException) -> None:
        """End the turn because of an error, which the caller is going to get."""
        if isinstance(error, TurnSuperseded):
            await self._close_provider()
            await self._keep_late()
        elif isinstance(error, StoreError | Conflict):
            # The store has refused to write; what it holds is for the next turn to end (G16).
            await self._close_provider()
            self._over(TurnStatus.INTERRUPTED if self.result is None else decide.status_of(self.result))
        elif not self._is_over:
            try:
                await self._interrupt()
            except StoreError as refused:
                if isinstance(error, Exception):
                    raise refused from error
                error.add_note(str(refused))
        if isinstance(error, FSMError):
            error.reply = self._reply

    def _over(self, status: TurnStatus) -> Reply:
        """The turn has ended; make its reply."""
        self._is_over = True
        self._driver.forget(self.key, self.number)
        reply = self.end(self._commits.conversation.state, status)
        done = status is TurnStatus.SUCCEEDED
        fields = {
            "conversation": self.key,
            "turn": self.number,
            "status": status.value,
            "state": reply.state.value,
            "healed": reply.healed,
            "subtype": self.result and self.result.subtype,
            "http_status": self.result and self.result.http_status,
        }
        if done:
            LOGGER.info("turn.run_completed", extra=fields)
        else:
            LOGGER.warning("turn.run_failed", extra=fields)
        return reply
