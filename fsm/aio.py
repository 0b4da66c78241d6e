"""The asynchronous manager: the same conversations, on an event loop.

:class:`AsyncSessionManager` works under asyncio and trio (by anyio) and is as thin a shell as its synchronous twin: it
awaits the same coroutines of the same driver. The store is called in a bounded pool of threads, so the loop never
waits for a disk, and no more turns run at once than it was told. What comes at the same time goes to a thread together
(:mod:`fsm._runtime.bundles`).

A cancellation, wherever it strikes, ends the turn as ``interrupted`` before it goes on its way (G9).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Self

import anyio

from fsm._runtime.engine import Driver
from fsm._runtime.log import LOGGER
from fsm._runtime.loop_adapters import LoopPorts
from fsm._runtime.settings import Observer, OnBusy, Settings, utc_now
from fsm._runtime.streamed import Streamed
from fsm.content import Content
from fsm.context import ContextWindow
from fsm.errors import ConversationBusy, InvalidInput
from fsm.events import Event
from fsm.provider import AsyncProvider, Provider
from fsm.records import Conversation, Message, Session, Transition, Turn
from fsm.reply import Reply
from fsm.store import Store

__all__ = ["AsyncSessionManager", "AsyncStreamedTurn"]


class AsyncStreamedTurn(Streamed):
    """A running turn whose events are read with ``async for``; see :meth:`AsyncSessionManager.stream`.

    One task at a time reads it.
    """

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        event = await self._turn.pull()
        if event is None:
            raise StopAsyncIteration
        return event

    async def aclose(self) -> None:
        """End the turn as ``interrupted`` if it has not ended; what was said is kept. A closed turn has a reply.

        Raises:
            StoreError: the store refused; ``error.reply`` holds what was answered (G16).
        """
        await self._turn.close()


class AsyncSessionManager:
    """Conversations with one AI, kept in one store, for applications on asyncio or trio.

    Args:
        store: where the conversations are kept, such as ``persistence.SQLStore``; it is called in threads.
        provider: the AI. One that has only the synchronous ``stream`` is read in threads.
        heal: see :class:`fsm.SessionManager`, also for the next six.
        context: how much of the stored history a new session is told.
        lease: for how many seconds a turn may give no sign of life before other workers may end it.
        on_busy: ``raise``, or ``wait``.
        busy_timeout: for how many seconds to wait.
        observers: called on the event loop with each transition after it was committed.
        clock: tells the time as an aware ``datetime`` in UTC.
        max_turns: how many turns may run at once in one event loop. For more, ``on_busy`` says what to do, and
            ``busy_timeout`` for how long to wait.
        threads: how many threads may call the store at once in one event loop, and how many may read a synchronous
            provider. Where steps share a transaction (``store.supports_batches``), commits have a thread to
            themselves, and
            so have the reads that begin a turn: those that come at the same time go there together.

    Raises:
        InvalidInput: an argument is not usable.

    >>> import anyio
    >>> from fsm import AsyncSessionManager
    >>> from fsm.providers import DemoProvider
    >>> from persistence import SQLStore
    >>> async def main():
    ...     manager = AsyncSessionManager(SQLStore("sqlite:///:memory:"), DemoProvider())
    ...     return await manager.send("ticket-42", "Where is my parcel?")
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
        self._ports = LoopPorts(store, provider, threads=threads, max_turns=max_turns)
        self._driver = Driver(store, self._ports, settings)
        self._store = store
        self._max_turns = max_turns

    async def send(
        self,
        key: str,
        content: Content,
        *,
        idempotency_key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Reply:
        """Send a message and wait for the whole answer; see :meth:`fsm.SessionManager.send`."""
        async with self.stream(key, content, idempotency_key=idempotency_key, metadata=metadata) as turn:
            async for _ in turn:
                pass
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
        async with self._place(key) as busy_timeout:
            begun = await self._driver.begin(
                key, content, idempotency_key=idempotency_key, metadata=metadata, busy_timeout=busy_timeout
            )
            try:
                yield AsyncStreamedTurn(begun)
            finally:
                await begun.close()

    @asynccontextmanager
    async def _place(self, key: str) -> AsyncIterator[float]:
        """Hold one of the places for turns in this event loop; yields how many seconds are left to wait for others."""
        places = self._ports.places
        settings = self._driver.settings
        began = self._ports.elapsed()
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
            yield max(0.0, settings.busy_timeout - (self._ports.elapsed() - began))
        finally:
            places.release()

    async def reset(self, key: str, *, reason: str = "asked for", force: bool = False) -> Conversation:
        """Start over with a new provider session; see :meth:`fsm.SessionManager.reset`."""
        return await self._driver.reset(key, reason=reason, force=force)

    async def recover(self) -> list[Conversation]:
        """End the running turns whose owner is gone or whose lease is over (G9)."""
        return await self._driver.recover()

    async def conversation(self, key: str) -> Conversation:
        """The conversation as it stands; raises :class:`~fsm.errors.ConversationNotFound`."""
        return await self._driver.load(key)

    async def conversations(self, *, limit: int | None = None, after: str | None = None) -> Sequence[Conversation]:
        """The first ``limit`` conversations in the order of their keys, from the one after key ``after`` on."""
        return await self._ports.call(self._store.conversations, limit=limit, after=after)

    async def messages(self, key: str, *, limit: int | None = None, before: int | None = None) -> Sequence[Message]:
        """The newest ``limit`` messages before number ``before``, oldest first; failed turns' messages included."""
        return await self._ports.call(self._store.messages, await self.conversation(key), limit=limit, before=before)

    async def turns(self, key: str, *, limit: int | None = None, before: int | None = None) -> Sequence[Turn]:
        """The newest ``limit`` turns before number ``before``, oldest first."""
        return await self._ports.call(self._store.turns, await self.conversation(key), limit=limit, before=before)

    async def sessions(self, key: str, *, limit: int | None = None, before: int | None = None) -> Sequence[Session]:
        """The newest ``limit`` sessions before number ``before``, oldest first; each with its parent."""
        return await self._ports.call(self._store.sessions, await self.conversation(key), limit=limit, before=before)

    async def transitions(
        self, key: str, *, limit: int | None = None, before: int | None = None
    ) -> Sequence[Transition]:
        """The newest ``limit`` moves before number ``before``, oldest first: a path of the table (G6)."""
        return await self._ports.call(self._store.transitions, await self.conversation(key), limit=limit, before=before)
