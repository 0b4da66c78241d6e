"""The interface of a store: commit one step whole, and read.

:class:`Store` is all that the library asks of a database. The guarantees rest on these promises:

* :meth:`~Store.commit` writes a step in one transaction or not at all. It writes only if the stored conversation is
  still the step's snapshot: the same version, committed at the same time (``updated_at``). The time matters to a
  database that may forget a commit when it crashes, because the next commit gets the same version. If another
  writer was first, ``commit`` raises :class:`~fsm.errors.Conflict`. Any other failure is a
  :class:`~fsm.errors.StoreError`. In both cases nothing was written.
* Everything else reads, in the order of the numbers.

Subclass :class:`BaseStore` to write a store. An optional interface, such as :class:`BatchingStore`, says what more
a store can do. ``persistence.SQLStore`` is the store for SQLite and PostgreSQL.

This module also exports what the author of a store needs: a :class:`Step` and its effects, and :func:`check_key`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Sequence
from datetime import datetime
from types import TracebackType
from typing import Protocol, Self

from fsm._core.effects import (
    AddMessage,
    BindSession,
    CloseSession,
    Effect,
    EndTurn,
    ExtendTurn,
    LogTransition,
    MarkSessionDead,
    OpenSession,
    StartTurn,
    Step,
)
from fsm._core.validation import KEY_LENGTH, check_key
from fsm.errors import Closed
from fsm.records import Conversation, Message, Session, Transition, Turn

__all__ = [
    "KEY_LENGTH",
    "AddMessage",
    "BaseStore",
    "BatchingStore",
    "BindSession",
    "CloseSession",
    "Effect",
    "EndTurn",
    "ExtendTurn",
    "LogTransition",
    "MarkSessionDead",
    "OpenSession",
    "StartTurn",
    "Step",
    "Store",
    "check_key",
]


class Store(Protocol):
    """Where conversations are kept.

    The rows of a conversation are read with its snapshot. The methods with ``limit`` and ``before`` read the newest
    ``limit`` rows whose number is smaller than ``before`` (None: no bound), and return them oldest first.
    """

    @abstractmethod
    def load(self, key: str) -> Conversation | None:
        """Return the newest snapshot of the conversation, or None if there is none of this key."""
        ...

    @abstractmethod
    def commit(self, step: Step) -> None:
        """Write one step, whole.

        Raises:
            Conflict: the stored version, or the time of its commit, is not that of ``step.before``.
            StoreError: the database refused.
        """
        ...

    @abstractmethod
    def dead(self, conversation: Conversation, session_ids: Collection[str]) -> frozenset[str]:
        """Return the ids, of these, that were reported dead in this conversation (G2)."""
        ...

    @abstractmethod
    def context(
        self, conversation: Conversation, *, first_session: int, last_session: int, limit: int | None
    ) -> Sequence[Message]:
        """Return the newest ``limit`` messages of succeeded turns of these sessions, oldest first (G3)."""
        ...

    @abstractmethod
    def unheard(
        self, conversation: Conversation, *, first_session: int, last_session: int, limit: int | None
    ) -> Sequence[Message]:
        """Return the newest ``limit`` user messages with tool results of turns that did not succeed, oldest first.

        That is the first message of each turn of these sessions which ``brings_results`` and ended as failed,
        interrupted or superseded.
        """
        ...

    @abstractmethod
    def turn_messages(self, conversation: Conversation, turn: Turn) -> Sequence[Message]:
        """Return all messages of one turn, oldest first; a late one may have come since ``turn`` was read."""
        ...

    @abstractmethod
    def turn_by_idempotency_key(self, conversation: Conversation, idempotency_key: str) -> Turn | None:
        """Return the turn that was begun with this idempotency key, or None (G13)."""
        ...

    @abstractmethod
    def messages(
        self, conversation: Conversation, *, limit: int | None = None, before: int | None = None
    ) -> Sequence[Message]:
        """Return messages."""
        ...

    @abstractmethod
    def turns(
        self, conversation: Conversation, *, limit: int | None = None, before: int | None = None
    ) -> Sequence[Turn]:
        """Return turns."""
        ...

    @abstractmethod
    def sessions(
        self, conversation: Conversation, *, limit: int | None = None, before: int | None = None
    ) -> Sequence[Session]:
        """Return sessions."""
        ...

    @abstractmethod
    def transitions(
        self, conversation: Conversation, *, limit: int | None = None, before: int | None = None
    ) -> Sequence[Transition]:
        """Return logged moves of the machine."""
        ...

    @abstractmethod
    def conversations(self, *, limit: int | None = None, after: str | None = None) -> Sequence[Conversation]:
        """Return the first ``limit`` conversations in the order of their keys, from the one after key ``after`` on."""
        ...

    @abstractmethod
    def count(self) -> int:
        """Return the number of conversations."""
        ...

    @abstractmethod
    def running(
        self, *, until: datetime | None = None, limit: int = 100, after: Conversation | None = None
    ) -> Sequence[Conversation]:
        """Return conversations with a running turn whose lease is over at ``until`` (None: any), oldest lease first.

        Of equal leases the smaller ``id`` comes first. Pass the last one of a page as ``after`` to read the next page.

        Raises:
            InvalidInput: no turn runs in the snapshot ``after``.
        """
        ...


class BatchingStore(Store, Protocol):
    """A store in which steps that are committed at the same time may share a transaction and its sync."""

    @property
    def supports_batches(self) -> bool:
        """Whether many steps are stored faster at once than one by one."""
        ...

    def commit_many(self, steps: Sequence[Step]) -> Sequence[Exception | None]:
        """Write steps of different conversations; return for each what :meth:`~Store.commit` would have raised.

        Each step is written whole or not at all, and none can make another fail. A step that was not refused is as
        durable as after :meth:`~Store.commit`.
        """
        ...


class BaseStore(Store):
    """The base class of stores. A subclass implements the abstract methods; see :class:`Store`.

    A store is a context manager that closes itself. A closed store refuses every call with
    :class:`~fsm.errors.Closed`; call :meth:`check_open` first in each method.
    """

    is_closed = False
    """Whether :meth:`close` was called."""

    def close(self) -> None:
        """Release what the store holds. Extend it if there is more to release. Closing twice is a no-op."""
        self.is_closed = True

    def check_open(self, key: str | None = None) -> None:
        """Refuse to go on if the store is closed.

        Args:
            key: the conversation, for the error message.

        Raises:
            Closed: it is closed.
        """
        if self.is_closed:
            raise Closed(f"{self!r} is closed; open another store", key)

    def __enter__(self) -> Self:
        self.check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def epoch(self) -> int:
        """A number that changes whenever the database may have forgotten commits that it was not told to sync.

        The default, always 0, is right for a database that forgets nothing. If a stored step of a running turn is
        missing, it is stored again only if the number has changed since the turn began. If not, the conversation was
        deleted.
        """
        return 0
