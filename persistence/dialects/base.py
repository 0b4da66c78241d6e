"""The differences between databases: how to connect, how to begin a transaction, the meaning of an error.

Tables, statements and the store are the same for all of them. :meth:`Dialect.begin` and :meth:`Dialect.transact` decide
the durability of each transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from attrs import frozen
from peewee import Database, PeeweeException

from persistence.mapping import Row
from persistence.queries import Statement, Write

__all__ = ["CommitCutOff", "Dialect", "Pooling", "Refusal", "cause_of"]


@frozen
class Refusal:
    """The first statement of a transaction that failed.

    Attributes:
        statement: the statement.
        error: the exception of the database, or None if the statement did not change exactly one row.
    """

    statement: Statement
    error: PeeweeException | None = None


@frozen
class Pooling:
    """How connections to a server are kept.

    Attributes:
        size: the most connections that are open.
        idle: the seconds after which an unused one is closed.
        prepare: whether statements that come often are prepared.
    """

    size: int = 32
    idle: float = 300.0
    prepare: bool = True


class CommitCutOff(Exception):
    """The wait for a commit was ended by something else than the database's answer, such as a signal's handler."""


class Dialect(Protocol):
    """One kind of database.

    Its calls are made inside :data:`fsm.fork.GATE`. ``close``, ``before_fork`` and ``renew`` are called while no other
    thread is inside a call of the store.
    """

    @property
    def database(self) -> Database:
        """peewee's database, with a connection for each thread."""
        ...

    def connection(self) -> AbstractContextManager[object]:
        """Return a block inside of which the calling thread has a connection."""
        ...

    def fetch(self, statement: Statement, values: Row) -> list[Any]:
        """Return the rows that a statement finds."""
        ...

    @property
    def one_writer(self) -> bool:
        """Whether only one connection at a time can write."""
        ...

    def begin(self, *, synced: bool) -> None:
        """Begin a transaction that writes; its commit survives loss of power if ``synced``."""
        ...

    def run(self, writes: Sequence[Write]) -> Refusal | None:
        """Run statements in their order, up to the first that is refused; return that, or None."""
        ...

    def transact(self, writes: Sequence[Write], *, synced: bool) -> Refusal | None:
        """Run a whole transaction in as few round trips as possible; after a refusal, roll it back."""
        ...

    def commit(self) -> None:
        """Commit the transaction."""
        ...

    def roll_back(self) -> None:
        """Roll the transaction back, if there still is one; give up a useless connection."""
        ...

    def exclusive(self) -> AbstractContextManager[object]:
        """Return a block inside of which no other process migrates the schema."""
        ...

    def may_retry(self, error: PeeweeException) -> bool:
        """Return whether the transaction has certainly left no trace and may succeed if it is tried again."""
        ...

    def is_lost(self, error: PeeweeException) -> bool:
        """Return whether the connection is gone, so that the outcome of a commit is not known."""
        ...

    @property
    def shown(self) -> str:
        """The database as it may be shown, without a password."""
        ...

    @property
    def epoch(self) -> int:
        """See :attr:`persistence.SQLStore.epoch`."""
        ...

    def learn(self, error: PeeweeException) -> None:
        """Give up the connections or prepared statements that an error shows to be useless."""
        ...

    def has_secret(self, text: str) -> bool:
        """Return whether a text contains a part of the password of the database."""
        ...

    def close(self) -> None:
        """Close the connections of all threads."""
        ...

    def before_fork(self) -> None:
        """Close the connections that a child must not inherit."""
        ...

    def renew(self) -> None:
        """Forget the parent's connections in a forked child, without closing them."""
        ...


def cause_of(error: BaseException | None) -> BaseException | None:
    """Return the exception of the driver, which peewee wraps once or more.

    >>> from peewee import OperationalError
    >>> cause_of(OperationalError(OperationalError(KeyError("k"))))
    KeyError('k')
    """
    while isinstance(error, PeeweeException):
        error = getattr(error, "orig", None)
    return error
