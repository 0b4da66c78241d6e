"""An asynchronous stream for a caller that is not: read one event at a time, in a daemon thread with an event loop."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncGenerator, Coroutine, Generator
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from fsm.errors import ProviderError

__all__ = ["CLOSING", "read_in_thread"]

T = TypeVar("T")

CLOSING = 30.0
"""How long a stream may take to close, in seconds; then its thread is left behind. It never holds up an exit."""


def read_in_thread(events: AsyncGenerator[T, None]) -> Generator[T, None, None]:
    """Read an asynchronous generator from synchronous code.

    The generator runs in a daemon thread, one event at a time. Any thread may read the next event, or close it. In a
    forked child it is inert: closing it there does nothing, for the thread and what it runs are the parent's.

    Args:
        events: what is read.

    Raises:
        ProviderError: it is read in a child that was forked after it began.

    >>> async def count():
    ...     yield 1
    ...     yield 2
    >>> list(read_in_thread(count()))
    [1, 2]
    """
    owner = os.getpid()
    reader = _Reader(events)
    try:
        while (event := reader.next()) is not None:
            yield event
            if os.getpid() != owner:
                raise ProviderError("this answer belongs to the parent of this process; send the message again here")
    finally:
        if os.getpid() == owner and not sys.is_finalizing():
            reader.close()


class _Reader:
    """The thread, its loop, and the generator that runs there."""

    def __init__(self, events: AsyncGenerator[T, None]) -> None:
        self._events = events
        self._reading: asyncio.Task[Any] | None = None
        self._begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._thread = threading.Thread(target=self._run, name="fsm provider", daemon=True)
        self._thread.start()
        self._loop, self._is_over = self._begun.result()

    def next(self) -> Any:
        """Return the next event, or None at the end."""
        return self._call(self._next()).result()

    def close(self) -> None:
        """Close the generator, wherever it stands, and end the thread."""
        with suppress(TimeoutError):
            self._call(self._close()).result(CLOSING)
            self._thread.join(CLOSING)

    def _call(self, coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    async def _next(self) -> Any:
        self._reading = asyncio.current_task()
        return await anext(self._events, None)

    async def _close(self) -> None:
        try:
            if self._reading is not None and not self._reading.done():  # its caller was interrupted while it waited
                self._reading.cancel()
                await asyncio.wait([self._reading])
            await self._events.aclose()
        finally:
            self._is_over.set()

    def _run(self) -> None:
        asyncio.run(self._live())

    async def _live(self) -> None:
        is_over = asyncio.Event()
        self._begun.set_result((asyncio.get_running_loop(), is_over))
        await is_over.wait()
