"""Waiting for a conversation: until nobody else is first, and until no other turn is running.

First come, first served inside a process; between processes, a look now and then with jitter.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from attrs import frozen

from fsm._runtime.adapters import Ports
from fsm._runtime.log import LOGGER
from fsm._runtime.settings import Settings
from fsm.errors import Conflict, ConversationBusy

__all__ = ["Queues", "Ticket", "Waiting"]

R = TypeVar("R")

SHORTEST_PAUSE, LONGEST_PAUSE = 0.002, 0.1
"""How long to wait between two looks at a busy conversation, in seconds."""

TRIES = 1000
"""How often a decision is made again because somebody else was first; each time somebody else got on."""


@frozen
class Ticket:
    """A place in a queue."""

    is_first: Callable[[], bool]
    """Whether it is this ticket's turn."""


class Queues:
    """A queue for each key that anybody waits for, and nothing for any other. Any number of threads may use it.

    >>> queues = Queues()
    >>> with queues.ticket("k") as first, queues.ticket("k") as second:
    ...     first.is_first(), second.is_first()
    (True, False)
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, deque[object]] = {}

    @contextmanager
    def ticket(self, key: str) -> Iterator[Ticket]:
        """Take a ticket at the end of the queue of this key, and give it back."""
        place = object()
        with self._lock:
            queue = self._waiting.setdefault(key, deque())
            queue.append(place)
        try:
            yield Ticket(lambda: queue[0] is place)
        finally:
            with self._lock:
                queue.remove(place)
                if not queue:
                    del self._waiting[key]


class Waiting:
    """How long a driver keeps trying.

    Args:
        settings: whether to wait, and for how long.
        ports: how to sleep.
    """

    def __init__(self, settings: Settings, ports: Ports) -> None:
        self._settings = settings
        self._ports = ports
        self._queues = Queues()

    async def until_free(self, key: str, attempt: Callable[[], Awaitable[R]], busy_timeout: float | None = None) -> R:
        """Attempt something until nobody else is first, and, if it may wait, until no other turn is running.

        Args:
            key: the conversation.
            attempt: what is attempted.
            busy_timeout: for how many seconds to wait; None for as long as the settings say.
        """
        timeout = self._settings.busy_timeout if busy_timeout is None else busy_timeout
        try:
            if self._settings.on_busy == "raise":
                return await self._until_first(attempt)
            with self._queues.ticket(key) as ticket:
                return await self._wait_for(key, ticket, attempt, timeout)
        except ConversationBusy:
            LOGGER.info("turn.begin_rejected", extra={"conversation": key})
            raise

    async def _wait_for(self, key: str, ticket: Ticket, attempt: Callable[[], Awaitable[R]], timeout: float) -> R:
        """Attempt it as soon as this ticket is the first and the conversation is free."""
        deadline = self._ports.elapsed() + timeout
        pause = SHORTEST_PAUSE
        busy = ConversationBusy(f"others have waited for {self._settings.busy_timeout} s before; try again later", key)
        while True:
            try:
                if ticket.is_first():
                    return await self._until_first(attempt)
            except ConversationBusy as error:
                busy = error
            if self._ports.elapsed() >= deadline:
                raise busy
            await self._ports.sleep(self._ports.chance.uniform(pause / 2, pause))
            pause = min(pause * 1.5, LONGEST_PAUSE)

    @staticmethod
    async def _until_first(attempt: Callable[[], Awaitable[R]]) -> R:
        for _ in range(TRIES):
            try:
                return await attempt()
            except Conflict as error:
                conflict = error
        raise conflict
