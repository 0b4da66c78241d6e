"""What a turn leaves behind when its answer is stored: a provider's stream that is still to be closed.

The caller has its answer by then, and nothing that a provider does afterwards may delay it, nor the exit of the
process. So leftovers are closed by daemon threads, started as they are needed and kept for a while.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

from fsm.fork import renew_in_child

__all__ = ["LEFTOVERS", "Leftovers"]

IDLE = 10.0
"""For how many seconds a thread waits for more to close."""


class Leftovers:
    """Closes things in the background. Any thread may use it.

    >>> closed = threading.Event()
    >>> LEFTOVERS.close_later(closed.set)
    >>> closed.wait(10)
    True
    """

    def __init__(self) -> None:
        self.renew()
        renew_in_child(self)

    def renew(self) -> None:
        """Start with no thread: in a new process there is none."""
        self._lock = threading.Lock()
        self._queue: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._idle = 0

    def close_later(self, close: Callable[[], object]) -> None:
        """Call ``close`` in a daemon thread; it must see to its own errors."""
        with self._lock:
            if self._idle:
                self._idle -= 1
            else:
                threading.Thread(target=self._work, name="conversation-fsm leftovers", daemon=True).start()
        self._queue.put(close)

    def _work(self) -> None:
        queue, lock = self._queue, self._lock
        while True:
            try:
                close = queue.get(timeout=IDLE)
            except Empty:
                with lock:
                    if self._idle:
                        self._idle -= 1
                        return
                continue  # something is on its way to this thread
            close()
            with lock:
                self._idle += 1


LEFTOVERS = Leftovers()
"""The threads of this process."""
