"""Leftovers: streams of providers that are still open when the answer is stored.

The caller has its answer by then. A provider that is slow to end must delay neither the caller nor the exit of the
process. So daemon threads close leftovers. They are started when needed and kept for a while.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue

from fsm.fork import renew_in_child

__all__ = ["LEFTOVERS", "Leftovers"]

IDLE = 10.0
"""The seconds for which a thread waits for more to close."""


MOST = 16
"""The most providers that may come to their end at once; another one is closed at once."""


class Leftovers:
    """Closes leftovers in the background. Any thread may use it.

    >>> closed = threading.Event()
    >>> LEFTOVERS.close_later(bool, closed.set, print)
    >>> closed.wait(10)
    True
    """

    def __init__(self) -> None:
        self.renew()
        renew_in_child(self)

    def renew(self) -> None:
        """Start without threads, as in a new process."""
        self._lock = threading.Lock()
        self._queue: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._threads = 0
        self._idle = 0

    def close_later(
        self, read_on: Callable[[], object], close: Callable[[], object], failed: Callable[[Exception], object]
    ) -> None:
        """Let a provider come to its end and close it, in a daemon thread.

        Args:
            read_on: lets it come to its end, so that a connection can be used again.
            close: closes it, wherever it stands.
            failed: called with each exception of the two.
        """
        with self._lock:
            if self._idle:
                self._idle -= 1
            else:
                self._threads += 1
                threading.Thread(target=self._work, name="conversation-fsm leftovers", daemon=True).start()
            steps = (read_on, close) if self._threads <= MOST else (close,)
        self._queue.put(lambda: _do(steps, failed))

    def _work(self) -> None:
        queue, lock = self._queue, self._lock
        while True:
            try:
                close = queue.get(timeout=IDLE)
            except Empty:
                with lock:
                    if self._idle:
                        self._idle -= 1
                        self._threads -= 1
                        return
                continue  # another thread is about to put something there
            close()
            with lock:
                self._idle += 1


def _do(steps: Sequence[Callable[[], object]], failed: Callable[[Exception], object]) -> None:
    for step in steps:
        try:
            step()
        except Exception as error:  # noqa: BLE001  # a provider's own code, and nobody waits for it
            failed(error)


LEFTOVERS = Leftovers()
"""The threads of this process."""
