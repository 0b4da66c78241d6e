"""Forks: a fork waits until no other thread is inside a call of a store, and objects start clean in the child.

A fork copies the memory, but only one thread. A lock that another thread held stays locked in the child, and a
transaction that another thread had begun stays open there. So a fork waits at :data:`GATE` until no other thread is
inside a call of a store. In the child, each object that was registered with :func:`renew_in_child` is renewed.
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
    """A gate that a thread passes for each call. Closing it waits until no other thread is inside.

    Entering is reentrant: a call may make another. A thread that closes the gate from inside a call does not wait for
    itself.

    Each thread holds a lock while it is inside, and closing the gate takes all of these locks. The locks are entered
    and left in C, so that an interrupt can't leave a thread inside.

    >>> with GATE.inside(), GATE.inside():
    ...     GATE.is_inside
    True
    """

    def __init__(self) -> None:
        self._mine = threading.local()
        self._locks: weakref.WeakSet[Any] = weakref.WeakSet()
        self._open = threading.Lock()  # held while the gate is closed, and for a moment by a thread that is new to it
        self._closer: int | None = None
        self._taken: list[Any] = []

    def inside(self) -> AbstractContextManager[object]:
        """Return the block to make a call in."""
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
        """Return the thread's lock, as soon as the gate is open."""
        with nullcontext() if self._closer == threading.get_ident() else self._open:
            if lock is None:
                lock = self._mine.lock = threading.RLock()
                self._locks.add(lock)
        return lock

    def close(self) -> None:
        """Wait until no other thread is inside, and let no other in until the gate is opened."""
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
        """Start as new, in a forked child: it has only this thread."""
        self.__init__()  # type: ignore[misc]  # the same object, as new


class _Renewable(Protocol):
    def renew(self) -> None: ...


class _Preparable(Protocol):
    def before_fork(self) -> None: ...


def renew_in_child(thing: _Renewable) -> None:
    """Call ``thing.renew()`` in every child that is forked while the thing is alive.

    ``renew`` replaces locks, and forgets connections, threads and loops without closing them: they belong to the
    parent.
    """
    _RENEWED.add(thing)


def call_before_fork(thing: _Preparable) -> None:
    """Call ``thing.before_fork()`` in the parent before each fork, when no other thread is inside a call of a store."""
    _PREPARED.add(thing)


def leave_to_parent(inherited: object) -> None:
    """Keep an object of the parent from being collected in a forked child, even when the child ends.

    Collecting it would close a connection that the parent uses, or run the ``finally`` of a generator that the parent
    reads. A list does not keep an object through the end of the interpreter. One extra reference does.
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
