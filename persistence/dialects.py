"""What differs between databases: how to connect, how to begin a transaction, what an error means.

Everything else, models, statements and the store, is one text for all of them. ``begin(synced)`` is where durability
is decided, transaction by transaction.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

from peewee import Database, PeeweeException, SqliteDatabase

from fsm.errors import StoreError

__all__ = ["Dialect", "SQLite", "connect"]


class Dialect(Protocol):
    """One kind of database."""

    @property
    def database(self) -> Database:
        """peewee's own, thread by thread."""
        ...

    def scope(self) -> AbstractContextManager[object]:
        """Hold a connection for the length of one operation."""
        ...

    def begin(self, *, synced: bool) -> None:
        """Begin a transaction that writes; its commit survives loss of power if ``synced``."""
        ...

    def roll_back(self) -> None:
        """End the transaction without a trace, if there still is one."""
        ...

    def exclusive(self) -> AbstractContextManager[object]:
        """Hold off every other process that would migrate the schema."""
        ...

    def close(self) -> None:
        """Close all connections, of all threads."""
        ...


def connect(url: str, *, timeout: float) -> Dialect:
    """The dialect for a URL, not yet connected.

    Args:
        url: ``sqlite:///relative.db``, ``sqlite:////absolute.db`` or ``sqlite:///:memory:``.
        timeout: how long to wait for another writer, in seconds.

    Raises:
        StoreError: the URL names no database that is known here.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise StoreError(f"{_short(url)} is no database URL; write sqlite:///chat.db")
    if scheme == "sqlite":
        path = rest.removeprefix("/")
        if not rest.startswith("/") and rest not in {"", ":memory:"}:
            raise StoreError(f"{_short(url)} has two slashes; a file takes three: sqlite:///{rest}")
        return SQLite(path or ":memory:", timeout=timeout)
    raise StoreError(f"unknown database scheme {scheme!r}; write sqlite:///chat.db")


def _short(url: str) -> str:
    """The beginning of what was given as a URL: enough to recognise it, too short for a password."""
    return repr(url if len(url) <= 12 else url[:12] + "…")


class _Connection(sqlite3.Connection):
    """A connection that remembers what it was last told about syncing; unlike its base it can be weakly referenced."""

    synced: bool | None = None


class SQLite:
    """A file, or ``:memory:``.

    A file runs in WAL mode and is created with mode 0600; each thread has its own connection. ``:memory:`` has one
    connection for all threads, which take turns.

    Args:
        path: the file, or ``:memory:``.
        timeout: how long to wait for another writer, in seconds.
    """

    def __init__(self, path: str, *, timeout: float) -> None:
        self.path = path
        self._timeout = timeout
        self._connections: weakref.WeakSet[_Connection] = weakref.WeakSet()
        self._scope: AbstractContextManager[object] = threading.RLock() if self._in_memory else nullcontext()
        if not self._in_memory:
            _create_private(Path(path))
        self.database: Database = _Database(self._connections, path, timeout, in_memory=self._in_memory)

    @property
    def _in_memory(self) -> bool:
        return self.path == ":memory:"

    def scope(self) -> AbstractContextManager[object]:
        """Nothing to hold for a file; the one connection for ``:memory:``."""
        return self._scope

    def begin(self, *, synced: bool) -> None:
        """``BEGIN IMMEDIATE``: the write lock now, so that no transaction fails half-way for want of it."""
        connection: _Connection = self.database.connection()
        if connection.synced is not synced:
            self.database.execute_sql(f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}")
            connection.synced = synced
        self._begin_immediate()

    def _begin_immediate(self) -> None:
        """SQLite's own busy handler is not asked where waiting could deadlock, so ask again until the timeout."""
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                self.database.execute_sql("BEGIN IMMEDIATE")
            except PeeweeException as error:
                if not _is_busy(error) or time.monotonic() >= deadline:
                    raise
                time.sleep(0.005)
            else:
                return

    def roll_back(self) -> None:
        """``ROLLBACK``, unless SQLite has done so by itself: disk full, I/O error, out of memory."""
        if self.database.connection().in_transaction:
            self.database.rollback()

    def exclusive(self) -> AbstractContextManager[object]:
        """One transaction around the whole migration."""
        transaction: AbstractContextManager[object] = self.database.atomic("IMMEDIATE")
        return transaction

    def close(self) -> None:
        """Close the connections of all threads."""
        self.database.close()
        for connection in list(self._connections):
            connection.close()


class _Database(SqliteDatabase):
    """peewee's database, with the settings that the store relies on, keeping track of its connections."""

    def __init__(
        self, connections: weakref.WeakSet[_Connection], path: str, timeout: float, *, in_memory: bool
    ) -> None:
        self._connections = connections
        super().__init__(
            path,
            pragmas={"busy_timeout": int(timeout * 1000), "journal_mode": "wal", "foreign_keys": 1},
            timeout=timeout,
            thread_safe=not in_memory,
            factory=_Connection,
            check_same_thread=False,
        )

    def _connect(self) -> Any:
        connection: _Connection = super()._connect()  # type: ignore[misc]  # missing in the stubs
        self._connections.add(connection)
        return connection


def _create_private(path: Path) -> None:
    """Create the file readable by its owner only; SQLite gives its companions the same mode."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise StoreError(
            f"the database file {str(path)!r} can't be opened for writing: {error.strerror}; check the path and "
            "who may write there"
        ) from error


def _is_busy(error: PeeweeException) -> bool:
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", 0)
    return code & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
