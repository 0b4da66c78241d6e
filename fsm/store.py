"""What a store must do: commit one step whole, and read.

:class:`Store` is all that the library asks of a database. Its promises are what the guarantees rest on:

* :meth:`~Store.commit` writes a step in one transaction or not at all, and only if what is stored is still the step's
  snapshot: the same version, committed at the same time (``updated_at``). The time matters to a database that may
  forget a commit when it crashes; what is committed in its place has the same version. If somebody was first it
  raises :class:`~fsm.errors.Conflict`; any other failure is a :class:`~fsm.errors.StoreError`; in both cases nothing
  was written.
* Everything else is reads, in the order of the numbers.

A store may have an attribute ``epoch``, a number that changes whenever the database may have forgotten commits that it
was not told to sync. If a store has one, a step that a turn has stored, and that is missing, is stored once more only
if the number has changed since the turn began. Otherwise somebody has deleted the conversation.

``persistence.SQLStore`` is the store for SQLite and PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Protocol, TypeGuard, cast

from fsm.effects import Step
from fsm.records import Conversation, Message, Session, Transition, Turn

__all__ = ["SharingStore", "Store", "epoch_of", "is_sharing"]


class Store(Protocol):
    """Where conversations are kept.

    What belongs to a conversation is read with its snapshot. Those with ``limit`` and ``before`` read the newest
    ``limit`` rows whose number is smaller than ``before`` (None: no bound), and return them oldest first.
    """

    def load(self, key: str) -> Conversation | None:
        """The conversation as it stands, or None if there is none of this key."""
        ...

    def commit(self, step: Step) -> None:
        """Write one step, whole.

        Raises:
            Conflict: the stored version, or the time of its commit, is not that of ``step.before``.
            StoreError: the database refused.
        """
        ...

    def dead(self, conversation: Conversation, session_ids: Collection[str]) -> frozenset[str]:
        """Those of the provider session ids that were reported dead in this conversation (G2)."""
        ...

    def context(
        self, conversation: Conversation, *, first_session: int, last_session: int, limit: int | None
    ) -> Sequence[Message]:
        """The newest ``limit`` messages of succeeded turns of these sessions, oldest first (G3)."""
        ...

    def unheard(
        self, conversation: Conversation, *, first_session: int, last_session: int, limit: int | None
    ) -> Sequence[Message]:
        """The newest ``limit`` user messages with tool results of turns that did not succeed, oldest first.

        That is the first message of each turn of these sessions which ``brings_results`` and ended as failed,
        interrupted or superseded.
        """
        ...

    def turn_messages(self, conversation: Conversation, turn: Turn) -> Sequence[Message]:
        """All messages that one turn has by now, oldest first; a late one may have come since ``turn`` was read."""
        ...

    def turn_by_idempotency_key(self, conversation: Conversation, idempotency_key: str) -> Turn | None:
        """The turn that was begun with this idempotency key, if one was (G13)."""
        ...

    def messages(
        self, conversation: Conversation, *, limit: int | None = None, before: int | None = None
    ) -> Sequence[Message]:
        """The messages."""
        ...

    def turns(
        self, conversation: Conversation, *, limit: int | None = None, before: int | None = None
    ) -> Sequence[Turn]:
        """The turns."""
        ...

    def sessions(
        self, conversation: Conversation, *, limit: int | None = None, before: int | None = None
    ) -> Sequence[Session]:
        """The sessions."""
        ...

    def transitions(
        self, conversation: Conversation, *, limit: int | None = None, before: int | None = None
    ) -> Sequence[Transition]:
        """The log of moves."""
        ...

    def conversations(self, *, limit: int | None = None, after: str | None = None) -> Sequence[Conversation]:
        """The first ``limit`` conversations in the order of their keys, from the one after key ``after`` on."""
        ...

    def running(
        self, *, until: datetime | None = None, limit: int = 100, after: Conversation | None = None
    ) -> Sequence[Conversation]:
        """Conversations with a running turn whose lease is over at ``until`` (None: any), the oldest lease first.

        Of equal leases the smaller ``id`` comes first. With ``after``, the last one of a page, the next page is read.

        Raises:
            InvalidInput: no turn runs in the snapshot ``after``.
        """
        ...


class SharingStore(Store, Protocol):
    """A store in which steps that are committed at the same time may share a transaction, and its sync."""

    @property
    def takes_many(self) -> bool:
        """Whether it pays to hand over many steps at once."""
        ...

    def commit_many(self, steps: Sequence[Step]) -> Sequence[Exception | None]:
        """Write steps of different conversations; for each, what :meth:`~Store.commit` would have raised, or None.

        Each is written whole or not at all, and none can fail another. All that is not refused is as durable as a
        :meth:`~Store.commit` would have made it.
        """
        ...


def is_sharing(store: Store) -> TypeGuard[SharingStore]:
    """Whether a store takes many steps at once, and says that this pays.

    A store that stands in for another, and passes on what it does not know, has no such method of its own: nothing is
    to go past it.
    """
    return hasattr(type(store), "commit_many") and cast("SharingStore", store).takes_many


def epoch_of(store: Store) -> int:
    """The number that changes whenever a store may have forgotten commits which it was not told to sync.

    It is the store's attribute ``epoch``. A store that has none forgets nothing.
    """
    return int(getattr(store, "epoch", 0))
