"""PostgreSQL, by psycopg 3, with a pool of connections: any number of workers on any number of hosts.

It is tested on PostgreSQL 15 and later. CockroachDB speaks the same protocol and peewee has a class for it: the
statements compile for it unchanged (a test sees to that), but they were never run against a server of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar, TypeVarTuple

import psycopg
from peewee import PeeweeException, __exception_wrapper__  # type: ignore[attr-defined]  # missing in the stubs
from playhouse.postgres_ext import PooledPsycopg3Database
from psycopg.pq import ExecStatus, TransactionStatus

from persistence.dialects import Refusal, cause_of
from persistence.statements import Statement, Write

__all__ = ["PostgreSQL"]

R = TypeVar("R")
Ts = TypeVarTuple("Ts")

MIGRATION_LOCK = 0x66736D
"""Names the advisory lock under which the schema is migrated."""

CONNECTIONS = 32
"""How many connections a store opens at most; whoever comes after that waits for one."""

RETRIED = frozenset({"40001", "40P01", "55P03"})
"""Serialization failure, deadlock, lock not available: PostgreSQL has rolled back and says to try again."""


DONE = frozenset({ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK})
"""How a statement that was not refused ends."""

BEGIN = Statement("BEGIN", ())
SYNCED = Statement("SET LOCAL synchronous_commit TO ON", ())
UNSYNCED = Statement("SET LOCAL synchronous_commit TO OFF", ())


class PostgreSQL:
    """A PostgreSQL database.

    Args:
        url: ``postgresql://user:password@host:port/name?option=value``, as libpq reads it.
        timeout: how long to wait for a connection, in seconds.
    """

    def __init__(self, url: str, *, timeout: float) -> None:
        self._rollbacks = itertools.count(1)
        self.database: Any = _Pool(  # type: ignore[no-untyped-call]  # playhouse has no types
            url, max_connections=CONNECTIONS, timeout=timeout, connect_timeout=max(2, int(timeout))
        )

    def within(self, operation: Callable[[*Ts], R], *values: *Ts) -> R:
        """On a connection of the pool."""
        with self.database.connection_context():
            return operation(*values)

    @property
    def one_writer(self) -> bool:
        """Each connection writes on its own; the server lets their commits share a sync by itself."""
        return False

    def begin(self, *, synced: bool) -> None:
        """Without syncing, a commit returns before it is on disk."""
        for statement in (BEGIN, SYNCED if synced else UNSYNCED):
            self.database.execute_sql(statement.sql)

    def transact(self, writes: Sequence[Write], *, synced: bool) -> Refusal | None:
        """One round trip for all of it but the commit, which waits to hear that nothing was refused."""
        refusal = self.run(((BEGIN, ()), (SYNCED if synced else UNSYNCED, ()), *writes))
        if refusal is None:
            self.commit()
        return refusal

    def run(self, writes: Sequence[Write]) -> Refusal | None:
        """Send all statements at once; after one that fails the server skips the others."""
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
            if statement.touches_one and cursor.rowcount != 1:
                return Refusal(statement)
        if error is not None:
            raise error
        return None

    def commit(self) -> None:
        """The second round trip."""
        self.database.execute_sql("COMMIT")

    def roll_back(self) -> None:
        """``ROLLBACK``; a connection that can't even do that is not put back into the pool."""
        connection = self.database.connection()
        if _is_broken(connection):
            return
        if connection.info.transaction_status is TransactionStatus.INERROR:
            # The server has skipped what was to be prepared after the error. psycopg forgets what it has prepared when
            # it sees a ROLLBACK, but looks only at a text that it has not seen before.
            self.database.execute_sql(f"ROLLBACK -- {next(self._rollbacks)}")
        else:
            self.database.rollback()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """One transaction around the whole migration, under an advisory lock."""
        with self.database.atomic():
            self.database.execute_sql("SELECT pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))
            yield

    def may_retry(self, error: PeeweeException) -> bool:
        """PostgreSQL has rolled the transaction back and says to try again."""
        return getattr(cause_of(error), "sqlstate", None) in RETRIED

    def is_lost(self, error: PeeweeException) -> bool:
        """The server went away, or the way to it."""
        cause = cause_of(error)
        if not isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError):
            return False
        return cause.sqlstate is None or cause.sqlstate[:3] in {"57P", "080"}

    def close(self) -> None:
        """Close all connections."""
        self.database.close_all()


@contextmanager
def _told_once(pipeline: psycopg.Pipeline) -> Iterator[None]:
    """After an error, read what the server says of the statements that it has skipped; the error is what counts."""
    try:
        yield
        pipeline.sync()
    except psycopg.Error:
        with suppress(psycopg.Error):
            pipeline.sync()
        raise


class _Pool(PooledPsycopg3Database):
    """peewee's pool, without its round trip to the server before each use: a lost connection is noticed when used."""

    def _is_closed(self, conn: Any) -> bool:
        return _is_broken(conn)


def _is_broken(connection: Any) -> bool:
    return bool(connection.closed or connection.broken)
