"""The pool of connections to a PostgreSQL server.

peewee's own pool asks the server before each use of a connection, takes the oldest one first, and closes an idle one
only when the next is taken. This pool notices a lost connection when it is used. It takes the newest one first, so that
the others stay idle and a timer closes them.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any

from attrs import frozen
from peewee import OperationalError
from playhouse.postgres_ext import Psycopg3Database
from psycopg.pq import TransactionStatus

from fsm.fork import GATE, leave_to_parent
from persistence.dialects.base import Pooling

__all__ = ["Pool", "is_broken"]


@frozen
class _Idle:
    """A connection that is not in use.

    Attributes:
        connection: the connection.
        since: the time when it was put back, in seconds of the monotonic clock.
    """

    connection: Any
    since: float


class Pool(Psycopg3Database):
    """peewee's database, with a pool of connections.

    The lock of ``_changed`` guards the attributes. A connection belongs to the thread that took it, until that thread
    puts it back. A forked child forgets all connections.

    Args:
        open_one: opens a connection.
        pooling: the most connections, and the longest time for which one may be idle.
        timeout: the seconds to wait for a free connection.

    Attributes:
        epoch: the number of connections that were found lost.
        idle: the connections that are not in use, in the order in which they were put back.
        prepares: whether connections may prepare statements; once False, it stays so.
    """

    def __init__(self, open_one: Callable[[], Any], pooling: Pooling, *, timeout: float) -> None:
        self.epoch = 0
        self.prepares = pooling.prepare
        self._open_one = open_one
        self._pooling = pooling
        self._timeout = timeout
        self._start()
        super().__init__("postgresql://")  # type: ignore[no-untyped-call]  # playhouse has no types
        self._lock = nullcontext()  # its state is kept by thread, and connecting must not block other threads

    def _start(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self.idle: list[_Idle] = []
        self._taken: dict[int, Any] = {}
        self._count = 0  # open connections, and those that are being opened
        self._timer: threading.Timer | None = None

    def _connect(self) -> Any:
        """Take a connection that is idle, or open one."""
        connection = self._take() or self._open()
        if not self.prepares:
            connection.prepare_threshold = None
        with self._changed:
            self._taken[id(connection)] = connection
        return connection

    def _take(self) -> Any:
        """Take an idle connection; return None if one may be opened instead.

        Raises:
            OperationalError: all were in use until the timeout.
        """
        deadline = time.monotonic() + self._timeout
        with self._changed:
            while True:
                while self.idle:
                    connection = self.idle.pop().connection
                    if not is_broken(connection):
                        return connection
                    self._count -= 1
                    self.epoch += 1
                if self._count < self._pooling.size:
                    self._count += 1
                    return None
                if not self._changed.wait(deadline - time.monotonic()) and time.monotonic() >= deadline:
                    raise OperationalError(f"all {self._count} connections are in use; raise pool_size")

    def _open(self) -> Any:
        try:
            return self._open_one()
        except BaseException:
            self._drop()
            raise

    def _drop(self) -> None:
        """Count one connection less."""
        with self._changed:
            self._count -= 1
            self._changed.notify()

    def _close(self, conn: Any) -> None:
        """Put a connection back, unless it is broken."""
        is_sound = _is_sound(conn)
        with self._changed:
            if self._taken.pop(id(conn), None) is None:
                return
            if is_sound:
                self.idle.append(_Idle(conn, time.monotonic()))
                self._changed.notify()
                self._watch()
        if not is_sound:
            _close_raw(conn)
            self._drop()

    def lose(self) -> None:
        """Close the idle connections, after one was lost: the others may be lost too."""
        self.epoch += 1
        self._close_idle(0)

    def close_all(self) -> None:
        """Close all connections, while no other thread is inside a call of the store."""
        self.close()  # the one that this thread has taken
        self._close_idle(0)

    def _close_idle(self, seconds: float) -> None:
        """Close the connections that have been idle for so many seconds."""
        with self._changed:
            oldest = time.monotonic() - seconds
            stale = [idle.connection for idle in self.idle if idle.since <= oldest]
            self.idle = [idle for idle in self.idle if idle.since > oldest]
            self._count -= len(stale)
            self._changed.notify_all()
        for connection in stale:
            _close_raw(connection)

    # Idle connections

    def _watch(self) -> None:
        """Start a timer if a connection is idle and none runs."""
        if self._timer is not None or not self.idle or self._pooling.idle >= threading.TIMEOUT_MAX:
            return
        due = self.idle[0].since + self._pooling.idle - time.monotonic()
        timer = threading.Timer(max(due, 0.0), _tick, [weakref.ref(self)])
        timer.daemon = True
        with suppress(RuntimeError):  # the interpreter is about to end
            timer.start()
            self._timer = timer

    def tick(self) -> None:
        """Close the connections that have been idle for too long."""
        self._close_idle(self._pooling.idle)
        with self._changed:
            self._timer = None
            self._watch()

    # A fork

    def renew(self) -> None:
        """Forget the connections in a forked child: they belong to the parent. Writes to them go nowhere."""
        connections = [*self._taken.values(), *(idle.connection for idle in self.idle)]
        self._start()
        self.dispose()
        for connection in connections:
            leave_to_parent(connection)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for connection in connections:
            with suppress(Exception):
                os.dup2(nowhere, connection.fileno(), inheritable=False)
        os.close(nowhere)


def _tick(pool: weakref.ref[Pool]) -> None:
    if (mine := pool()) is not None:
        with GATE.inside():
            mine.tick()


def _close_raw(connection: Any) -> None:
    with suppress(Exception):
        connection.close()


def _is_sound(connection: Any) -> bool:
    """Return whether a connection can be put back, after a rollback if there must be one."""
    with suppress(Exception):
        if connection.info.transaction_status is not TransactionStatus.IDLE:
            connection.rollback()
        return connection.info.transaction_status is TransactionStatus.IDLE and not is_broken(connection)
    return False


def is_broken(connection: Any) -> bool:
    """Return whether a connection is known to be broken."""
    return bool(connection.closed or connection.broken)
