"""First come, first served: who waits for which conversation, inside one process."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from attrs import frozen

__all__ = ["Queues", "Ticket"]


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
