"""Calls of a store that come at the same time go to a thread together.

The way to a thread and back costs an event loop more than most calls of a database. So while a bundle of calls is under
way, those that come are kept, and go together with the next one. Nobody waits for company: a lone call goes at once.
Each caller gets what is its own, its value or its error, and a caller that is cancelled costs no neighbour its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread
from attrs import define

from fsm.errors import StoreError

__all__ = ["Bundles"]

A = TypeVar("A")
R = TypeVar("R")

MOST = 64
"""How many calls go together at most."""

UNKNOWN = "the event loop was ended before the database had answered; load the conversation to see what was stored"


@define(eq=False)
class _Call(Generic[A, R]):
    """A call, and what came of it.

    Attributes:
        argument: what it is called with.
        event: set when something came of it, or when it is to lead; None if it leads from the beginning.
        outcome: nothing yet, or in a list of one its value or what it raises.
        leads: whether it is to lead the next bundle.
    """

    argument: A
    event: anyio.Event | None = None
    outcome: Sequence[R | Exception] = ()
    leads: bool = False

    def wake(self) -> None:
        """Let its caller go on."""
        if self.event is not None:
            self.event.set()


class Bundles(Generic[A, R]):
    """The calls of one function.

    Args:
        perform: called in a thread with the arguments of several calls; returns for each its value, or what it raises.
    """

    def __init__(self, perform: Callable[[Sequence[A]], Sequence[R | Exception]]) -> None:
        self._perform = perform
        self._waiting: deque[_Call[A, R]] = deque()
        self._is_led = False
        self._thread = anyio.CapacityLimiter(1)

    async def call(self, argument: A) -> R:
        """What the function returns or raises for this argument.

        A caller that is cancelled before its call has set out may take it back; after that the call is made.
        """
        await anyio.lowlevel.checkpoint_if_cancelled()
        call: _Call[A, R] = _Call(argument)
        self._waiting.append(call)
        if self._is_led:
            call.event = anyio.Event()
            await self._follow(call, call.event)
        if not call.outcome:
            await self._lead()
        (outcome,) = call.outcome
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def _follow(self, call: _Call[A, R], event: anyio.Event) -> None:
        """Wait for somebody else to bring what comes of a call, or for the lead."""
        try:
            with anyio.CancelScope(shield=True):
                await event.wait()
        except BaseException:  # asyncio's own cancellation, which no shield holds off
            if call in self._waiting:
                self._waiting.remove(call)
            if call.leads:
                self._pass_on()
            raise

    async def _lead(self) -> None:
        """Take a bundle to a thread and back, and let the next caller lead."""
        self._is_led = True
        bundle = [self._waiting.popleft() for _ in range(min(MOST, len(self._waiting)))]
        try:
            if len(bundle) == 1:
                await self._there_and_back(bundle)
            else:
                # Whoever leads others is held off by no cancellation: a group waits for its tasks.
                with anyio.CancelScope(shield=True):
                    async with anyio.create_task_group() as group:
                        group.start_soon(self._there_and_back, bundle)
        finally:
            self._pass_on()
            for call in bundle:
                call.outcome = call.outcome or (StoreError(UNKNOWN),)
                call.wake()

    async def _there_and_back(self, bundle: list[_Call[A, R]]) -> None:
        try:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._in_thread, bundle, limiter=self._thread)
        except Exception as error:  # noqa: BLE001  # there is no thread to be had; all who wait for it are told
            for call in bundle:
                call.outcome = (error,)

    def _in_thread(self, bundle: list[_Call[A, R]]) -> None:
        outcomes = self._perform([call.argument for call in bundle])
        for call, outcome in zip(bundle, outcomes, strict=True):
            call.outcome = (outcome,)

    def _pass_on(self) -> None:
        """Let the first who waits lead."""
        self._is_led = bool(self._waiting)
        if self._waiting:
            self._waiting[0].leads = True
            self._waiting[0].wake()
