"""What a fork must not tear: calls of a store that are under way, and locks that nobody will release in the child.

A fork copies one thread and all of the memory. A lock that another thread held stays locked in the child, and a
transaction that another thread had begun stays open there. So a fork waits at :data:`GATE` until no other thread is
inside a call of a store. In the child, everything that was registered with :func:`renew_in_child` starts afresh.
"""

from __future__ import annotations

import os
import threading
import weakref
from types import TracebackType
from typing import Any, Protocol

__all__ = ["GATE", "Gate", "call_before_fork", "renew_in_child"]


class Gate:
    """Held open by each thread inside a call; whoever closes it waits until no other thread is inside.

    Entering is reentrant: a call may make another. A thread that closes the gate from inside a call waits for the
    others only, not for itself.

    A thread writes down that it is inside, and then looks whether the gate is closing; the closer says that it is
    closing, and then looks who is inside. One of them sees the other, so entering takes no lock.

    >>> with GATE, GATE:
    ...     GATE.is_inside
    True
    """

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._inside: dict[int, int] = {}
        self._closing: int | None = None

    @property
    def is_inside(self) -> bool:
        """Whether the calling thread is inside."""
        return threading.get_ident() in self._inside

    def __enter__(self) -> None:
        me = threading.get_ident()
        inside = self._inside
        depth = inside.get(me, 0)
        inside[me] = depth + 1
        if self._closing is not None and not depth:
            self._wait_outside(me)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        me = threading.get_ident()
        inside = self._inside
        depth = inside.get(me, 0) - 1  # negative only in a child whose fork was made inside
        if depth > 0:
            inside[me] = depth
            return
        inside.pop(me, None)
        if self._closing is not None:
            self._tell(me)

    def _wait_outside(self, me: int) -> None:
        """Step back until the gate is open again; the closer itself passes."""
        if self._closing == me:
            return
        del self._inside[me]
        with self._changed:
            self._changed.notify_all()
            while self._closing is not None:
                self._changed.wait()
            self._inside[me] = 1

    def _tell(self, me: int) -> None:
        """Let the closer look again."""
        if self._closing != me:
            with self._changed:
                self._changed.notify_all()

    def close(self) -> None:
        """Wait until no other thread is inside, and let none in until the gate is opened."""
        me = threading.get_ident()
        self._changed.acquire()
        while self._closing is not None:
            self._changed.wait()
        self._closing = me
        while set(self._inside) - {me}:
            self._changed.wait()

    def open(self) -> None:
        """Let the others in again."""
        self._closing = None
        self._changed.notify_all()
        self._changed.release()

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
