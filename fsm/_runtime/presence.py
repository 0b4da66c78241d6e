"""The leases of running turns, renewed while their providers give signs of life.

A provider calls ``request.alive()`` for every sign of life. The call only notes the time (:class:`Lease`). Each process
has one daemon thread, the :class:`Keeper`, which looks at all leases now and then. It renews a lease that is half over
if there was a sign of life since the last renewal.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime

from fsm.fork import renew_in_child

__all__ = ["KEEPER", "Keeper", "Lease"]

LOOKS = 10
"""The number of looks of the keeper during one lease."""


class Lease:
    """The time of the newest sign of life of one turn's provider. Any thread may call :meth:`sign`.

    Args:
        length: the length of the lease, in seconds.
        clock: the manager's clock, by which the lease is counted.
        renew: called by the keeper with the time of the newest sign of life; it handles its own errors.
    """

    def __init__(self, length: float, clock: Callable[[], datetime], renew: Callable[[datetime], object]) -> None:
        self.length = length
        self._clock = clock
        self._renew = renew
        self._signed_at: datetime | None = None

    def sign(self) -> None:
        """Note that the provider is alive, without a lock and without I/O."""
        self._signed_at = self._clock()

    def look(self) -> None:
        """Renew the lease if there was a sign of life."""
        signed_at = self._signed_at
        if signed_at is not None:
            self._renew(signed_at)


class Keeper:
    """Looks at the leases of all turns that run in this process, in a daemon thread. Any thread may use it."""

    def __init__(self) -> None:
        self.renew()
        renew_in_child(self)

    def renew(self) -> None:
        """Start without leases, as in a forked child: the turns of a parent belong to the parent."""
        self._changed = threading.Condition(threading.Lock())
        self._leases: dict[int, Lease] = {}
        self._thread: threading.Thread | None = None
        self._wakes_at = float("inf")

    def watch(self, lease: Lease) -> None:
        """Look at this lease until it is :meth:`let_go`."""
        with self._changed:
            self._leases[id(lease)] = lease
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="conversation-fsm leases", daemon=True)
                self._thread.start()
            elif time.monotonic() + lease.length / LOOKS < self._wakes_at:
                self._changed.notify()

    def let_go(self, lease: Lease) -> None:
        """Stop looking at this lease."""
        with self._changed:
            self._leases.pop(id(lease), None)

    def _work(self) -> None:
        while True:
            for lease in self._pause():
                lease.look()

    def _pause(self) -> list[Lease]:
        """Wait until it is time to look again, without a timeout while no turn runs; return the leases."""
        with self._changed:
            shortest = min((lease.length for lease in self._leases.values()), default=None)
            pause = None if shortest is None else shortest / LOOKS
            self._wakes_at = float("inf") if pause is None else time.monotonic() + pause
            self._changed.wait(pause)
            return list(self._leases.values())


KEEPER = Keeper()
"""The keeper of this process."""
