"""What a fork must not tear: calls of a store that are under way, and locks that nobody will release in the child.

A fork copies one thread and all of the memory. A lock that another thread held stays locked in the child, and a
transaction that another thread had begun stays open there. So a fork waits at :data:`GATE` until no other thread is
inside a call of a store. In the child, everything that was registered with :func:`renew_in_child` starts afresh.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

__all__ = ["GATE", "Gate", "call_before_fork", "leave_to_parent", "renew_in_child"]


class Gate:
    """Held open by each thread inside a call; who closes it waits until no other thread is inside.

    Entering is reentrant: a call may make another. A thread that closes the gate from inside a call waits for the
    others only, not for itself.

    Each thread has a lock, which it holds while it is inside, and who closes the gate takes all of them. The locks are
    entered and left in C, so that no interrupt comes between and leaves a thread inside.

    >>> with GATE.inside(), GATE.inside():
    ...     GATE.is_inside
    True
    """

    def __init__(self) -> None:
        self._mine = threading.local()
        self._locks: weakref.WeakSet[Any] = weakref.WeakSet()
        self._open = threading.Lock()  # held by who closes the gate, and for a moment by a thread that is new to it
        self._closer: int | None = None
        self._taken: list[Any] = []

    def inside(self) -> AbstractContextManager[object]:
        """Return what a call is made inside of."""
        lock = getattr(self._mine, "lock", None)
        if lock is None or (self._closer is not None and not lock._is_owned()):
            lock = self._admitted(lock)
        found: AbstractContextManager[object] = lock
        return found

    @property
    def is_inside(self) -> bool:
        """Whether the calling thread is inside."""
        lock = getattr(self._mine, "lock", None)
        return lock is not None and lock._is_owned()

    def _admitted(self, lock: Any) -> Any:
        """Wait until the gate is open, so that latecomers do not hold up its closer; return the thread's lock."""
        with nullcontext() if self._closer == threading.get_ident() else self._open:
            if lock is None:
                lock = self._mine.lock = threading.RLock()
                self._locks.add(lock)
        return lock

    def close(self) -> None:
        """Wait until no other thread is inside, and let none in until the gate is opened."""
        self._open.acquire()
        self._closer = threading.get_ident()
        mine = getattr(self._mine, "lock", None)
        for lock in list(self._locks):
            if lock is not mine:
                lock.acquire()
                self._taken.append(lock)

    def open(self) -> None:
        """Let the others in again."""
        while self._taken:
            self._taken.pop().release()
        self._closer = None
        self._open.release()

    def renew(self) -> None:
        """After a fork, in the child, where no other thread is."""
        self.__init__()  # type: ignore[misc]  # the same gate, as good as new


class _Renewable(Protocol):
    def renew(self) -> None: ...


class _Preparable(Protocol):
    def before_fork(self) -> None: ...


def renew_in_child(thing: _Renewable) -> None:
    """Call ``thing.renew()`` in every child that is forked while the thing is alive.

    ``renew`` makes the thing as good as new: it replaces locks, and forgets connections, threads and loops without
    closing them, for they are the parent's.
    """
    _RENEWED.add(thing)


def call_before_fork(thing: _Preparable) -> None:
    """Call ``thing.before_fork()`` in the parent before each fork, when no other thread is inside a call of a store."""
    _PREPARED.add(thing)


def leave_to_parent(inherited: object) -> None:
    """In a forked child: keep a thing of the parent's from being closed, even when this process ends.

    Collecting it would close it: a connection that the parent uses, or a generator whose ``finally`` stops what the
    parent runs. No list keeps a thing through the end of the interpreter; one reference more than are counted does.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))


_RENEWED: weakref.WeakSet[Any] = weakref.WeakSet()
_PREPARED: weakref.WeakSet[Any] = weakref.WeakSet()


def _before() -> None:
    GATE.close()
    for thing in list(_PREPARED):
        thing.before_fork()


def _after_in_parent() -> None:
    GATE.open()


def _after_in_child() -> None:
    GATE.renew()
    for thing in list(_RENEWED):
        thing.renew()


GATE = Gate()
"""The gate of this process."""

os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
