"""The connections of a store to SQLite, and the settings that each of them is opened with."""

from __future__ import annotations

import sqlite3
import threading
import weakref
from typing import Any

from peewee import SqliteDatabase

from fsm.errors import StoreError
from persistence.dialects.files import file_at
from persistence.dialects.inherited import INHERITED
from persistence.urls import MEMORY

__all__ = ["Connections", "FileDatabase"]


class Opened:
    """What is open.

    Attributes:
        cursor: the cursor reused for all writes, or None if no connection is open. Making one costs as much as a
            statement. The connection does not keep it: the two would keep each other, and be closed late.
        file: what names the file, wherever that is moved; None for ``:memory:``.
        synced: what the connection was last told about syncing.
    """

    cursor: Any = None
    file: tuple[int, int] | None = None
    synced: bool | None = None


class _OpenedByThread(threading.local, Opened):
    """What each thread has open."""


class Connections:
    """The connections of one store.

    Each thread has its own, and only that thread uses it; the one of ``:memory:`` is shared by all, in turns. They are
    closed and forgotten while no other thread is inside a call of the store.

    Attributes:
        mine: what the calling thread has open.
        all: the open connections of all threads, each with its cursor.
    """

    def __init__(self, *, shared: bool) -> None:
        self._shared = shared
        self._start()

    def keep(self, connection: Any, file: tuple[int, int] | None) -> None:
        """Keep what the calling thread has opened."""
        self.mine.cursor = connection.cursor()
        self.all[connection] = weakref.ref(self.mine.cursor)
        self.mine.file = file
        self.mine.synced = None

    def forget(self) -> list[tuple[Any, Any]]:
        """Return all connections, each with its cursor, and keep none: a thread opens its next one when it needs it."""
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
            pragmas={"journal_mode": "wal", "foreign_keys": 1},
            timeout=timeout,
            thread_safe=path != MEMORY,
            factory=_Connection,
            check_same_thread=False,
        )

    def _connect(self) -> Any:
        file = file_at(self.database)
        if file is None and self.database != MEMORY:
            raise StoreError(f"the database file {self.database!r} is gone; put it back")  # and don't start another
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
