"""PostgreSQL, by psycopg 3, with a pool of connections: any number of workers on any number of hosts.

It is tested on PostgreSQL 15 and later. CockroachDB speaks the same protocol and peewee has a class for it. The
statements compile for it unchanged, which a test checks. They were never run against a server of it.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import psycopg
from peewee import PeeweeException, __exception_wrapper__  # type: ignore[attr-defined]  # missing in the stubs
from psycopg.pq import ExecStatus, TransactionStatus

from persistence.dialects.base import CommitCutOff, Pooling, Refusal, cause_of
from persistence.dialects.pool import Pool, is_broken
from persistence.dialects.server import connected, parameters_of
from persistence.mapping import Row
from persistence.queries import Statement, Write
from persistence.urls import ServerURL

__all__ = ["PostgreSQL"]

MIGRATION_LOCK = 0x66736D
"""Names the advisory lock under which the schema is migrated."""

RETRIED = frozenset({"40001", "40P01", "55P03", "25P03", "25P04", "53300"})
"""SQL states after which a new attempt may succeed: serialization failure, deadlock, lock not available, the server's
timeouts of a transaction, too many connections."""

UNPREPARED = frozenset({"26000", "42P05"})
"""SQL states of a prepared statement that is missing or exists already, because a pooler changed the connection."""

READ_ONLY = frozenset({"25006"})
"""SQL states of a server that became a standby and can only read."""

UNKNOWN = frozenset({"40003"})
"""SQL states of a commit whose outcome the server does not know."""

DONE = frozenset({ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK})
"""The statuses of a statement that was not refused."""

BEGIN = Statement(sql="BEGIN")
SYNCED = Statement(sql="SET LOCAL synchronous_commit TO ON")
UNSYNCED = Statement(sql="SET LOCAL synchronous_commit TO OFF")


class PostgreSQL:
    """A PostgreSQL database.

    Args:
        url: the server and the database, with options as libpq and psycopg read them.
        timeout: the seconds to wait for a connection.
        pool: the settings of the pool.

    Raises:
        StoreError: the URL has an option that is not known, or one that can't work.
    """

    def __init__(self, url: ServerURL, *, timeout: float, pool: Pooling) -> None:
        self._rollbacks = itertools.count(1)
        self._url = url
        self.parameters = {"connect_timeout": max(2, int(timeout)), **parameters_of(url)}
        self.database: Any = Pool(functools.partial(connected, self.parameters), pool, timeout=timeout)

    def connection(self) -> AbstractContextManager[object]:
        """Return a block with a connection of the pool."""
        found: AbstractContextManager[object] = self.database.connection_context()
        return found

    def fetch(self, statement: Statement, values: Row) -> list[Any]:
        """Return the rows that a statement finds."""
        found: list[Any] = self.database.execute_sql(statement.sql, values).fetchall()
        return found

    @property
    def one_writer(self) -> bool:
        """False: connections write independently, and the server lets their commits share a sync."""
        return False

    def begin(self, *, synced: bool) -> None:
        """Begin a transaction; unless it is ``synced``, its commit returns before it is on disk."""
        for statement in (BEGIN, SYNCED if synced else UNSYNCED):
            self.database.execute_sql(statement.sql)

    def transact(self, writes: Sequence[Write], *, synced: bool) -> Refusal | None:
        """Send all but the commit in one round trip, and commit in a second if nothing was refused."""
        refusal = self.run(((BEGIN, ()), (SYNCED if synced else UNSYNCED, ()), *writes))
        if refusal is None:
            self.commit()
        return refusal

    def run(self, writes: Sequence[Write]) -> Refusal | None:
        """Send all statements at once; after one that fails the server skips the rest."""
        connection = self.database.connection()
        cursors: list[psycopg.Cursor[Any]] = []
        error = None
        try:
            with __exception_wrapper__, connection.pipeline() as pipeline, _told_once(pipeline):
                for statement, values in writes:
                    cursors.append(connection.cursor())
                    cursors[-1].execute(statement.sql, values)
        except PeeweeException as raised:
            error = raised
        for (statement, _), cursor in zip(writes, cursors, strict=False):
            if cursor.pgresult is None or cursor.pgresult.status not in DONE:
                return Refusal(statement, error)
            if statement.expect_one_row and cursor.rowcount != 1:
                return Refusal(statement)
        if error is not None:
            raise error
        return None

    def commit(self) -> None:
        """Send ``COMMIT``."""
        try:
            self.database.execute_sql("COMMIT")
        except PeeweeException:
            raise
        except Exception as foreign:
            self.database.connection().close()
            raise CommitCutOff from foreign

    def roll_back(self) -> None:
        """Send ``ROLLBACK``; a connection that can't do that is closed."""
        if self.database.is_closed():
            return
        connection = self.database.connection()
        if is_broken(connection):
            return
        try:
            if connection.info.transaction_status is TransactionStatus.INERROR:
                # The server has skipped the statements that were to be prepared after the error. psycopg forgets
                # prepared statements at a ROLLBACK, but only if it has not seen the text before.
                self.database.execute_sql(f"ROLLBACK -- {next(self._rollbacks)}")
            else:
                self.database.rollback()
        except Exception:  # noqa: BLE001  # the error that led here is the one to be told
            connection.close()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Return one transaction around the whole migration, under an advisory lock."""
        with self.database.atomic():
            self.database.execute_sql("SELECT pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))
            yield

    def may_retry(self, error: PeeweeException) -> bool:
        """Return whether the transaction was rolled back or never begun, and a new attempt may succeed."""
        return _sqlstate(error) in RETRIED | UNPREPARED | READ_ONLY

    def is_lost(self, error: PeeweeException) -> bool:
        """Return whether the connection to the server is gone."""
        cause = cause_of(error)
        if not isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError):
            return False
        return cause.sqlstate is None or cause.sqlstate[:3] in {"57P", "080"} or cause.sqlstate in UNKNOWN

    def learn(self, error: PeeweeException) -> None:
        """Close the idle connections after one was lost or can only read; stop preparing if a pooler is in between."""
        if _sqlstate(error) in UNPREPARED:
            self.database.prepares = False
        elif _sqlstate(error) in READ_ONLY or self.is_lost(error):
            self.database.lose()

    @property
    def shown(self) -> str:
        """Its URL, without the password and the options."""
        return self._url.shown

    @property
    def epoch(self) -> int:
        """The number of connections that were found lost."""
        found: int = self.database.epoch
        return found

    def has_secret(self, text: str) -> bool:
        """Return whether a text contains a part of the password."""
        return self._url.has_secret(text)

    def close(self) -> None:
        """Close all connections."""
        self.database.close_all()

    def before_fork(self) -> None:
        """Do nothing: connections stay open, and a child forgets them."""

    def renew(self) -> None:
        """Forget the connections of the parent, in a forked child."""
        self.database.renew()


def _sqlstate(error: PeeweeException) -> str | None:
    return getattr(cause_of(error), "sqlstate", None)


@contextmanager
def _told_once(pipeline: psycopg.Pipeline) -> Iterator[None]:
    """After an error, read the server's answers for the skipped statements too, and raise the error."""
    try:
        yield
        pipeline.sync()
    except psycopg.Error:
        with suppress(psycopg.Error):
            pipeline.sync()
        raise
