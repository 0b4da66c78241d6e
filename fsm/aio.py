"""The asynchronous manager: the same conversations, on an event loop.

:class:`AsyncSessionManager` works under asyncio and trio (by anyio) and is as thin a shell as its synchronous twin: it
awaits the same coroutines of the same driver. The store is called in a bounded pool of threads, so the loop never
waits for a disk, and no more turns run at once than it was told. What comes at the same time goes to a thread together
(:mod:`fsm.bundles`).

A cancellation, wherever it strikes, ends the turn as ``interrupted`` before it goes on its way (G9).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Any, ParamSpec, Self, TypeVar, cast

import anyio
import anyio.to_thread

from fsm.bundles import Bundles
from fsm.content import Content
from fsm.context import ContextWindow
from fsm.driven import DrivenTurn
from fsm.driver import Driver
from fsm.effects import Step
from fsm.errors import InvalidInput
from fsm.ports import Ports
from fsm.provider import AsyncProvider, Provider, Request
from fsm.records import Conversation, Message, Session, Transition, Turn
from fsm.results import Event
from fsm.settings import Observer, OnBusy, Settings, utc_now
from fsm.store import Store, is_sharing
from fsm.turn import Reply

__all__ = ["AsyncSessionManager", "AsyncStreamedTurn"]

P = ParamSpec("P")
R = TypeVar("R")


class _End:
    """A synchronous provider has no more events."""


class _ThreadedEvents(AsyncIterator[object]):
    """The events of a synchronous provider, each fetched in a thread."""

    def __init__(self, provider: Provider, request: Request, ports: _Ports) -> None:
        self._provider = provider
        self._request = request
        self._ports = ports
        self._events: Iterator[object] | None = None

    async def __anext__(self) -> object:
        event = await self._ports.call(self._next)
        if event is _End:
            raise StopAsyncIteration
        return event

    def _next(self) -> object:
        if self._events is None:
            self._events = iter(self._provider.stream(self._request))
        return next(self._events, _End)

    async def aclose(self) -> None:
        close = getattr(self._events, "close", None)
        if close is not None:
            await self._ports.call(close)


def _outcomes(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Call one after the other; for each, what it returned or raised."""

    def outcome(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:  # noqa: BLE001  # for its own caller
            return error

    return [outcome(call) for call in calls]


class _Ports(Ports):
    """The world as an event loop sees it."""

    def __init__(self, store: Store, provider: AsyncProvider | Provider, threads: int) -> None:
        self._provider = provider
        self._is_asynchronous = isinstance(provider, AsyncProvider)
        self._threads = anyio.CapacityLimiter(threads)
        self._commits: Bundles[Step, Any] | None = None
        self._looks: Bundles[Callable[[], Any], Any] = Bundles(_outcomes)
        self._quick: tuple[Callable[..., Any], ...] = ()
        if is_sharing(store):
            self._commits = Bundles(store.commit_many)
            self._commit = store.commit
            self._quick = (store.load, store.dead, store.turn_by_idempotency_key)

    async def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        call = partial(function, *args, **kwargs)
        if self._commits is not None and function == self._commit:
            found: R = await self._commits.call(*call.args)
        elif function in self._quick:
            found = await self._looks.call(call)
        else:
            found = await anyio.to_thread.run_sync(call, limiter=self._threads)
        return found

    def events(self, request: Request) -> AsyncIterator[object]:
        if self._is_asynchronous:
            return cast("AsyncProvider", self._provider).astream(request)
        return _ThreadedEvents(cast("Provider", self._provider), request, self)

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    def shield(self) -> AbstractContextManager[object]:
        return anyio.CancelScope(shield=True)


class AsyncStreamedTurn(DrivenTurn):
    """A running turn whose events are read with ``async for``; see :meth:`AsyncSessionManager.stream`."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        event = await self.pull()
        if event is None:
            raise StopAsyncIteration
        return event


class AsyncSessionManager:
    """Conversations with one AI, kept in one store, for applications on asyncio or trio.

    Args:
        store: where the conversations are kept, such as ``persistence.SQLStore``; it is called in threads.
        provider: the AI. One that has only the synchronous ``stream`` is read in threads.
        heal: see :class:`fsm.SessionManager`, also for the next six.
        context: how much of the stored history a new session is told.
        lease: for how many seconds a turn may give no sign of life before others may end it.
        on_busy: ``raise``, or ``wait``.
        busy_timeout: for how many seconds to wait.
        observers: called on the event loop with each transition after it was committed.
        clock: tells the time as an aware ``datetime`` in UTC.
        max_turns: how many turns may run at once; others wait for a place.
        threads: how many threads may call the store, or a synchronous provider, at once. Where steps share a
            transaction (``store.takes_many``), commits have a thread of their own, and so has what is looked up for a
            turn: they go there in bundles, and wait for nobody else.

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
        lease: float = 600.0,
        on_busy: OnBusy = "raise",
        busy_timeout: float = 60.0,
        observers: Collection[Observer] = (),
        clock: Callable[[], datetime] = utc_now,
        max_turns: int = 100,
        threads: int = 16,
    ) -> None:
        if not isinstance(provider, AsyncProvider | Provider):
            raise InvalidInput(
                f"{type(provider).__name__} has neither a method 'astream' nor 'stream', so it is no provider"
            )
        for name, number in (("max_turns", max_turns), ("threads", threads)):
            if number < 1:
                raise InvalidInput(f"{name} is {number!r}; it must be a number from 1")
        settings = Settings(
            provider=provider.name,
            wants_transcript=getattr(provider, "wants_transcript", False),
            check_content=getattr(provider, "check_content", None),
            heal=heal,
            context=context or ContextWindow(),
            lease=lease,
            on_busy=on_busy,
            busy_timeout=busy_timeout,
            observers=observers,
            clock=clock,
        )
        self._ports = _Ports(store, provider, threads)
        self._driver = Driver(store, self._ports, settings)
        self._store = store
        self._places = anyio.Semaphore(max_turns)

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
            while await turn.pull() is not None:
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
        async with self._places:
            turn = await self._driver.begin(
                AsyncStreamedTurn, key, content, idempotency_key=idempotency_key, metadata=metadata
            )
            try:
                yield turn
            finally:
                await turn.close()

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

    async def history(self, key: str, *, limit: int | None = None, before: int | None = None) -> Sequence[Message]:
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
