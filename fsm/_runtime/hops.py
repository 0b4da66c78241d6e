"""Hops: calls of the store that an event loop makes in other threads.

The way to a thread and back takes an event loop longer than most calls of a database. So while one hop is under way,
the scripts of other tasks are collected, and the next hop takes all of them. A hop never waits for others to join.

:exc:`asyncio.CancelledError` passes every shield once. A call in a thread can't be stopped, so a task that is cancelled
waits until its call has ended, and only then goes on with the cancellation.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread
from attrs import Factory, frozen

from fsm._runtime.scripts import Run, Script, run_alone, run_together
from fsm.store import BatchingStore, Store

__all__ = ["Hops"]

R = TypeVar("R")

MOST = 64
"""The most scripts that share a hop."""

LOOK = 0.002
"""The seconds between two looks at a call that goes on in its thread although its caller was cancelled."""


@frozen(eq=False)
class _Waiting:
    """A script that waits for a hop.

    Attributes:
        run: the script.
        woken: set when the script is over, or when its task is to lead the next hop.
    """

    run: Run[Any]
    woken: anyio.Event = Factory(anyio.Event)


class Hops:
    """The hops of one event loop.

    Args:
        store: where the conversations are.
        threads: the number of threads that may call the store at once. A store that supports batches is called by one:
            it is faster than many which wait for each other.
    """

    def __init__(self, store: Store, *, threads: int) -> None:
        self._store = store
        self._threads = anyio.CapacityLimiter(threads)
        self._leader = anyio.CapacityLimiter(1)
        self._waiting: deque[_Waiting] = deque()
        self._has_leader = False

    async def call(self, function: Callable[[], R]) -> R:
        """Call a function in a thread."""
        return await _Hop(function).go(self._threads)

    async def run(self, script: Script[R]) -> R:
        """Run a script in a thread, together with those of other tasks if the store supports that."""
        store: Any = self._store
        # Looked up on the class: a wrapper that forwards unknown attributes does not qualify, since its own `commit()`
        # must not be bypassed.
        if hasattr(type(store), "supports_batches") and store.supports_batches:
            return await self._run_together(store, script)
        return await self.call(lambda: run_alone(store, script))

    async def _run_together(self, store: BatchingStore, script: Script[R]) -> R:
        await anyio.lowlevel.checkpoint_if_cancelled()
        run = Run(script)
        mine = _Waiting(run)
        self._waiting.append(mine)
        try:
            if self._has_leader:
                with anyio.CancelScope(shield=True):
                    await mine.woken.wait()
            if not run.is_over:
                await self._lead(store)
        except BaseException:
            await self._give_up(mine)
            raise
        return run.outcome()

    async def _lead(self, store: BatchingStore) -> None:
        """Take the scripts that wait to a thread and back, and wake their tasks."""
        batch: list[_Waiting] = []

        def in_thread() -> None:
            while self._waiting and len(batch) < MOST:
                batch.append(self._waiting.popleft())
            run_together(store, [waiting.run for waiting in batch])

        self._has_leader = True
        try:
            await _Hop(in_thread).go(self._leader)
        finally:
            for waiting in batch:
                waiting.woken.set()
            self._appoint()

    def _appoint(self) -> None:
        """Let the first task that waits lead the next hop."""
        self._has_leader = bool(self._waiting)
        if self._waiting:
            self._waiting[0].woken.set()

    async def _give_up(self, mine: _Waiting) -> None:
        """Withdraw a script whose task was cancelled, or wait until it is over."""
        try:
            self._waiting.remove(mine)
        except ValueError:
            await _until(lambda: mine.run.is_over)
        else:
            if mine.woken.is_set():
                self._appoint()


class _Hop(Generic[R]):
    """A call in a thread, which either never starts or is waited for."""

    def __init__(self, function: Callable[[], R]) -> None:
        self._function = function
        self._lock = threading.Lock()
        self._may_start = True
        self._is_over = False

    async def go(self, limiter: anyio.CapacityLimiter) -> R:
        """Make the call, and return or raise its outcome."""
        try:
            return await anyio.to_thread.run_sync(self._run, limiter=limiter)
        except asyncio.CancelledError:
            with self._lock:
                started, self._may_start = not self._may_start, False
            if started:
                await _until(lambda: self._is_over)
            raise

    def _run(self) -> R:
        with self._lock:
            if not self._may_start:
                raise asyncio.CancelledError  # nobody waits for it
            self._may_start = False
        try:
            return self._function()
        finally:
            self._is_over = True


async def _until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so, even if this task is cancelled meanwhile, however often."""
    while not is_so():
        with suppress(asyncio.CancelledError), anyio.CancelScope(shield=True):
            await anyio.sleep(LOOK)
