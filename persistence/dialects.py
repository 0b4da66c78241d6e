"""What differs between databases: how to connect, how to begin a transaction, what an error means.

Everything else, models, statements and the store, is one text for all of them. :meth:`Dialect.begin` and
:meth:`Dialect.transact` are where durability is decided, transaction by transaction.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar, TypeVarTuple

from attrs import frozen
from peewee import Database, PeeweeException

from fsm.errors import StoreError
from persistence.statements import Statement, Write

__all__ = ["Dialect", "Refusal", "cause_of", "connect"]

R = TypeVar("R")
Ts = TypeVarTuple("Ts")


@frozen
class Refusal:
    """A statement that did not do what it must.

    Attributes:
        statement: the first of them.
        error: what the database raised; None: it has touched another number of rows than one.
    """

    statement: Statement
    error: PeeweeException | None = None


class Dialect(Protocol):
    """One kind of database."""

    @property
    def database(self) -> Database:
        """peewee's own, thread by thread."""
        ...

    def within(self, operation: Callable[[*Ts], R], *values: *Ts) -> R:
        """Call an operation, and hold a connection for it as long as it takes."""
        ...

    @property
    def one_writer(self) -> bool:
        """Whether one connection at a time can write."""
        ...

    def begin(self, *, synced: bool) -> None:
        """Begin a transaction that writes; its commit survives loss of power if ``synced``."""
        ...

    def run(self, writes: Sequence[Write]) -> Refusal | None:
        """Run statements in their order, up to the first that is refused; None if none was."""
        ...

    def transact(self, writes: Sequence[Write], *, synced: bool) -> Refusal | None:
        """A whole transaction, in as few round trips as can be; after a refusal it is still to be rolled back."""
        ...

    def commit(self) -> None:
        """Commit the transaction."""
        ...

    def roll_back(self) -> None:
        """End the transaction without a trace, if there still is one; give up a connection that is of no use."""
        ...

    def exclusive(self) -> AbstractContextManager[object]:
        """Hold off every other process that would migrate the schema."""
        ...

    def may_retry(self, error: PeeweeException) -> bool:
        """Whether the transaction has certainly left no trace and may go through if it is tried again."""
        ...

    def is_lost(self, error: PeeweeException) -> bool:
        """Whether the connection is gone, so that nobody knows what became of a commit that was under way."""
        ...

    def close(self) -> None:
        """Close all connections, of all threads."""
        ...


def cause_of(error: BaseException | None) -> BaseException | None:
    """What the driver raised; peewee wraps it once more for each of its own calls that it comes through.

    >>> from peewee import OperationalError
    >>> cause_of(OperationalError(OperationalError(KeyError("k"))))
    KeyError('k')
    """
    while isinstance(error, PeeweeException):
        error = getattr(error, "orig", None)
    return error


def connect(url: str, *, timeout: float) -> Dialect:
    """The dialect for a URL, not yet connected.

    Args:
        url: ``sqlite:///relative.db``, ``sqlite:////absolute.db``, ``sqlite:///:memory:``, or
            ``postgresql://user:password@host/name``.
        timeout: how long to wait for another writer, in seconds.

    Raises:
        StoreError: the URL names no database that is known here.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise StoreError(f"{_short(url)} is no database URL; write sqlite:///chat.db or postgresql://host/name")
    if scheme == "sqlite":
        from persistence.sqlite import SQLite

        path = rest.removeprefix("/")
        if not rest.startswith("/") and rest not in {"", ":memory:"}:
            raise StoreError(f"{_short(url)} has two slashes; a file takes three: sqlite:///{rest}")
        return _forgotten_by_children(SQLite(path or ":memory:", timeout=timeout))
    if scheme in {"postgresql", "postgres"}:
        try:
            from persistence.postgresql import PostgreSQL
        except ImportError as error:
            raise StoreError(
                'PostgreSQL needs psycopg 3; install it with: pip install "conversation-fsm[postgres]"'
            ) from error
        return _forgotten_by_children(PostgreSQL(f"postgresql://{rest}", timeout=timeout))
    raise StoreError(f"unknown database scheme {scheme!r}; write sqlite:///chat.db or postgresql://host/name")


def _short(url: str) -> str:
    """The beginning of what was given as a URL: enough to recognise it, too short for a password."""
    return repr(url if len(url) <= 12 else url[:12] + "…")


def _forgotten_by_children(dialect: Dialect) -> Dialect:
    """A connection must not be used on both sides of a fork; the child forgets it and opens its own."""
    reference = weakref.ref(dialect)

    def forget() -> None:
        if (mine := reference()) is not None:
            mine.database.dispose()

    if dialect.database.database != ":memory:":
        os.register_at_fork(after_in_child=forget)
    return dialect
