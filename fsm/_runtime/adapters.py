"""What a driver asks of the world: to call a store, to ask a provider, to wait, to toss a coin.

:class:`Ports` is the list; :class:`ThreadPorts` is the world as one thread sees it, where nothing waits on an event
loop. The world as an event loop sees it is in :mod:`fsm._runtime.loop_adapters`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import ParamSpec, Protocol, TypeVar

from fsm._runtime.leftovers import LEFTOVERS
from fsm._runtime.presence import KEEPER, Lease
from fsm.provider import Provider, Request

__all__ = ["Events", "Failed", "Ports", "SyncEvents", "ThreadPorts"]

P = ParamSpec("P")
R = TypeVar("R")

Failed = Callable[[Exception], object]
"""Told what was raised where nobody waits for it."""


class Events(Protocol):
    """What a provider answers to one request."""

    async def __anext__(self) -> object:
        """The next thing that it yields; ``StopAsyncIteration`` at the end."""
        ...

    async def aclose(self) -> None:
        """Make the answer end, and free what it needs."""
        ...

    def close_later(self, failed: Failed) -> None:
        """Let the provider come to its end in the background, and close it; ``failed`` is told what it raises."""
        ...

    async def settle(self) -> None:
        """Give what is closed in the background a moment to end."""
        ...


class Ports(Protocol):
    """What a driver asks of the world.

    Attributes:
        chance: where its random numbers come from.
    """

    chance: random.Random = random.SystemRandom()

    def elapsed(self) -> float:
        """Seconds since some moment in the past; it never goes back."""
        return time.monotonic()

    async def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a store; blocking must not hold up anybody else."""
        ...

    def events(self, request: Request) -> Events:
        """Ask the provider."""
        ...

    def watch(self, lease: Lease) -> None:
        """Renew this lease while its provider gives signs of life."""
        KEEPER.watch(lease)

    def let_go(self, lease: Lease) -> None:
        """Renew it no more."""
        KEEPER.let_go(lease)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...

    def shield(self) -> AbstractContextManager[object]:
        """Let nothing cancel what is done inside."""
        ...


class SyncEvents:
    """The events of a synchronous provider, read right where the caller stands."""

    def __init__(self, provider: Provider, request: Request) -> None:
        self._events = iter(provider.stream(request))

    async def __anext__(self) -> object:
        try:
            return next(self._events)
        except StopIteration:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        """Close the provider's iterator, if it can be closed."""
        self.close()

    def close(self) -> None:
        """The same, where nothing is awaited."""
        close = getattr(self._events, "close", None)
        if close is not None:
            close()

    def close_later(self, failed: Failed) -> None:
        """Read on once, so that the provider can come to its end, and close it, in a thread; see :class:`Events`."""
        LEFTOVERS.close_later(lambda: next(self._events, None), self.close, failed)

    async def settle(self) -> None:
        """A thread goes on by itself."""


class ThreadPorts(Ports):
    """The world as one thread sees it: a store is called, a provider is read, and the thread sleeps where it stands.

    Args:
        provider: the AI.
    """

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    async def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        return function(*args, **kwargs)

    def events(self, request: Request) -> Events:
        return SyncEvents(self._provider, request)

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def shield(self) -> AbstractContextManager[object]:
        return nullcontext()
