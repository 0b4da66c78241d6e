"""The adapter for event loops: the store is called in threads, and an asynchronous provider is awaited.

An object that tasks wait for belongs to one event loop. So each loop has an :class:`_OfLoop`, and any number of loops
may use one manager, at once or one after the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, ParamSpec, TypeVar, cast

import anyio
import anyio.to_thread
from anyio.lowlevel import current_token
from attrs import define, field

from fsm._runtime.adapters import END, Adapter, OnFailure, ProviderEvents, SyncStream
from fsm._runtime.hops import Hops
from fsm._runtime.per_loop import PerLoop
from fsm._runtime.scripts import Script
from fsm.provider import AsyncProvider, Provider, Request
from fsm.store import Store

__all__ = ["LoopAdapter"]

P = ParamSpec("P")
R = TypeVar("R")

LEFTOVER = 10.0
"""The seconds for which a provider may go on after its answer is stored, before it is cancelled."""

MOMENT = 0.5
"""The seconds for which a turn waits for that, so that a loop which ends right afterwards leaves nothing open."""


@define(eq=False, kw_only=True)
class _OfLoop:
    """The objects of one event loop, used by that loop only.

    Attributes:
        hops: the calls of the store.
        provider_threads: the number of threads that may read a synchronous provider at once.
        places: the number of turns that may run at once.
        tasks: the tasks that close leftovers; asyncio itself keeps no task alive.
    """

    hops: Hops
    provider_threads: anyio.CapacityLimiter
    places: anyio.Semaphore
    tasks: set[asyncio.Task[None]] = field(factory=set)


class LoopAdapter(Adapter):
    """Calls the store in threads, and the provider on the event loop or in threads.

    Args:
        store: where the conversations are.
        provider: the AI, or None if none is asked.
        threads: the number of threads of each kind in each loop.
        max_turns: the number of turns that may run at once in each loop.
    """

    def __init__(
        self, store: Store, provider: AsyncProvider | Provider | None, *, threads: int, max_turns: int = 1
    ) -> None:
        self._provider = provider
        self._is_asynchronous = isinstance(provider, AsyncProvider)
        self._loops: PerLoop[_OfLoop] = PerLoop(
            lambda: _OfLoop(
                hops=Hops(store, threads=threads),
                provider_threads=anyio.CapacityLimiter(threads),
                places=anyio.Semaphore(max_turns),
            )
        )

    @property
    def places(self) -> anyio.Semaphore:
        """The places for turns that run at once in this event loop."""
        return self._loops.get().places

    async def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._loops.get().hops.call(partial(function, *args, **kwargs))

    async def run(self, script: Script[R]) -> R:
        return await self._loops.get().hops.run(script)

    def events(self, request: Request) -> ProviderEvents:
        if self._is_asynchronous:
            return _AsyncEvents(cast("AsyncProvider", self._provider).astream(request), self)
        return _ThreadedEvents(SyncStream(cast("Provider", self._provider), request), self)

    async def read(self, call: Callable[[], R]) -> R:
        """Call a synchronous provider, in a thread other than those of the store."""
        return await anyio.to_thread.run_sync(call, limiter=self._loops.get().provider_threads)

    def spawn(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start a coroutine on this loop in the background. It ends with the loop, and handles its own errors."""
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

    def __init__(self, events: AsyncIterator[object], adapter: LoopAdapter) -> None:
        self._events = events
        self._adapter = adapter
        self._closed: anyio.Event | None = None

    async def read(self) -> object:
        return await anext(self._events, END)

    async def close(self) -> None:
        aclose = getattr(self._events, "aclose", None)
        if aclose is not None:
            await aclose()

    def close_later(self, on_failure: OnFailure) -> None:
        self._closed = anyio.Event()
        self._adapter.spawn(partial(self._close, on_failure, self._closed))

    async def settle(self) -> None:
        if self._closed is not None:
            with anyio.move_on_after(MOMENT):
                await self._closed.wait()

    async def _close(self, on_failure: OnFailure, closed: anyio.Event) -> None:
        """Read on once, so that the provider can come to its end, and close it."""
        try:
            with anyio.move_on_after(LEFTOVER):
                await self.read()
            with anyio.fail_after(LEFTOVER):
                await self.close()
        except Exception as error:  # noqa: BLE001  # a provider's own code, and nobody waits for it
            on_failure(error)
        finally:
            closed.set()


class _ThreadedEvents:
    """The events of a synchronous provider, each read in a thread."""

    def __init__(self, stream: SyncStream, adapter: LoopAdapter) -> None:
        self._stream = stream
        self._adapter = adapter

    async def read(self) -> object:
        return await self._adapter.read(self._stream.read)

    async def close(self) -> None:
        await self._adapter.read(self._stream.close)

    def close_later(self, on_failure: OnFailure) -> None:
        self._stream.close_later(on_failure)

    async def settle(self) -> None:
        """Return at once: a thread goes on by itself."""
