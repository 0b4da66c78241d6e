"""SQLite: a file in WAL mode, or memory."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NoReturn, TypeVar, TypeVarTuple

from peewee import (  # type: ignore[attr-defined]  # __exception_wrapper__ is missing in the stubs
    Database,
    PeeweeException,
    SqliteDatabase,
    __exception_wrapper__,
)

from fsm.errors import StoreError
from persistence.dialects import Refusal, cause_of
from persistence.statements import Write

__all__ = ["Opened", "SQLite"]

R = TypeVar("R")
Ts = TypeVarTuple("Ts")

SYNCED = "PRAGMA synchronous = FULL"
UNSYNCED = "PRAGMA synchronous = NORMAL"


class _Connection(sqlite3.Connection):
    """A connection that can be weakly referenced."""


class Opened:
    """What is open.

    Attributes:
        cursor: what runs all that is written; making one costs as much as a statement. None: nothing is open. The
            connection does not keep it: the two would keep each other, and be closed late.
        file: what names the file, wherever that is moved; None for ``:memory:``.
        synced: what the connection was last told about syncing.
    """

    cursor: Any = None
    file: tuple[int, int] | None = None
    synced: bool | None = None

    def keep(self, connection: Any, file: tuple[int, int] | None) -> None:
        """Keep what was opened."""
        self.cursor = connection.cursor()
        self.file = file
        self.synced = None

    def forget(self) -> None:
        """Forget it, since it is closed or somebody else's."""
        self.cursor = None


class _OpenedByThread(threading.local, Opened):
    """What each thread has open."""


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
        self._lock = threading.RLock()
        if not self._in_memory:
            _create_private(Path(path))
        self._opened = Opened() if self._in_memory else _OpenedByThread()
        self.database: Database = _Database(
            self.path, timeout, opened=self._opened, connections=self._connections, in_memory=self._in_memory
        )

    def within(self, operation: Callable[[*Ts], R], *values: *Ts) -> R:
        """On the thread's own connection; those who share the one of ``:memory:`` take turns."""
        if not self._in_memory:
            return operation(*values)
        with self._lock:
            return operation(*values)

    @property
    def one_writer(self) -> bool:
        """A file has one; ``:memory:`` has one connection, and nothing to sync."""
        return not self._in_memory

    def transact(self, writes: Sequence[Write], *, synced: bool) -> Refusal | None:
        """Begin, run, commit; there are no round trips to be saved."""
        self.begin(synced=synced)
        refusal = self.run(writes)
        if refusal is None:
            self.commit()
        return refusal

    def run(self, writes: Sequence[Write]) -> Refusal | None:
        """Run statements in their order, up to the first that is refused."""
        cursor = self._opened.cursor
        for statement, values in writes:
            try:
                cursor.execute(statement.sql, values)
            except Exception as error:  # noqa: BLE001  # what is no error of a database is raised again
                return Refusal(statement, _as_peewee(error))
            if statement.touches_one and cursor.rowcount != 1:
                return Refusal(statement)
        return None

    def begin(self, *, synced: bool) -> None:
        """``BEGIN IMMEDIATE``: the write lock now, so that no transaction fails half-way for want of it.

        SQLite's own busy handler is not asked where waiting could deadlock, so ask again until the timeout.
        """
        opened = self._opened
        if opened.cursor is None:
            self.database.connect()
        if not self._in_memory and file_at(self.path) != opened.file:
            self._give_up_file()
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                if opened.synced is not synced:
                    opened.cursor.execute(SYNCED if synced else UNSYNCED)
                    opened.synced = synced
                opened.cursor.execute("BEGIN IMMEDIATE")
            except Exception as raised:
                error = _as_peewee(raised)
                if not self.may_retry(error) or time.monotonic() >= deadline:
                    raise error from raised
                time.sleep(0.005)
            else:
                return

    def _give_up_file(self) -> NoReturn:
        """SQLite in WAL mode goes on writing to a file that was deleted, where nobody will find it."""
        self.database.close()  # so that the next one opens the file that is put there
        raise StoreError(
            f"the database file {self.path!r} was deleted, moved or replaced while it was in use; nothing of this "
            "step was stored. Put the file back"
        )

    def commit(self) -> None:
        """``COMMIT``."""
        try:
            self._opened.cursor.execute("COMMIT")
        except Exception as error:
            raise _as_peewee(error) from error

    def roll_back(self) -> None:
        """``ROLLBACK``, unless SQLite has done so by itself: disk full, I/O error, out of memory."""
        cursor = self._opened.cursor
        if cursor is not None and cursor.connection.in_transaction:
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
        self, path: str, timeout: float, *, opened: Opened, connections: weakref.WeakSet[_Connection], in_memory: bool
    ) -> None:
        self._opened = opened
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
        self._connections.add(connection)
        self._opened.keep(connection, file)
        return connection

    def _close(self, conn: Any) -> None:
        self._opened.forget()
        super()._close(conn)  # type: ignore[misc]  # missing in the stubs

    def dispose(self) -> None:
        """After a fork: what is open is the parent's, and the child opens its own."""
        self._opened.forget()
        super().dispose()


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
