"""Adapters: how the engine calls its store and its provider, and how it waits.

:class:`InlineAdapter` does everything in the caller's thread. The adapter for event loops is in
:mod:`fsm._runtime.loop_adapters`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import ParamSpec, Protocol, TypeVar

from fsm._runtime.leftovers import LEFTOVERS
from fsm._runtime.presence import KEEPER, Lease
from fsm._runtime.scripts import Script, run_alone
from fsm.provider import Provider, Request
from fsm.store import Store

__all__ = ["END", "Adapter", "InlineAdapter", "OnFailure", "ProviderEvents", "SyncStream"]

P = ParamSpec("P")
R = TypeVar("R")

OnFailure = Callable[[Exception], object]
"""Called with an exception that was raised in the background."""


END = object()
"""Stands for the end of a provider's events."""


class ProviderEvents(Protocol):
    """The answer of a provider to one request."""

    async def read(self) -> object:
        """Return the next event, or :data:`END`."""
        ...

    async def close(self) -> None:
        """End the answer and free its resources."""
        ...

    def close_later(self, on_failure: OnFailure) -> None:
        """Let the provider come to its end in the background, then close it."""
        ...

    async def settle(self) -> None:
        """Wait a moment for a close in the background."""
        ...


class Adapter(Protocol):
    """How the engine calls its store and its provider, and how it waits.

    Attributes:
        chance: the source of random numbers.
    """

    chance: random.Random = random.SystemRandom()

    def elapsed(self) -> float:
        """Return the seconds since some moment in the past; the number never decreases."""
        return time.monotonic()

    async def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function that reads the store, without blocking an event loop.

        If the caller is cancelled, the function still runs to its end before the cancellation goes on.
        """
        ...

    async def run(self, script: Script[R]) -> R:
        """Run a script on the store, without blocking an event loop; a cancelled caller waits for it likewise."""
        ...

    def events(self, request: Request) -> ProviderEvents:
        """Return the events of a request. The provider is asked when the first is read."""
        ...

    def watch(self, lease: Lease) -> None:
        """Renew this lease while its provider gives signs of life."""
        KEEPER.watch(lease)

    def let_go(self, lease: Lease) -> None:
        """Stop renewing this lease."""
        KEEPER.let_go(lease)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...

    def shield(self) -> AbstractContextManager[object]:
        """Return a block inside of which nothing is cancelled."""
        ...


class SyncStream:
    """The answer of a synchronous provider to one request. Every method blocks.

    Args:
        provider: the AI.
        request: the request.
    """

    def __init__(self, provider: Provider, request: Request) -> None:
        self._provider = provider
        self._request = request
        self._events: Iterator[object] | None = None

    def read(self) -> object:
        """Return the next event, or :data:`END`; the provider is asked with the first."""
        if self._events is None:
            self._events = iter(self._provider.stream(self._request))
        return next(self._events, END)

    def close(self) -> None:
        """Close the provider's iterator, if it can be closed."""
        close = getattr(self._events, "close", None)
        if close is not None:
            close()

    def close_later(self, on_failure: OnFailure) -> None:
        """Read once more in a daemon thread, so that the provider can come to its end, then close it."""
        LEFTOVERS.close_later(self.read, self.close, on_failure)


class _InlineEvents:
    """The events of a synchronous provider, read in the caller's thread."""

    def __init__(self, stream: SyncStream) -> None:
        self._stream = stream

    async def read(self) -> object:
        return self._stream.read()

    async def close(self) -> None:
        self._stream.close()

    def close_later(self, on_failure: OnFailure) -> None:
        self._stream.close_later(on_failure)

    async def settle(self) -> None:
        """Return at once: a thread goes on by itself."""


class InlineAdapter(Adapter):
    """Calls the store and the provider in the caller's thread.

    Args:
        store: where the conversations are.
        provider: the AI.
    """

    def __init__(self, store: Store, provider: Provider) -> None:
        self._store = store
        self._provider = provider

    async def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        return function(*args, **kwargs)

    async def run(self, script: Script[R]) -> R:
        return run_alone(self._store, script)

    def events(self, request: Request) -> ProviderEvents:
        return _InlineEvents(SyncStream(self._provider, request))

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def shield(self) -> AbstractContextManager[object]:
        return nullcontext()
