"""SQLite: a file in WAL mode, or memory."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, NoReturn

from peewee import (  # type: ignore[attr-defined]  # __exception_wrapper__ is missing in the stubs
    Database,
    PeeweeException,
    __exception_wrapper__,
)

from fsm.errors import StoreError
from fsm.fork import GATE
from persistence.dialects.base import CommitCutOff, Refusal, cause_of
from persistence.dialects.connections import Connections, FileDatabase
from persistence.dialects.files import create_private, file_at
from persistence.dialects.inherited import INHERITED
from persistence.mapping import Row
from persistence.queries import Statement, Write
from persistence.urls import MEMORY

__all__ = ["SQLite"]

NO_LOCK = nullcontext()

SYNCED = "PRAGMA synchronous = FULL"
UNSYNCED = "PRAGMA synchronous = NORMAL"

_OPEN: weakref.WeakValueDictionary[tuple[int, int], SQLite] = weakref.WeakValueDictionary()
"""The first store of this process for each file, by device and inode. SQLite names the companions of a file after the
path by which it was opened, so all stores of a process must open a file by the same path."""


class SQLite:
    """A file, or ``:memory:``.

    A file runs in WAL mode and is created with mode 0600; each thread has its own connection. ``:memory:`` has one
    connection for all threads, which take turns.

    Before a fork the connections to a file are closed, and each thread opens its next one. SQLite keeps a table of the
    locks of a process, and a child that inherits it believes that it holds the locks of its parent. A child has a copy
    of a database in memory.

    Args:
        path: the file, or ``:memory:``.
        timeout: the seconds to wait for another writer.
    """

    def __init__(self, path: str, *, timeout: float) -> None:
        self.path = path if path == MEMORY else os.path.abspath(path)  # the working directory may change
        self._in_memory = path == MEMORY
        self._timeout = timeout
        self.connections = Connections(shared=self._in_memory)
        self._lock = threading.RLock()
        if not self._in_memory:
            create_private(self.path)
            self.path = self._path_in_use()
        self.database: Database = FileDatabase(self.path, timeout, connections=self.connections)

    def _path_in_use(self) -> str:
        """Return the path by which this process has opened the file already, or the given one."""
        file = file_at(self.path)
        if file is None:
            return self.path
        first = _OPEN.setdefault(file, self)
        if first is not self and file_at(first.path) != file:  # it was moved
            first = _OPEN[file] = self
        return first.path

    def connection(self) -> AbstractContextManager[object]:
        """Return a block with the thread's connection; threads take turns with the one of ``:memory:``."""
        return self._lock if self._in_memory else NO_LOCK

    def fetch(self, statement: Statement, values: Row) -> list[Any]:
        """Return the rows that a statement finds."""
        opened = self.connections.mine
        if opened.cursor is None:
            self.database.connect()
        try:
            found: list[Any] = opened.cursor.execute(statement.sql, values).fetchall()
        except Exception as raised:
            raise _as_peewee(raised) from raised
        return found

    @property
    def one_writer(self) -> bool:
        """True for a file; a database in memory has one connection and nothing to sync."""
        return not self._in_memory

    @property
    def shown(self) -> str:
        """Its path."""
        return self.path

    @property
    def epoch(self) -> int:
        """Always 0: SQLite does not forget commits while this process lives."""
        return 0

    def transact(self, writes: Sequence[Write], *, synced: bool) -> Refusal | None:
        """Begin, run and commit, one after the other: SQLite has no round trips to save."""
        self.begin(synced=synced)
        refusal = self.run(writes)
        if refusal is None:
            self.commit()
        return refusal

    def run(self, writes: Sequence[Write]) -> Refusal | None:
        """Run statements in their order, up to the first that is refused."""
        cursor = self.connections.mine.cursor
        for statement, values in writes:
            try:
                cursor.execute(statement.sql, values)
            except Exception as error:  # noqa: BLE001  # an exception of anything else is raised again
                return Refusal(statement, _as_peewee(error))
            if statement.expect_one_row and cursor.rowcount != 1:
                return Refusal(statement)
        return None

    def begin(self, *, synced: bool) -> None:
        """``BEGIN IMMEDIATE``: take the write lock now, so that a transaction can't fail half-way.

        SQLite does not call its busy handler where waiting could deadlock, so this tries again until the timeout.
        """
        opened = self.connections.mine
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
        """Refuse a file that was deleted, moved or replaced: SQLite in WAL mode would go on writing to it."""
        self.database.close()  # the next connection opens the file that is put there
        raise StoreError(
            f"the database file {self.path!r} was deleted, moved or replaced while it was in use; nothing of this "
            "step was stored. Put the file back"
        )

    def commit(self) -> None:
        """``COMMIT``."""
        try:
            self.connections.mine.cursor.execute("COMMIT")
        except Exception as raised:
            try:
                error = _as_peewee(raised)
            except Exception as foreign:
                raise CommitCutOff from foreign
            raise error from raised

    def roll_back(self) -> None:
        """``ROLLBACK``, unless SQLite has done so by itself: disk full, I/O error, out of memory.

        A connection that can't do that is closed.
        """
        cursor = self.connections.mine.cursor
        try:
            if cursor is not None and cursor.connection.in_transaction:
                self.database.rollback()
        except Exception:  # noqa: BLE001  # the error that led here is the one to be told
            _close_both(cursor.connection, cursor)
            self.connections.mine.cursor = None
            self.database._state.reset()  # type: ignore[attr-defined]  # missing in the stubs

    def exclusive(self) -> AbstractContextManager[object]:
        """Return one transaction around the whole migration."""
        transaction: AbstractContextManager[object] = self.database.atomic("IMMEDIATE")
        return transaction

    def may_retry(self, error: PeeweeException) -> bool:
        """Return whether another writer was in the way, which SQLite says before it writes anything."""
        return getattr(cause_of(error), "sqlite_errorcode", 0) & 0xFF in {
            sqlite3.SQLITE_BUSY,
            sqlite3.SQLITE_LOCKED,
        }

    def is_lost(self, _: PeeweeException) -> bool:
        """Return False: SQLite is in this process, and rolls a failed commit back."""
        return False

    def learn(self, _: PeeweeException) -> None:
        """Do nothing: an error of SQLite says nothing about other connections."""

    def has_secret(self, _: str) -> bool:
        """Return False: a file has no password."""
        return False

    def close(self) -> None:
        """Close the connections of all threads; a database in memory is gone then."""
        for connection, cursor in self._forget():
            _close_both(connection, cursor)

    def before_fork(self) -> None:
        """Let a child inherit no connection to the file, unless the fork is made inside a call of a store."""
        if not self._in_memory and not GATE.is_inside:
            self.close()

    def renew(self) -> None:
        """Forget the connections to a file in a forked child: they belong to the parent. A database in memory stays."""
        self._lock = threading.RLock()
        self.database._lock = threading.Lock()  # type: ignore[attr-defined]  # missing in the stubs
        if not self._in_memory:
            INHERITED.keep([connection for connection, _ in self._forget()], file_at(self.path))

    def _forget(self) -> list[tuple[Any, Any]]:
        found = self.connections.forget()
        self.database._state = type(self.database._state)()  # type: ignore[attr-defined]  # missing in the stubs
        return found


def _close_both(connection: Any, cursor: Any) -> None:
    """Close a connection and its cursor, whose statement would keep the file open."""
    for thing in (cursor, connection):
        with suppress(Exception):
            thing.close()


def _as_peewee(error: Exception) -> PeeweeException:
    """Return an exception of the driver as peewee wraps it; raise any other."""
    try:
        with __exception_wrapper__:
            raise error
    except PeeweeException as known:
        return known
