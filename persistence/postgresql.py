"""PostgreSQL, by psycopg 3, with a pool of connections: any number of workers on any number of hosts.

It is tested on PostgreSQL 15 and later. CockroachDB speaks the same protocol and peewee has a class for it: the
statements compile for it unchanged (a test sees to that), but they were never run against a server of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import psycopg
from peewee import PeeweeException
from playhouse.postgres_ext import PooledPsycopg3Database

__all__ = ["PostgreSQL"]

MIGRATION_LOCK = 0x66736D
"""Names the advisory lock under which the schema is migrated."""

CONNECTIONS = 32
"""How many connections a store opens at most; whoever comes after that waits for one."""

RETRIED = frozenset({"40001", "40P01", "55P03"})
"""Serialization failure, deadlock, lock not available: PostgreSQL has rolled back and says to try again."""


class PostgreSQL:
    """A PostgreSQL database.

    Args:
        url: ``postgresql://user:password@host:port/name?option=value``, as libpq reads it.
        timeout: how long to wait for a connection, in seconds.
    """

    def __init__(self, url: str, *, timeout: float) -> None:
        self.database: Any = _Pool(  # type: ignore[no-untyped-call]  # playhouse has no types
            url, max_connections=CONNECTIONS, timeout=timeout, connect_timeout=max(2, int(timeout))
        )

    def scope(self) -> AbstractContextManager[object]:
        """A connection of the pool."""
        context: AbstractContextManager[object] = self.database.connection_context()
        return context

    def begin(self, *, synced: bool) -> None:
        """One round trip; without syncing, a commit returns before it is on disk."""
        self.database.execute_sql(f"BEGIN; SET LOCAL synchronous_commit TO {'ON' if synced else 'OFF'}")

    def roll_back(self) -> None:
        """``ROLLBACK``; a connection that can't even do that is not put back into the pool."""
        if not _is_broken(self.database.connection()):
            self.database.rollback()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """One transaction around the whole migration, under an advisory lock."""
        with self.database.atomic():
            self.database.execute_sql("SELECT pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))
            yield

    def may_retry(self, error: PeeweeException) -> bool:
        """PostgreSQL has rolled the transaction back and says to try again."""
        return getattr(getattr(error, "orig", None), "sqlstate", None) in RETRIED

    def is_lost(self, error: PeeweeException) -> bool:
        """The server went away, or the way to it."""
        cause = getattr(error, "orig", None)
        if not isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError):
            return False
        return cause.sqlstate is None or cause.sqlstate[:3] in {"57P", "080"}

    def close(self) -> None:
        """Close all connections."""
        self.database.close_all()


class _Pool(PooledPsycopg3Database):
    """peewee's pool, without its round trip to the server before each use: a lost connection is noticed when used."""

    def _is_closed(self, conn: Any) -> bool:
        return _is_broken(conn)


def _is_broken(connection: Any) -> bool:
    return bool(connection.closed or connection.broken)
