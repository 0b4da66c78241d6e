"""What a driver asks of the world: to call a store, to ask a provider, to wait."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from typing import ParamSpec, Protocol, TypeVar

from fsm.provider import Request

__all__ = ["Ports"]

P = ParamSpec("P")
R = TypeVar("R")


class Ports(Protocol):
    """What a driver asks of the world."""

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
