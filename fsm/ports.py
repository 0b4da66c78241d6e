"""What a driver asks of the world: to call a store, to ask a provider, to wait, to toss a coin."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from typing import ParamSpec, Protocol, TypeVar

from fsm.provider import Request

__all__ = ["Ports"]

P = ParamSpec("P")
R = TypeVar("R")


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

    def events(self, request: Request) -> AsyncIterator[object]:
        """Ask the provider."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...

    def shield(self) -> AbstractContextManager[object]:
        """Let nothing cancel what is done inside."""
        ...
