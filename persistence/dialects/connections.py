"""The connections of a store to SQLite, and the settings that each of them is opened with."""

from __future__ import annotations

import sqlite3
import threading
import weakref
from collections.abc import Mapping
from typing import Any

from peewee import SqliteDatabase

from fsm.errors import StoreError
from persistence.dialects.files import file_at
from persistence.dialects.inherited import INHERITED
from persistence.urls import MEMORY

__all__ = ["PRAGMAS", "Connections", "FileDatabase"]

PRAGMAS: Mapping[str, Any] = {"journal_mode": "wal", "foreign_keys": 1}
"""The settings of each connection to a file."""


class Opened:
    """The connection of one thread, and its state.

    Attributes:
        cursor: the cursor reused for all statements, or None if no connection is open. The connection holds it only
            weakly, since a reference cycle would be closed late.
        file: the device and inode of the file; None for ``:memory:``.
        synced: the last setting of ``PRAGMA synchronous``: True for FULL, False for NORMAL, None if it was not set.
    """

    cursor: Any = None
    file: tuple[int, int] | None = None
    synced: bool | None = None


class _OpenedByThread(threading.local, Opened):
    """The connection of each thread."""


class Connections:
    """The connections of one store.

    Each thread has its own, and only that thread uses it. Threads share the one of ``:memory:``, in turns. Connections
    are closed and forgotten while no other thread is inside a call of the store.

    Attributes:
        mine: the connection of the calling thread.
        all: the open connections of all threads, each with its cursor.
    """

    def __init__(self, *, shared: bool) -> None:
        self._shared = shared
        self._start()

    def keep(self, connection: Any, file: tuple[int, int] | None) -> None:
        """Register the connection that the calling thread has opened."""
        self.mine.cursor = connection.cursor()
        self.all[connection] = weakref.ref(self.mine.cursor)
        self.mine.file = file
        self.mine.synced = None

    def forget(self) -> list[tuple[Any, Any]]:
        """Return all connections, each with its cursor, and forget them. A thread opens its next one when needed."""
        found = [(connection, cursor()) for connection, cursor in self.all.items()]
        self._start()
        return found

    def _start(self) -> None:
        self.all: weakref.WeakKeyDictionary[Any, weakref.ref[Any]] = weakref.WeakKeyDictionary()
        self.mine = Opened() if self._shared else _OpenedByThread()


class _Connection(sqlite3.Connection):
    """A connection that can be weakly referenced."""


class FileDatabase(SqliteDatabase):
    """peewee's database, with the settings that the store relies on, keeping track of its connections."""

    def __init__(self, path: str, timeout: float, *, connections: Connections) -> None:
        self._connections = connections
        super().__init__(
            path,
            pragmas=PRAGMAS,
            timeout=timeout,
            thread_safe=path != MEMORY,
            factory=_Connection,
            check_same_thread=False,
        )

    def _connect(self) -> Any:
        file = file_at(self.database)
        if file is None and self.database != MEMORY:
            raise StoreError(f"the database file {self.database!r} is gone; put it back")  # SQLite would create another
        INHERITED.check(file, self.database)
        connection: _Connection = super()._connect()  # type: ignore[misc]  # missing in the stubs
        self._connections.keep(connection, file)
        return connection

    def _add_conn_hooks(self, conn: Any) -> None:
        _check_encoding(conn, self.database)
        super()._add_conn_hooks(conn)  # type: ignore[misc]  # missing in the stubs

    def _close(self, conn: Any) -> None:
        self._connections.mine.cursor = None
        super()._close(conn)  # type: ignore[misc]  # missing in the stubs


def _check_encoding(connection: sqlite3.Connection, path: str) -> None:
    ((encoding,),) = connection.execute("PRAGMA encoding").fetchall()
    if encoding != "UTF-8":
        raise StoreError(
            f"the database file {path!r} has the encoding {encoding}, which can't hold every text; name another file, "
            "and let this library create it"
        )
