"""SQLite: a file in WAL mode, or memory."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from peewee import (  # type: ignore[attr-defined]  # __exception_wrapper__ is missing in the stubs
    Database,
    PeeweeException,
    SqliteDatabase,
    __exception_wrapper__,
)

from fsm.errors import StoreError
from persistence.dialects import Refusal, cause_of
from persistence.statements import Write

__all__ = ["SQLite"]

SYNCED = "PRAGMA synchronous = FULL"
UNSYNCED = "PRAGMA synchronous = NORMAL"


class _Connection(sqlite3.Connection):
    """A connection that remembers its file, and what it was last told about syncing.

    Unlike its base it can be weakly referenced.
    """

    synced: bool | None = None
    file: tuple[int, int] | None = None


class _Mine(threading.local):
    """What belongs to a thread.

    Attributes:
        cursor: what runs all that the thread writes, from the first transaction on; making one costs as much as a
            statement. The connection does not keep it: the two would keep each other, and be closed late.
    """

    cursor: Any = None


class SQLite:
    """A file, or ``:memory:``.

    A file runs in WAL mode and is created with mode 0600; each thread has its own connection. ``:memory:`` has one
    connection for all threads, which take turns.

    Args:
        path: the file, or ``:memory:``.
        timeout: how long to wait for another writer, in seconds.
    """

    def __init__(self, path: str, *, timeout: float) -> None:
        self.path = path if path == ":memory:" else os.path.abspath(path)  # the folder may change, the file must not
        self._in_memory = path == ":memory:"
        self._timeout = timeout
        self._connections: weakref.WeakSet[_Connection] = weakref.WeakSet()
        self._mine = _Mine()
        self._scope: AbstractContextManager[object] = threading.RLock() if self._in_memory else nullcontext()
        if not self._in_memory:
            _create_private(Path(path))
        self.database: Database = _Database(self._connections, self.path, timeout, in_memory=self._in_memory)

    def scope(self) -> AbstractContextManager[object]:
        """Nothing to hold for a file; the one connection for ``:memory:``."""
        return self._scope

    @property
    def one_writer(self) -> bool:
        """A file has one; ``:memory:`` has one connection, and nothing to sync."""
        return not self._in_memory

    def transact(self, writes: Sequence[Write], *, synced: bool) -> Refusal | None:
        """Begin, and run statements; there are no round trips to be saved."""
        self.begin(synced=synced)
        return self.run(writes)

    def run(self, writes: Sequence[Write]) -> Refusal | None:
        """Run statements in their order, up to the first that is refused."""
        cursor = self._mine.cursor
        for statement, values in writes:
            try:
                cursor.execute(statement.sql, values)
            except Exception as error:  # noqa: BLE001  # what is no error of a database is raised again
                return Refusal(statement, _as_peewee(error))
            if statement.touches_one and cursor.rowcount != 1:
                return Refusal(statement)
        return None

    def begin(self, *, synced: bool) -> None:
        """``BEGIN IMMEDIATE``: the write lock now, so that no transaction fails half-way for want of it."""
        connection = self.database.connection()
        cursor = self._mine.cursor
        if cursor is None or cursor.connection is not connection:
            cursor = self._mine.cursor = connection.cursor()
        if not self._in_memory:
            self._check_file(connection)
        if connection.synced is not synced:
            _execute(cursor, SYNCED if synced else UNSYNCED)
            connection.synced = synced
        self._begin_immediate(cursor)

    def commit(self) -> None:
        """``COMMIT``."""
        _execute(self._mine.cursor, "COMMIT")

    def _check_file(self, connection: _Connection) -> None:
        """SQLite in WAL mode goes on writing to a file that was deleted, where nobody will find it."""
        if file_at(self.path) == connection.file:
            return
        self._mine.cursor = None
        self.database.close()  # so that the next one opens the file that is put there
        raise StoreError(
            f"the database file {self.path!r} was deleted, moved or replaced while it was in use; nothing of this "
            "step was stored. Put the file back"
        )

    def _begin_immediate(self, cursor: Any) -> None:
        """SQLite's own busy handler is not asked where waiting could deadlock, so ask again until the timeout."""
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                _execute(cursor, "BEGIN IMMEDIATE")
            except PeeweeException as error:
                if not self.may_retry(error) or time.monotonic() >= deadline:
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

    def may_retry(self, error: PeeweeException) -> bool:
        """Another writer was in the way; SQLite has said so before it wrote anything."""
        return getattr(cause_of(error), "sqlite_errorcode", 0) & 0xFF in {
            sqlite3.SQLITE_BUSY,
            sqlite3.SQLITE_LOCKED,
        }

    def is_lost(self, _: PeeweeException) -> bool:
        """Never: SQLite is in this process, and a commit that fails is rolled back."""
        return False

    def close(self) -> None:
        """Close the connections of all threads."""
        self.database.close()
        for connection in list(self._connections):
            connection.close()


def _execute(cursor: Any, sql: str) -> None:
    try:
        cursor.execute(sql)
    except Exception as error:
        raise _as_peewee(error) from error


def _as_peewee(error: Exception) -> PeeweeException:
    """What the driver raised, as peewee names it."""
    try:
        with __exception_wrapper__:
            raise error
    except PeeweeException as known:
        return known


class _Database(SqliteDatabase):
    """peewee's database, with the settings that the store relies on, keeping track of its connections."""

    def __init__(
        self, connections: weakref.WeakSet[_Connection], path: str, timeout: float, *, in_memory: bool
    ) -> None:
        self._connections = connections
        super().__init__(
            path,
            pragmas={"journal_mode": "wal", "foreign_keys": 1},
            timeout=timeout,
            thread_safe=not in_memory,
            factory=_Connection,
            check_same_thread=False,
        )

    def _connect(self) -> Any:
        file = file_at(self.database)
        if file is None and self.database != ":memory:":
            raise StoreError(f"the database file {self.database!r} is gone; put it back")  # and don't start another
        connection: _Connection = super()._connect()  # type: ignore[misc]  # missing in the stubs
        connection.file = file
        self._connections.add(connection)
        return connection


def file_at(path: str) -> tuple[int, int] | None:
    """What names the file at a path, wherever that is moved; None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _create_private(path: Path) -> None:
    """Create the file readable by its owner only; SQLite gives its companions the same mode."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise StoreError(
            f"the database file {str(path)!r} can't be opened for writing: {why}; "
            "check the path and who may write there"
        ) from error
