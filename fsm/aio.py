"""The asynchronous manager: the same conversations, on an event loop.

:class:`AsyncSessionManager` works under asyncio and trio (by anyio). It awaits the same coroutines of the same engine
as its synchronous twin. The store is called in a bounded number of threads, so that the loop never waits for a disk.

If the caller is cancelled, at any point, the turn is ended as ``interrupted`` before the cancellation goes on (G9).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import anyio

from fsm._runtime.engine import Engine
from fsm._runtime.log import LOGGER
from fsm._runtime.loop_adapters import LoopAdapter
from fsm._runtime.observers import Observer
from fsm._runtime.replay import ReplayedTurn
from fsm._runtime.settings import OnBusy, Settings, utc_now
from fsm._runtime.turn_runner import TurnRunner
from fsm.content import Content
from fsm.context import ContextWindow
from fsm.conversations import AsyncConversations, Conversations
from fsm.errors import ConversationBusy, InvalidInput
from fsm.events import Event
from fsm.provider import AsyncProvider, Provider
from fsm.records import Conversation
from fsm.reply import Reply
from fsm.store import Store

__all__ = ["AsyncSessionManager", "AsyncStreamedTurn"]


class AsyncStreamedTurn:
    """A running turn: read its events with ``async for``; see :meth:`AsyncSessionManager.stream`.

    One task at a time reads it.

    Attributes:
        key: the conversation.
        number: the number of the turn.
    """

    def __init__(self, turn: TurnRunner | ReplayedTurn) -> None:
        self._turn = turn
        self.key = turn.key
        self.number = turn.number

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.number} of {self.key!r}>"

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        event = await self._turn.pull()
        if event is None:
            raise StopAsyncIteration
        return event

    @property
    def text(self) -> str:
        """The text so far."""
        return self._turn.text

    @property
    def reply(self) -> Reply:
        """The reply, once the turn has ended; see :attr:`fsm.manager.StreamedTurn.reply`."""
        return self._turn.reply

    async def aclose(self) -> None:
        """End the turn as ``interrupted`` if it has not ended; the answer so far is kept. A closed turn has a reply.

        Raises:
            StoreError: the store refused; ``error.reply`` holds the answer (G16).
        """
        await self._turn.close()


class AsyncSessionManager:
    """Conversations with one AI, kept in one store, for applications on asyncio or trio.

    A manager is an asynchronous context manager; see :class:`fsm.SessionManager`.

    Args:
        store: where the conversations are kept, such as ``persistence.SQLStore``; it is called in threads.
        provider: the AI. A provider that has only the synchronous ``stream`` is read in threads.
        heal: see :class:`fsm.SessionManager`, also for the next six.
        context: the part of the stored history that a new session is told.
        lease: the seconds that a turn may give no sign of life before other workers may end it.
        on_busy: ``raise``, or ``wait``.
        busy_timeout: the seconds to wait.
        observers: functions that are called on the event loop with each transition after it was committed.
        clock: a function that returns the time as an aware ``datetime`` in UTC.
        max_turns: the number of turns that may run at once in one event loop. For more, ``on_busy`` says what to do,
            and ``busy_timeout`` for how long to wait.
        threads: the number of threads that may call the store at once in one event loop, and the number that may read
            a synchronous provider. A store with group commit lets their commits share a transaction.

    Raises:
        InvalidInput: an argument is not usable.

    >>> import anyio
    >>> from fsm import AsyncSessionManager
    >>> from fsm.providers import DemoProvider
    >>> from persistence import SQLStore
    >>> async def main():
    ...     async with AsyncSessionManager(SQLStore("sqlite:///:memory:"), DemoProvider()) as manager:
    ...         return await manager.send("ticket-42", "Where is my parcel?")
    >>> anyio.run(main).state
    <State.ACTIVE: 'active'>
    """

    def __init__(
        self,
        store: Store,
        provider: AsyncProvider | Provider,
        *,
        heal: bool = True,
        context: ContextWindow | None = None,
        lease: float | None = None,
        on_busy: OnBusy = "raise",
        busy_timeout: float = 60.0,
        observers: Collection[Observer] = (),
        clock: Callable[[], datetime] = utc_now,
        max_turns: int = 100,
        threads: int = 16,
    ) -> None:
        for name, number in (("max_turns", max_turns), ("threads", threads)):
            if type(number) is not int or number < 1:
                raise InvalidInput(f"{name} is {number!r}; it must be a whole number from 1")
        settings = Settings.of(
            store,
            provider,
            ("astream", "stream"),
            heal=heal,
            context=ContextWindow() if context is None else context,
            lease=lease,
            on_busy=on_busy,
            busy_timeout=busy_timeout,
            observers=observers,
            clock=clock,
        )
        self._adapter = LoopAdapter(store, provider, threads=threads, max_turns=max_turns)
        self._engine = Engine(store, self._adapter, settings)
        talks = Conversations.of(self._engine.commands, observers)
        self._conversations = AsyncConversations.of(talks, store, self._adapter)
        self._max_turns = max_turns
        self._shown = f"<{type(self).__name__} of {settings.provider!r} on {store!r}>"

    def __repr__(self) -> str:
        return self._shown

    async def __aenter__(self) -> Self:
        self._engine.check_open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Refuse new turns from now on. Closing twice is a no-op."""
        self._engine.is_closed = True

    @property
    def is_closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._engine.is_closed

    @property
    def conversations(self) -> AsyncConversations:
        """The conversations of the store, for everything that needs no AI."""
        return self._conversations

    async def send(
        self,
        key: str,
        content: Content,
        *,
        idempotency_key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Reply:
        """Send a message and wait for the whole answer; see :meth:`fsm.SessionManager.send`."""
        async with self._begun(key, content, idempotency_key, metadata) as turn:
            await turn.pull(to_the_end=True)
        return turn.reply

    @asynccontextmanager
    async def stream(
        self,
        key: str,
        content: Content,
        *,
        idempotency_key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[AsyncStreamedTurn]:
        """Send a message and read the answer as it comes; see :meth:`fsm.SessionManager.stream`.

        >>> import anyio
        >>> from fsm.providers import DemoProvider
        >>> from persistence import SQLStore
        >>> async def main():
        ...     manager = AsyncSessionManager(SQLStore("sqlite:///:memory:"), DemoProvider())
        ...     async with manager.stream("ticket-42", "And now?") as turn:
        ...         events = [event async for event in turn]
        ...     return turn.reply.result is events[-1]
        >>> anyio.run(main)
        True
        """
        async with self._begun(key, content, idempotency_key, metadata) as turn:
            yield AsyncStreamedTurn(turn)

    @asynccontextmanager
    async def _begun(
        self, key: str, content: Content, idempotency_key: str | None, metadata: Mapping[str, Any] | None
    ) -> AsyncIterator[TurnRunner | ReplayedTurn]:
        """Begin a turn, and close it at the end of the block."""
        async with self._place(key) as busy_timeout:
            turn = await self._engine.begin(
                key, content, idempotency_key=idempotency_key, metadata=metadata, busy_timeout=busy_timeout
            )
            try:
                yield turn
            finally:
                await turn.close()

    @asynccontextmanager
    async def _place(self, key: str) -> AsyncIterator[float]:
        """Hold one of the places for turns in this event loop; yield the seconds that are left to wait for others."""
        places = self._adapter.places
        settings = self._engine.settings
        began = self._adapter.elapsed()
        try:
            places.acquire_nowait()
        except anyio.WouldBlock:
            if settings.on_busy == "wait":
                with anyio.move_on_after(settings.busy_timeout) as waiting:
                    await places.acquire()
            if settings.on_busy == "raise" or waiting.cancelled_caught:
                LOGGER.info("turn.begin_rejected", extra={"conversation": key})
                raise ConversationBusy(
                    f"{self._max_turns} turns run in this event loop, as many as max_turns lets; try again later", key
                ) from None
        try:
            yield max(0.0, settings.busy_timeout - (self._adapter.elapsed() - began))
        finally:
            places.release()

    async def reset(self, key: str, *, reason: str = "asked for", force: bool = False) -> Conversation:
        """Start over with a new session of this manager's provider; see :meth:`fsm.SessionManager.reset`."""
        return await self._engine.reset(key, reason=reason, force=force)

    async def recover(self) -> list[Conversation]:
        """End the running turns whose owner is gone; see :meth:`fsm.Conversations.recover`."""
        return await self._engine.recover()
