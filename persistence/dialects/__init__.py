"""What differs between databases: how to connect, how to begin a transaction, what an error means.

Everything else, models, statements and the store, is one text for all of them. :meth:`Dialect.begin` and
:meth:`Dialect.transact` are where durability is decided, transaction by transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from importlib.util import find_spec
from typing import Protocol, TypeVar, TypeVarTuple

from attrs import frozen
from peewee import Database, PeeweeException

from fsm.errors import StoreError
from persistence.queries import Statement, Write
from persistence.urls import FileURL, parse

__all__ = ["CommitCutOff", "Dialect", "Pooling", "Refusal", "cause_of", "connect"]

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


@frozen
class Pooling:
    """How connections to a server are kept.

    Attributes:
        size: how many are open at most.
        idle: the seconds after which one that nobody uses is closed.
        prepare: whether statements that come often are prepared.
    """

    size: int = 32
    idle: float = 300.0
    prepare: bool = True


DEFAULT_POOLING = Pooling()


class CommitCutOff(Exception):
    """Something that is not the database's answer, a signal's handler say, has ended the wait for a commit."""


class Dialect(Protocol):
    """One kind of database.

    Its calls are made inside :data:`fsm.fork.GATE`. ``close``, ``before_fork`` and ``renew`` are called while no other
    thread is inside a call of the store.
    """

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

    @property
    def shown(self) -> str:
        """The database, as it may be shown: without a password."""
        ...

    @property
    def epoch(self) -> int:
        """See :attr:`persistence.SQLStore.epoch`."""
        ...

    def learn(self, error: PeeweeException) -> None:
        """Give up what an error shows to be of no use: connections, prepared statements."""
        ...

    def has_secret(self, text: str) -> bool:
        """Whether a text contains a part of the password of the database."""
        ...

    def close(self) -> None:
        """Close all connections, of all threads; a thread that needs one opens it again."""
        ...

    def before_fork(self) -> None:
        """Close what a child must not inherit."""
        ...

    def renew(self) -> None:
        """In a child: forget what is the parent's, without closing it."""
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


def connect(url: str, *, timeout: float, pool: Pooling = DEFAULT_POOLING) -> Dialect:
    """Return the dialect for a URL, not yet connected.

    Args:
        url: the database; see :func:`persistence.urls.parse`.
        timeout: seconds to wait for another writer; what the URL says goes before it.
        pool: how connections to a server are kept.

    Raises:
        InvalidInput: the URL is not text.
        StoreError: the URL names no database that is known here, or its driver is missing.
    """
    place = parse(url)
    if isinstance(place, FileURL):
        from persistence.dialects.sqlite import SQLite

        return SQLite(place.path, timeout=timeout if place.timeout is None else place.timeout)
    if find_spec("psycopg") is None:
        raise StoreError('PostgreSQL needs psycopg 3; install it with: pip install "conversation-fsm[postgres]"')
    from persistence.dialects.postgresql import PostgreSQL

    return PostgreSQL(place, timeout=timeout, pool=pool)
