"""What a fork must not tear: calls of a store that are under way, and locks that nobody will release in the child.

A fork copies one thread and all of the memory. A lock that another thread held stays locked in the child, and a
transaction that another thread had begun stays open there. So a fork waits at :data:`GATE` until no other thread is
inside a call of a store. In the child, everything that was registered with :func:`renew_in_child` starts anew.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol

__all__ = ["GATE", "Gate", "renew_in_child"]


class Gate:
    """Held open by each thread inside a call of a store; a fork waits until no other thread is inside.

    Entering is reentrant: a call of a store may make another. A thread that forks from inside a call waits for the
    others only, not for itself.

    >>> with GATE, GATE:
    ...     pass
    """

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._inside: dict[int, int] = {}
        self._forking: int | None = None

    def __enter__(self) -> None:
        me = threading.get_ident()
        with self._changed:
            while self._forking not in {None, me} and me not in self._inside:
                self._changed.wait()
            self._inside[me] = self._inside.get(me, 0) + 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        me = threading.get_ident()
        with self._changed:
            depth = self._inside.pop(me, 0) - 1  # 0 only in a child whose fork was made inside
            if depth > 0:
                self._inside[me] = depth
            elif self._forking is not None:
                self._changed.notify_all()

    def close(self) -> None:
        """Before a fork: wait until no other thread is inside, and let none in."""
        me = threading.get_ident()
        self._changed.acquire()
        while self._forking is not None:
            self._changed.wait()
        self._forking = me
        while self._inside.keys() - {me}:
            self._changed.wait()

    def open(self) -> None:
        """After a fork, in the parent."""
        self._forking = None
        self._changed.notify_all()
        self._changed.release()

    def renew(self) -> None:
        """After a fork, in the child, where no other thread is."""
        self.__init__()  # type: ignore[misc]  # the same gate, as good as new


class _Renewable(Protocol):
    def renew(self) -> None: ...


def renew_in_child(thing: _Renewable) -> None:
    """Call ``thing.renew()`` in every child that is forked while the thing is alive.

    ``renew`` makes the thing as good as new: it replaces locks, and forgets connections, threads and loops without
    closing them, for they are the parent's.
    """
    _RENEWED.add(thing)


_RENEWED: weakref.WeakSet[Any] = weakref.WeakSet()


def _after_in_child() -> None:
    GATE.renew()
    renewals: list[Callable[[], None]] = [thing.renew for thing in list(_RENEWED)]
    for renew in renewals:
        renew()


GATE = Gate()
"""The gate of this process."""

os.register_at_fork(before=GATE.close, after_in_parent=GATE.open, after_in_child=_after_in_child)
