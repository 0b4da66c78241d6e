"""The world as an event loop sees it: a store is called in threads, and a provider is awaited.

What waits on a loop belongs to that loop. So everything of the kind stands in :class:`_OfLoop`, of which each event
loop has its own: any number of loops may use one manager, at once or one after the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, ParamSpec, TypeGuard, TypeVar, cast

import anyio
import anyio.to_thread
from anyio.lowlevel import current_token
from attrs import define, field

from fsm._core.effects import Step
from fsm._runtime.adapters import Events, Failed, Ports
from fsm._runtime.bundles import Bundles
from fsm._runtime.leftovers import LEFTOVERS
from fsm._runtime.per_loop import PerLoop
from fsm.provider import AsyncProvider, Provider, Request
from fsm.store import BatchingStore, Store

__all__ = ["LoopPorts"]

P = ParamSpec("P")
R = TypeVar("R")

LEFTOVER = 10.0
"""For how many seconds a provider may go on after its answer is stored; then it is cancelled."""

MOMENT = 0.5
"""For how many seconds a turn waits for that, so that an event loop which ends right afterwards leaves nothing open."""


class _End:
    """A synchronous provider has no more events."""


@define(eq=False)
class _OfLoop:
    """What belongs to one event loop. Only that loop touches it.

    Attributes:
        store_threads: how many threads may call the store at once.
        provider_threads: how many threads may read a synchronous provider at once.
        places: how many turns may run at once.
        commits: commits that go to a thread together; None if the store does not take many.
        looks: what is looked up for a turn, likewise.
        tasks: what closes leftovers; asyncio itself keeps no task alive.
    """

    store_threads: anyio.CapacityLimiter
    provider_threads: anyio.CapacityLimiter
    places: anyio.Semaphore
    commits: Bundles[Step, Any] | None
    looks: Bundles[Callable[[], Any], Any]
    tasks: set[asyncio.Task[None]] = field(factory=set)


class LoopPorts(Ports):
    """The world as an event loop sees it.

    Args:
        store: what is called in threads.
        provider: the AI.
        threads: how many threads of each kind there are, in each loop.
        max_turns: how many turns may run at once, in each loop.
    """

    def __init__(self, store: Store, provider: AsyncProvider | Provider, *, threads: int, max_turns: int) -> None:
        self._store = store
        self._provider = provider
        self._is_asynchronous = isinstance(provider, AsyncProvider)
        self._threads = threads
        self._max_turns = max_turns
        self._commit: Callable[..., Any] | None = None
        self._quick: tuple[Callable[..., Any], ...] = ()
        if is_sharing(store):
            self._commit = store.commit
            self._quick = (store.load, store.dead, store.turn_by_idempotency_key)
        self._loops: PerLoop[_OfLoop] = PerLoop(self._of_loop)

    def _of_loop(self) -> _OfLoop:
        store = self._store
        return _OfLoop(
            store_threads=anyio.CapacityLimiter(self._threads),
            provider_threads=anyio.CapacityLimiter(self._threads),
            places=anyio.Semaphore(self._max_turns),
            commits=Bundles(store.commit_many) if is_sharing(store) else None,
            looks=Bundles(_outcomes),
        )

    @property
    def places(self) -> anyio.Semaphore:
        """The places for turns that run at once in this event loop."""
        return self._loops.get().places

    async def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        here = self._loops.get()
        call = partial(function, *args, **kwargs)
        if here.commits is not None and function == self._commit:
            found: R = await here.commits.call(*call.args)
        elif function in self._quick:
            found = await here.looks.call(call)
        else:
            found = await anyio.to_thread.run_sync(call, limiter=here.store_threads)
        return found

    def events(self, request: Request) -> Events:
        if self._is_asynchronous:
            return _AsyncEvents(cast("AsyncProvider", self._provider).astream(request), self)
        return _ThreadedEvents(cast("Provider", self._provider), request, self)

    async def read(self, call: Callable[[], R]) -> R:
        """Call a synchronous provider, in a thread where no call of a store waits for it."""
        return await anyio.to_thread.run_sync(call, limiter=self._loops.get().provider_threads)

    def spawn(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run something on this loop that nobody waits for; it ends with the loop, and sees to its own errors."""
        loop = current_token().native_token
        if isinstance(loop, asyncio.AbstractEventLoop):
            tasks = self._loops.get().tasks
            task = loop.create_task(run())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        else:
            import trio

            trio.lowlevel.spawn_system_task(run)

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    def shield(self) -> AbstractContextManager[object]:
        return anyio.CancelScope(shield=True)


class _AsyncEvents:
    """The events of an asynchronous provider."""

    def __init__(self, events: AsyncIterator[object], ports: LoopPorts) -> None:
        self._events = events
        self._ports = ports
        self._closed: anyio.Event | None = None

    async def __anext__(self) -> object:
        return await anext(self._events)

    async def aclose(self) -> None:
        aclose = getattr(self._events, "aclose", None)
        if aclose is not None:
            await aclose()

    def close_later(self, failed: Failed) -> None:
        self._closed = anyio.Event()
        self._ports.spawn(partial(self._close, failed, self._closed))

    async def settle(self) -> None:
        if self._closed is not None:
            with anyio.move_on_after(MOMENT):
                await self._closed.wait()

    async def _close(self, failed: Failed, closed: anyio.Event) -> None:
        """Read on once, so that the provider can come to its end, and close it."""
        try:
            with anyio.move_on_after(LEFTOVER):
                await anext(self._events, None)
            with anyio.fail_after(LEFTOVER):
                await self.aclose()
        except Exception as error:  # noqa: BLE001  # a provider's own code, and nobody waits for it
            failed(error)
        finally:
            closed.set()


class _ThreadedEvents:
    """The events of a synchronous provider, each fetched in a thread."""

    def __init__(self, provider: Provider, request: Request, ports: LoopPorts) -> None:
        self._provider = provider
        self._request = request
        self._ports = ports
        self._events: Iterator[object] | None = None

    async def __anext__(self) -> object:
        event = await self._ports.read(self._next)
        if event is _End:
            raise StopAsyncIteration
        return event

    def _next(self) -> object:
        if self._events is None:
            self._events = iter(self._provider.stream(self._request))
        return next(self._events, _End)

    async def aclose(self) -> None:
        await self._ports.read(self._close)

    def close_later(self, failed: Failed) -> None:
        LEFTOVERS.close_later(self._next, self._close, failed)

    async def settle(self) -> None:
        """A thread goes on by itself."""

    def _close(self) -> None:
        close = getattr(self._events, "close", None)
        if close is not None:
            close()


def _outcomes(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Call one after the other; for each, what it returned or raised."""

    def outcome(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:  # noqa: BLE001  # for its own caller
            return error

    return [outcome(call) for call in calls]


def is_sharing(store: Store) -> TypeGuard[BatchingStore]:
    return hasattr(type(store), "commit_many") and cast("BatchingStore", store).supports_batches
