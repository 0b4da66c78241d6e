"""Keeping the lease of a turn whose provider is at work, though it says nothing that its caller could see.

A provider calls ``request.alive()`` for every sign of life. That only notes the time (:class:`Lease`). One daemon
thread a process, the :class:`Keeper`, looks at all leases now and then, and renews one that is half over if there was a
sign of life since it was renewed last.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime

from fsm.fork import renew_in_child

__all__ = ["KEEPER", "Keeper", "Lease"]

LOOKS = 10
"""How often in the length of a lease the keeper looks at it."""


class Lease:
    """When the provider of one turn last gave a sign of life. Any thread may call :meth:`sign`.

    Args:
        length: how long the lease is, in seconds.
        clock: the manager's, which the lease is counted by.
        renew: called by the keeper with the time of the newest sign of life; it sees to its own errors.
    """

    def __init__(self, length: float, clock: Callable[[], datetime], renew: Callable[[datetime], object]) -> None:
        self.length = length
        self._clock = clock
        self._renew = renew
        self._signed_at: datetime | None = None

    def sign(self) -> None:
        """Note that the provider is alive: no lock, no I/O."""
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
        """Start with nothing to keep: what a parent's process runs is not the child's."""
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
        """Look at this lease no more."""
        with self._changed:
            self._leases.pop(id(lease), None)

    def _work(self) -> None:
        while True:
            for lease in self._pause():
                lease.look()

    def _pause(self) -> list[Lease]:
        """Wait until it is time to look again; without an end while nothing runs."""
        with self._changed:
            shortest = min((lease.length for lease in self._leases.values()), default=None)
            pause = None if shortest is None else shortest / LOOKS
            self._wakes_at = float("inf") if pause is None else time.monotonic() + pause
            self._changed.wait(pause)
            return list(self._leases.values())


KEEPER = Keeper()
"""The keeper of this process."""
