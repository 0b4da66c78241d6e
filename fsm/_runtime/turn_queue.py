"""The queue of callers that wait for a busy conversation.

Inside a process, callers wait in order. Between processes, each looks now and then, with jitter.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from attrs import frozen

from fsm._runtime.adapters import Adapter
from fsm._runtime.log import LOGGER
from fsm._runtime.scripts import Script
from fsm._runtime.settings import Settings
from fsm.errors import ConversationBusy

__all__ = ["Queues", "Ticket", "TurnQueue"]

R = TypeVar("R")

SHORTEST_PAUSE, LONGEST_PAUSE = 0.002, 0.1
"""The shortest and the longest pause between two looks at a busy conversation, in seconds."""


@frozen
class Ticket:
    """A place in a queue.

    Attributes:
        is_first: whether it is the first of its queue.
    """

    is_first: Callable[[], bool]


class Queues:
    """A queue of callers for each key. Any number of threads may use it.

    >>> queues = Queues()
    >>> with queues.ticket("k") as first, queues.ticket("k") as second:
    ...     first.is_first(), second.is_first()
    (True, False)
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, deque[object]] = {}

    def length(self, key: str) -> int:
        """Return the number of callers that wait for this key, the first among them."""
        with self._lock:
            return len(self._waiting.get(key, ()))

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


class TurnQueue:
    """Attempts something until the conversation is free.

    Args:
        settings: whether to wait, and for how long.
        adapter: how to sleep, and how to run a script.

    Attributes:
        queues: who waits for which conversation.
    """

    def __init__(self, settings: Settings, adapter: Adapter) -> None:
        self._settings = settings
        self._adapter = adapter
        self.queues = Queues()

    async def until_free(self, key: str, attempt: Callable[[], Script[R]], busy_timeout: float | None = None) -> R:
        """Attempt something; if it may wait, attempt it until no other turn is running.

        Args:
            key: the conversation.
            attempt: makes the script that is attempted.
            busy_timeout: the seconds to wait; None for as long as the settings say.

        Raises:
            ConversationBusy: another turn is running, and did not end in time.
        """
        try:
            if self._settings.on_busy == "raise":
                return await self._adapter.run(attempt())
            timeout = self._settings.busy_timeout if busy_timeout is None else busy_timeout
            with self.queues.ticket(key) as ticket:
                return await self._wait_for(key, ticket, attempt, timeout)
        except ConversationBusy:
            LOGGER.info("turn.begin_rejected", extra={"conversation": key})
            raise

    async def _wait_for(self, key: str, ticket: Ticket, attempt: Callable[[], Script[R]], timeout: float) -> R:
        """Attempt it when this ticket is the first, until the conversation is free."""
        deadline = self._adapter.elapsed() + timeout
        pause = SHORTEST_PAUSE
        busy = ConversationBusy(f"others have waited for {self._settings.busy_timeout} s before; try again later", key)
        while True:
            try:
                if ticket.is_first():
                    return await self._adapter.run(attempt())
            except ConversationBusy as error:
                busy = error
            if self._adapter.elapsed() >= deadline:
                raise busy
            await self._adapter.sleep(self._adapter.chance.uniform(pause / 2, pause))
            pause = min(pause * 1.5, LONGEST_PAUSE)
