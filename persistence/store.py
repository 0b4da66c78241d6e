"""The store: one step, one transaction, guarded by the version it was decided from.

:class:`SQLStore` keeps conversations in SQLite or PostgreSQL. :meth:`SQLStore.commit` and
:meth:`SQLStore.commit_many` are the only methods that write; they promise that a step is stored whole or not at all,
and never over somebody else's (:class:`~fsm.errors.Conflict`).

The database, and peewee with it, is loaded when a store is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from itertools import zip_longest
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, get_args

from fsm._core.effects import Step
from fsm._core.validation import check_key
from fsm.errors import InvalidInput
from fsm.fork import GATE
from fsm.records import Conversation, Message, Session, Transition, Turn
from persistence import reading
from persistence.arguments import EVERYTHING, IS_SYNCED, Durability, bound, check_seconds, check_size, lease_of
from persistence.rows import micros

if TYPE_CHECKING:
    from persistence.dialects import Dialect
    from persistence.queries import Statement

__all__ = ["Durability", "SQLStore"]

R = TypeVar("R")


class SQLStore:
    """Conversations in an SQL database.

    Any number of threads may use one store, and any number of stores may be open on one database. A store may be used
    on both sides of a fork: the child has connections of its own.

    Args:
        url: ``sqlite:///chat.db`` (relative), ``sqlite:////var/lib/chat.db`` (absolute) or ``sqlite:///:memory:``.
            The file is created if it is missing, readable by its owner only. Or
            ``postgresql://user:password@host/name`` (extra ``postgres``). Either way the tables are created and
            migrated. Which options a URL may have, and what is written with a percent sign, stands in
            :doc:`/reference/storage`.
        durability: which commits are synced to disk before they return. ``acknowledged``: those that a caller is told
            of; the beginning of a turn survives a killed process, its end survives loss of power. ``strict``: all.
            ``relaxed``: none; all survive a killed process.
        timeout: seconds to wait for another writer or a free connection, and to try again after a lost connection.
        group_commit: let steps that are committed at the same time, by several threads or tasks, share a transaction
            and its sync, where a database has one writer at a time: a file of SQLite. A lone caller does not notice.
        prepare: let PostgreSQL prepare statements that come often. It makes no difference to SQLite, like the next two.
        pool_size: the number of connections to PostgreSQL that are open at most.
        pool_idle: seconds after which a connection to PostgreSQL that nobody uses is closed.

    Raises:
        InvalidInput: an argument is not of its kind.
        StoreError: the URL, the path or the database is not usable; the message says why.
        SchemaVersionError: a newer version of this library wrote the database.

    >>> with SQLStore("sqlite:///:memory:") as store:
    ...     store.load("ticket-42") is None
    True
    """

    def __init__(
        self,
        url: str,
        *,
        durability: Durability = "acknowledged",
        timeout: float = 10.0,
        group_commit: bool = True,
        prepare: bool = True,
        pool_size: int = 32,
        pool_idle: float = 300.0,
    ) -> None:
        if durability not in get_args(Durability):
            raise InvalidInput(f"durability {durability!r} is none of {', '.join(get_args(Durability))}")
        check_seconds("timeout", timeout)
        check_seconds("pool_idle", pool_idle)
        check_size("pool_size", pool_size)
        self.durability: Durability = durability
        self._timeout = timeout
        self._pool = (pool_size, pool_idle, prepare)
        with GATE.inside():
            self._dialect = self._connect(url)
            self._open(group_commit=group_commit)

    def _open(self, *, group_commit: bool) -> None:
        from persistence.transactions import Transactions

        self._transactions = Transactions(
            self._dialect, IS_SYNCED[self.durability], timeout=self._timeout, group_commit=group_commit
        )
        self._sql = self._transactions.sql
        try:
            self._transactions.migrate()
        except BaseException:
            self.close()
            raise

    def _connect(self, url: str) -> Dialect:
        """The dialect for a URL. Crash tests put one in its place whose disk fails when they say so."""
        from persistence.dialects import Pooling, connect

        return connect(url, timeout=self._timeout, pool=Pooling(*self._pool))

    def close(self) -> None:
        """Close all connections, when the calls that other threads are making are done.

        A call that is made afterwards opens its own.
        """
        self._transactions.close()

    @property
    def epoch(self) -> int:
        """A number that changes whenever the database may have forgotten commits that it was not told to sync.

        A server that crashes forgets them, and its connections are lost then. So this counts the connections to a
        server that were found lost; behind a pooler, which keeps its own, not all are. SQLite: always 0.
        """
        return self._dialect.epoch

    def __repr__(self) -> str:
        return f"<SQLStore {self._dialect.shown}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # Writing

    def commit(self, step: Step) -> None:
        """Write one step in one transaction.

        Args:
            step: what was decided; the version and the time of ``step.before`` are the guard.

        Raises:
            Conflict: the conversation was changed since the step's snapshot. Nothing was written.
            StoreError: the database refused. Nothing was written.
        """
        self._transactions.commit(step)

    def commit_many(self, steps: Sequence[Step]) -> list[Exception | None]:
        """Write steps of different conversations, each whole or not at all, in as few transactions as can be.

        Args:
            steps: what was decided; each has its own guard, and none can fail another.

        Returns:
            For each step what :meth:`commit` would have raised, or None if it is stored.
        """
        return self._transactions.commit_many(steps)

    @property
    def supports_batches(self) -> bool:
        """Whether steps share a transaction, so that it pays to hand over many at once.

        Not in a subclass with a ``commit`` of its own: none is to go past it.
        """
        return self._transactions.group is not None and type(self).commit is SQLStore.commit

    # Reading

    def load(self, key: str) -> Conversation | None:
        """The conversation of this key, or None."""
        found = self._read("conversation", self._sql.load, {"key": key}, reading.read_conversation, key)
        return found[0] if found else None

    def dead(self, conversation: Conversation, session_ids: Collection[str]) -> frozenset[str]:
        """Those of these provider session ids that were reported dead in the conversation."""
        found: set[str] = set()
        for first, second in zip_longest(*[iter(session_ids)] * 2):
            values = {"conversation": conversation.id, "first": first, "second": second}
            found.update(row[0] for row in self._transactions.select(self._sql.dead, values, conversation.key))
        return frozenset(found)

    def context(
        self, conversation: Conversation, *, first_session: int, last_session: int, limit: int | None
    ) -> list[Message]:
        """The newest ``limit`` messages of succeeded turns of these sessions, oldest first."""
        values = {
            "conversation": conversation.id,
            "first_session": first_session,
            "last_session": last_session,
            "limit": bound("limit", limit),
        }
        return self._read("message", self._sql.context, values, reading.read_message, conversation.key)[::-1]

    def unheard(
        self, conversation: Conversation, *, first_session: int, last_session: int, limit: int | None
    ) -> list[Message]:
        """The newest ``limit`` user messages with tool results of turns that did not succeed, oldest first."""
        values = {
            "conversation": conversation.id,
            "first_session": first_session,
            "last_session": last_session,
            "limit": bound("limit", limit),
        }
        return self._read("message", self._sql.unheard, values, reading.read_message, conversation.key)[::-1]

    def turn_messages(self, conversation: Conversation, turn: Turn) -> list[Message]:
        """All messages that one turn has by now, oldest first."""
        values = {"conversation": conversation.id, "turn": turn.number}
        return self._read("message", self._sql.turn_messages, values, reading.read_message, conversation.key)

    def turn_by_idempotency_key(self, conversation: Conversation, idempotency_key: str) -> Turn | None:
        """The turn that was begun with this idempotency key, or None."""
        values = {"conversation": conversation.id, "idempotency_key": idempotency_key}
        found = self._read("turn", self._sql.turn_by_idempotency_key, values, reading.read_turn, conversation.key)
        return found[0] if found else None

    def messages(
        self, conversation: Conversation, *, limit: int | None = None, before: int | None = None
    ) -> list[Message]:
        """The newest ``limit`` messages before number ``before``, oldest first."""
        return self._page("message", "messages", conversation, limit, before, reading.read_message)

    def turns(self, conversation: Conversation, *, limit: int | None = None, before: int | None = None) -> list[Turn]:
        """The newest ``limit`` turns before number ``before``, oldest first."""
        return self._page("turn", "turns", conversation, limit, before, reading.read_turn)

    def sessions(
        self, conversation: Conversation, *, limit: int | None = None, before: int | None = None
    ) -> list[Session]:
        """The newest ``limit`` sessions before number ``before``, oldest first."""
        return self._page("session", "sessions", conversation, limit, before, reading.read_session)

    def transitions(
        self, conversation: Conversation, *, limit: int | None = None, before: int | None = None
    ) -> list[Transition]:
        """The newest ``limit`` moves before number ``before``, oldest first."""
        return self._page(
            "transition",
            "transitions",
            conversation,
            limit,
            before,
            lambda row: reading.read_transition(row, conversation.key),
        )

    def conversations(self, *, limit: int | None = None, after: str | None = None) -> list[Conversation]:
        """The first ``limit`` conversations in the order of their keys, from the one after key ``after`` on."""
        after = "" if after is None else check_key(after)
        values = {"after": after, "limit": bound("limit", limit)}
        return self._read("conversation", self._sql.conversations, values, reading.read_conversation)

    def count(self) -> int:
        """Return the number of conversations."""
        ((number,),) = self._transactions.select(self._sql.count, {}, None)
        return int(number)

    def running(
        self, *, until: datetime | None = None, limit: int = 100, after: Conversation | None = None
    ) -> list[Conversation]:
        """Conversations with a running turn whose lease is over at ``until`` (None: any), the oldest lease first.

        Those that follow ``after``, the last one of the page before; None: from the first one on.

        Raises:
            InvalidInput: no turn runs in the snapshot ``after``.
        """
        after_until, after_id = (-EVERYTHING, -EVERYTHING) if after is None else lease_of(after)
        values = {
            "until": EVERYTHING if until is None else micros(until),
            "after_until": after_until,
            "after_id": after_id,
            "limit": bound("limit", limit),
        }
        return self._read("conversation", self._sql.running, values, reading.read_conversation)

    def _page(
        self,
        table: str,
        page: str,
        conversation: Conversation,
        limit: int | None,
        before: int | None,
        reader: Callable[[Any], R],
    ) -> list[R]:
        values = {
            "conversation": conversation.id,
            "limit": bound("limit", limit),
            "before": bound("before", before),
        }
        return self._read(table, self._sql.page[page], values, reader, conversation.key)[::-1]

    def _read(
        self,
        table: str,
        statement: Statement,
        values: Mapping[str, Any],
        reader: Callable[[Any], R],
        key: str | None = None,
    ) -> list[R]:
        return reading.read(table, self._transactions.select(statement, values, key), reader, key)
