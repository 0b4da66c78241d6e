"""The store: one step, one transaction, guarded by the version it was decided from.

:class:`SQLStore` keeps conversations in SQLite or PostgreSQL. Only :meth:`SQLStore.commit` and
:meth:`SQLStore.commit_many` write. The database, and peewee with it, is loaded when a store is opened.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from fsm import Conversation, Message, Session, Transition, Turn
from fsm.errors import FSMError, InvalidInput
from fsm.fork import GATE, Gate, call_before_fork, renew_in_child
from fsm.store import BaseStore, Step, check_key
from persistence.arguments import EVERYTHING, IS_SYNCED, Durability, bound, check_seconds, check_size, lease_of
from persistence.mapping import micros, read

if TYPE_CHECKING:
    from persistence.dialects import Dialect

__all__ = ["Durability", "SQLStore"]

R = TypeVar("R", Conversation, Session, Turn, Message, Transition)


class SQLStore(BaseStore):
    """Conversations in an SQL database.

    Any number of threads may use one store, and any number of stores may be open on one database. A store may be used
    on both sides of a fork: the child opens other connections. A closed store refuses every call.

    Args:
        url: ``sqlite:///chat.db`` (relative), ``sqlite:////var/lib/chat.db`` (absolute) or ``sqlite:///:memory:``.
            The file is created if it is missing, readable by its owner only. Or
            ``postgresql://user:password@host/name`` (extra ``postgres``). Either way the tables are created and
            migrated. :doc:`/reference/storage` lists the options of a URL.
        durability: the commits that are synced to disk before they return. ``acknowledged``: those that a caller is
            told of. The beginning of a turn survives a killed process, and its end survives loss of power. ``strict``:
            all. ``relaxed``: none; all survive a killed process.
        timeout: seconds to wait for another writer or a free connection, and to try again after a lost connection.
        group_commit: let steps that several threads or tasks commit at the same time share a transaction and its sync.
            It is for databases with one writer at a time, such as a file of SQLite, and costs a lone caller nothing.
        prepare: let PostgreSQL prepare statements that come often. It makes no difference to SQLite, like the next two.
        pool_size: the most connections to PostgreSQL that are open.
        pool_idle: seconds after which an unused connection to PostgreSQL is closed.

    Attributes:
        durability: as given.
        dialect: the database underneath, for tests and tools.
        transactions: the transactions on it, likewise.

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
        self._calls = Gate()
        with GATE.inside():
            self.dialect = self.connect(url)
        self._open(group_commit=group_commit)
        renew_in_child(self)
        call_before_fork(self)

    def _open(self, *, group_commit: bool) -> None:
        from persistence.queries import COLUMNS
        from persistence.transactions import Transactions

        self._columns = COLUMNS
        is_synced = IS_SYNCED[self.durability]
        self.transactions = Transactions(self.dialect, is_synced, timeout=self._timeout, group_commit=group_commit)
        self._sql = self.transactions.sql.reads
        try:
            with GATE.inside(), self._calls.inside():
                self.transactions.migrate()
        except Exception as error:  # noqa: BLE001  # see `commit`
            told = self._told(error)
        except BaseException:
            self.close()
            raise
        else:
            return
        self.close()
        raise told

    def connect(self, url: str) -> Dialect:
        """Return the dialect for a URL. A subclass may put another in its place, such as one whose disk fails."""
        from persistence.dialects import Pooling, connect

        size, idle, prepare = self._pool
        return connect(url, timeout=self._timeout, pool=Pooling(size=size, idle=idle, prepare=prepare))

    def close(self) -> None:
        """Close all connections, after every other thread has left the store. Closing twice is a no-op."""
        super().close()
        with GATE.inside():
            self._calls.close()
            try:
                self.dialect.close()
            finally:
                self._calls.open()

    def before_fork(self) -> None:
        """Close the connections that a child must not inherit."""
        self.dialect.before_fork()

    def renew(self) -> None:
        """Start clean in a forked child: without waiting threads and without connections."""
        self._calls.renew()
        if self.transactions.group is not None:
            self.transactions.group.renew()
        self.dialect.renew()

    @property
    def epoch(self) -> int:
        """The number of connections to a server that were found lost; see :attr:`fsm.BaseStore.epoch`. SQLite: 0.

        A server that crashes loses its connections. Behind a pooler, not all of these losses are found.
        """
        return self.dialect.epoch

    def __repr__(self) -> str:
        return f"<SQLStore {self.dialect.shown}>"

    def _told(self, error: Exception, key: str | None = None) -> FSMError:
        """Return an exception of the database as an error of this library."""
        from persistence.error_messages import as_library_error

        return as_library_error(error, key, self.dialect)

    def commit(self, step: Step) -> None:
        """Write one step in one transaction.

        Args:
            step: what was decided; the version and the time of ``step.before`` are the guard.

        Raises:
            Conflict: the conversation was changed since the step's snapshot. Nothing was written.
            StoreError: the database refused. Nothing was written.
        """
        key = step.before.key
        try:
            with GATE.inside(), self._calls.inside():
                self.check_open(key)
                self.transactions.commit(step)
        except Exception as error:  # noqa: BLE001  # a driver, and what it calls, may raise anything
            told = self._told(error, key)
        else:
            return
        raise told  # here, where no exception is handled: it must not bring along another one's text

    def commit_many(self, steps: Sequence[Step]) -> list[Exception | None]:
        """Write steps of different conversations in as few transactions as possible.

        Returns:
            For each step the exception that :meth:`commit` would have raised, or None if it is stored.
        """
        with GATE.inside(), self._calls.inside():
            self.check_open()
            outcomes = self.transactions.commit_many(steps)
        return [error and self._told(error, step.before.key) for step, error in zip(steps, outcomes, strict=True)]

    @property
    def supports_batches(self) -> bool:
        """Whether steps share a transaction, so that handing over many at once is faster.

        False in a subclass that overrides ``commit``, which must not be bypassed.
        """
        return self.transactions.group is not None and type(self).commit is SQLStore.commit

    def load(self, key: str) -> Conversation | None:
        """Return the conversation of this key, or None."""
        found = read(Conversation, self._columns["conversation"], self._select("load", {"key": key}, key), key)
        return found[0] if found else None

    def dead(self, conversation: Conversation, session_ids: Collection[str]) -> frozenset[str]:
        """Return those of these provider session ids that were reported dead in the conversation."""
        pairs = zip_longest(*[iter(session_ids)] * 2)
        asked = [{"conversation": conversation.id, "first": first, "second": second} for first, second in pairs]
        return frozenset(row[0] for values in asked for row in self._select("dead", values, conversation.key))

    def context(
        self, conversation: Conversation, *, first_session: int, last_session: int, limit: int | None
    ) -> list[Message]:
        """Return the newest ``limit`` messages of succeeded turns of these sessions, oldest first."""
        sessions = {"first_session": first_session, "last_session": last_session}
        return self._newest(Message, "context", conversation, limit, **sessions)

    def unheard(
        self, conversation: Conversation, *, first_session: int, last_session: int, limit: int | None
    ) -> list[Message]:
        """Return the newest ``limit`` user messages with tool results of turns that did not succeed, oldest first."""
        sessions = {"first_session": first_session, "last_session": last_session}
        return self._newest(Message, "unheard", conversation, limit, **sessions)

    def turn_messages(self, conversation: Conversation, turn: Turn) -> list[Message]:
        """Return all messages of one turn, oldest first."""
        values = {"conversation": conversation.id, "turn": turn.number}
        return self._read(Message, "turn_messages", values, conversation.key)

    def turn_by_idempotency_key(self, conversation: Conversation, idempotency_key: str) -> Turn | None:
        """Return the turn that was begun with this idempotency key, or None."""
        values = {"conversation": conversation.id, "idempotency_key": idempotency_key}
        found = self._read(Turn, "turn_by_idempotency_key", values, conversation.key)
        return found[0] if found else None

    def messages(
        self, conversation: Conversation, *, limit: int | None = None, before: int | None = None
    ) -> list[Message]:
        """Return the newest ``limit`` messages before number ``before``, oldest first."""
        return self._newest(Message, "messages", conversation, limit, before=bound("before", before))

    def turns(self, conversation: Conversation, *, limit: int | None = None, before: int | None = None) -> list[Turn]:
        """Return the newest ``limit`` turns before number ``before``, oldest first."""
        return self._newest(Turn, "turns", conversation, limit, before=bound("before", before))

    def sessions(
        self, conversation: Conversation, *, limit: int | None = None, before: int | None = None
    ) -> list[Session]:
        """Return the newest ``limit`` sessions before number ``before``, oldest first."""
        return self._newest(Session, "sessions", conversation, limit, before=bound("before", before))

    def transitions(
        self, conversation: Conversation, *, limit: int | None = None, before: int | None = None
    ) -> list[Transition]:
        """Return the newest ``limit`` transitions before number ``before``, oldest first."""
        return self._newest(Transition, "transitions", conversation, limit, before=bound("before", before))

    def conversations(self, *, limit: int | None = None, after: str | None = None) -> list[Conversation]:
        """Return the first ``limit`` conversations in the order of their keys, from the one after key ``after`` on."""
        values = {"after": "" if after is None else check_key(after), "limit": bound("limit", limit)}
        return self._read(Conversation, "conversations", values)

    def count(self) -> int:
        """Return the number of conversations."""
        ((number,),) = self._select("count", {})
        return int(number)

    def running(
        self, *, until: datetime | None = None, limit: int = 100, after: Conversation | None = None
    ) -> list[Conversation]:
        """Return conversations with a running turn whose lease is over at ``until`` (None: any), oldest lease first.

        Raises:
            InvalidInput: no turn runs in ``after``, the last snapshot of the page before.
        """
        after_until, after_id = (-EVERYTHING, -EVERYTHING) if after is None else lease_of(after)
        values = {
            "until": EVERYTHING if until is None else micros(until),
            "after_until": after_until,
            "after_id": after_id,
            "limit": bound("limit", limit),
        }
        return self._read(Conversation, "running", values)

    def _newest(
        self, record: type[R], query: str, conversation: Conversation, limit: int | None, **values: int
    ) -> list[R]:
        """Return the records that a query finds, which has the newest first, oldest first."""
        values = {"conversation": conversation.id, "limit": bound("limit", limit), **values}
        return self._read(record, query, values, conversation.key)[::-1]

    def _read(self, record: type[R], query: str, values: Mapping[str, Any], key: str | None = None) -> list[R]:
        return read(record, self._columns[record.__name__.lower()], self._select(query, values, key), key)

    def _select(self, query: str, values: Mapping[str, Any], key: str | None = None) -> list[Any]:
        try:
            with GATE.inside(), self._calls.inside():
                self.check_open(key)
                return self.transactions.select(self._sql[query], values)
        except Exception as error:  # noqa: BLE001  # see `commit`
            told = self._told(error, key)
        raise told
