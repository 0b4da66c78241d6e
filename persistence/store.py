"""The store: one step, one transaction, guarded by the version it was decided from.

:class:`SQLStore` keeps conversations in SQLite or PostgreSQL. :meth:`SQLStore.commit` is the only method that writes;
it promises that a step is stored whole or not at all, and never over somebody else's
(:class:`~fsm.errors.Conflict`).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import zip_longest
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias, TypeVar, get_args

from peewee import IntegrityError, PeeweeException

from fsm import effects as fx
from fsm.effects import Step
from fsm.errors import Conflict, FSMError, InvalidInput, StoreError
from fsm.key import check_key
from fsm.records import Conversation, Message, Session, Transition, Turn
from persistence import rows
from persistence.dialects import Dialect, Refusal, connect
from persistence.grouping import Group
from persistence.schema import migrate
from persistence.statements import EVERYTHING, Statement, Statements
from persistence.writes import writes_of

__all__ = ["Durability", "SQLStore"]

Durability: TypeAlias = Literal["acknowledged", "strict", "relaxed"]
"""What survives: see :class:`SQLStore`."""

R = TypeVar("R")


class SQLStore:
    """Conversations in an SQL database. Any number of threads may use one store.

    Args:
        url: ``sqlite:///chat.db`` (relative), ``sqlite:////var/lib/chat.db`` (absolute) or ``sqlite:///:memory:``.
            The file is created if it is missing, readable by its owner only. Or
            ``postgresql://user:password@host/name`` (extra ``postgres``). Either way the tables are created and
            migrated.
        durability: which commits are synced to disk before they return. ``acknowledged``: those that a caller is told
            of; the beginning of a turn survives a killed process, its end survives loss of power. ``strict``: all.
            ``relaxed``: none; all survive a killed process.
        timeout: how long to wait for another writer, in seconds.
        group_commit: let steps that are committed at the same time by several threads share a transaction, and its
            sync, where a database has one writer at a time: a file of SQLite. A lone caller does not notice.

    Raises:
        StoreError: the URL, the path or the file is not usable; the message says why.
        SchemaVersionError: a newer version of this library wrote the database.

    >>> with SQLStore("sqlite:///:memory:") as store:
    ...     store.load("ticket-42") is None
    True
    """

    def __init__(
        self, url: str, *, durability: Durability = "acknowledged", timeout: float = 10.0, group_commit: bool = True
    ) -> None:
        if durability not in get_args(Durability):
            raise InvalidInput(f"durability {durability!r} is none of {', '.join(get_args(Durability))}")
        self.durability: Durability = durability
        self._timeout = timeout
        self._dialect = self._connect(url)
        self._database = self._dialect.database
        self._sql = Statements(self._database)
        groups = group_commit and self._dialect.one_writer
        self._group = Group(self._commit_alone, self._commit_together) if groups else None
        try:
            with self._errors(None):
                self._persistently(lambda _: migrate(self._dialect))
        except BaseException:
            self.close()
            raise

    def _connect(self, url: str) -> Dialect:
        """The dialect for a URL. Crash tests put one in its place whose disk fails when they say so."""
        return connect(url, timeout=self._timeout)

    def close(self) -> None:
        """Close all connections."""
        self._dialect.close()

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
        with self._errors(step.before.key):
            self._group.commit(step) if self._group else self._commit_alone(step)

    def _commit_alone(self, step: Step) -> None:
        self._persistently(lambda lost: self._commit(step, lost=lost))

    def _commit(self, step: Step, *, lost: bool) -> None:
        try:
            with self._transaction():
                self._judge(step, self._dialect.transact(writes_of(step, self._sql), synced=self._synced(step)))
        except Conflict:
            # Whoever was first may have been this very step, on the connection that was lost: committed before, or
            # still under way on the server, so that this attempt had to wait for it.
            if not (lost and self._is_stored(step)):
                raise

    def _commit_together(self, steps: Sequence[Step]) -> list[Exception | None]:
        """Write steps in one transaction; for each, why it was refused."""

        def attempt(_: bool) -> list[Exception | None]:
            with self._transaction():
                self._dialect.begin(synced=any(self._synced(step) for step in steps))
                return [self._commit_inside(step) for step in steps]

        return self._persistently(attempt)

    def _commit_inside(self, step: Step) -> Exception | None:
        """Write a step of several, or leave no trace of it."""
        self._database.execute_sql("SAVEPOINT step")
        refused = None
        try:
            self._judge(step, self._dialect.run(writes_of(step, self._sql)))
        except (FSMError, IntegrityError) as error:
            refused = error
            self._database.execute_sql("ROLLBACK TO step")
        self._database.execute_sql("RELEASE step")
        return refused

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Commit what the block wrote, or undo it."""
        try:
            yield
            self._database.execute_sql("COMMIT")
        except BaseException:
            self._dialect.roll_back()
            raise

    def _judge(self, step: Step, refusal: Refusal | None) -> None:
        """Raise what it means that the database refused to write."""
        if refusal is None:
            return
        if refusal.statement is self._sql.create and isinstance(refusal.error, IntegrityError):
            raise Conflict("somebody else began it first; load it and decide again", step.before.key) from refusal.error
        if refusal.error is not None:
            raise refusal.error
        if refusal.statement is self._sql.move:
            version = step.before.version
            raise Conflict(f"it is not at version {version} any more; load it and decide again", step.before.key)
        raise StoreError(
            "a row that this step changes is missing or already closed; the database was changed by something "
            "else. Nothing was written"
        )

    def _persistently(self, attempt: Callable[[bool], R]) -> R:
        """Attempt something again while that is safe: the database said so, or the connection was lost.

        ``attempt`` is told whether an earlier one lost its connection, so that nobody knows what became of it.
        """
        deadline = time.monotonic() + self._timeout
        lost = False
        while True:
            try:
                with self._dialect.scope():
                    return attempt(lost)
            except PeeweeException as error:
                lost = lost or self._dialect.is_lost(error)
                if time.monotonic() >= deadline or not (lost or self._dialect.may_retry(error)):
                    raise
            time.sleep(random.uniform(0.01, 0.05))  # noqa: S311  # jitter, no secret

    def _is_stored(self, step: Step) -> bool:
        """What became of a commit whose connection was lost: read, never guessed.

        A step that wrote neither message nor move and was overtaken counts as not stored: its commit is then a
        conflict, and it is decided again.
        """
        after = step.after
        found = rows.read("conversation", self._select(self._sql.load, {"key": after.key}), rows.read_conversation)
        if not found or found[0].id != after.id or found[0].version < after.version:
            return False
        if found[0].version == after.version:
            return found[0] == after
        kept = [self._is_there(after, effect) for effect in step.effects]
        return True in kept and False not in kept

    def _is_there(self, conversation: Conversation, effect: fx.Effect) -> bool | None:
        """Whether the row of an effect is there; None if that can't be told from any other's."""
        match effect:
            case fx.AddMessage(message):
                values = {"conversation": conversation.id, "before": message.number + 1, "limit": 1}
                return [message] == [rows.read_message(row) for row in self._select(self._sql.page["messages"], values)]
            case fx.LogTransition(move):
                values = {"conversation": conversation.id, "before": move.number + 1, "limit": 1}
                found = self._select(self._sql.page["transitions"], values)
                return [move] == [rows.read_transition(row, conversation.key) for row in found]
            case _:
                return None

    def _select(self, statement: Statement, values: Mapping[str, Any]) -> list[Any]:
        found: list[Any] = self._database.execute_sql(statement.sql, statement.bind(values)).fetchall()
        return found

    def _synced(self, step: Step) -> bool:
        return self.durability == "strict" or (self.durability == "acknowledged" and step.acknowledged)

    # Reading

    def load(self, key: str) -> Conversation | None:
        """The conversation of this key, or None."""
        found = self._read("conversation", self._sql.load, {"key": key}, rows.read_conversation, key)
        return found[0] if found else None

    def dead(self, conversation: Conversation, session_ids: Collection[str]) -> frozenset[str]:
        """Those of these provider session ids that were reported dead in the conversation."""
        found: set[str] = set()
        for first, second in zip_longest(*[iter(session_ids)] * 2):
            values = {"conversation": conversation.id, "first": first, "second": second}
            found.update(row[0] for row in self._rows(self._sql.dead, values, conversation.key))
        return frozenset(found)

    def context(
        self, conversation: Conversation, *, first_session: int, last_session: int, limit: int | None
    ) -> list[Message]:
        """The newest ``limit`` messages of succeeded turns of these sessions, oldest first."""
        values = {
            "conversation": conversation.id,
            "first_session": first_session,
            "last_session": last_session,
            "limit": _bound("limit", limit),
        }
        return self._read("message", self._sql.context, values, rows.read_message, conversation.key)[::-1]

    def turn_messages(self, conversation: Conversation, turn: Turn) -> list[Message]:
        """All messages of one turn, oldest first."""
        values = {
            "conversation": conversation.id,
            "first": turn.first_message,
            "last": turn.last_message,
            "turn": turn.number,
        }
        return self._read("message", self._sql.turn_messages, values, rows.read_message, conversation.key)

    def turn_by_idempotency_key(self, conversation: Conversation, idempotency_key: str) -> Turn | None:
        """The turn that was begun with this idempotency key, or None."""
        values = {"conversation": conversation.id, "idempotency_key": idempotency_key}
        found = self._read("turn", self._sql.turn_by_idempotency_key, values, rows.read_turn, conversation.key)
        return found[0] if found else None

    def messages(
        self, conversation: Conversation, *, limit: int | None = None, before: int | None = None
    ) -> list[Message]:
        """The newest ``limit`` messages before number ``before``, oldest first."""
        return self._page("message", "messages", conversation, limit, before, rows.read_message)

    def turns(self, conversation: Conversation, *, limit: int | None = None, before: int | None = None) -> list[Turn]:
        """The newest ``limit`` turns before number ``before``, oldest first."""
        return self._page("turn", "turns", conversation, limit, before, rows.read_turn)

    def sessions(
        self, conversation: Conversation, *, limit: int | None = None, before: int | None = None
    ) -> list[Session]:
        """The newest ``limit`` sessions before number ``before``, oldest first."""
        return self._page("session", "sessions", conversation, limit, before, rows.read_session)

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
            lambda row: rows.read_transition(row, conversation.key),
        )

    def conversations(self, *, limit: int | None = None, after: str | None = None) -> list[Conversation]:
        """The first ``limit`` conversations in the order of their keys, from the one after key ``after`` on."""
        after = "" if after is None else check_key(after)
        values = {"after": after, "limit": _bound("limit", limit)}
        return self._read("conversation", self._sql.conversations, values, rows.read_conversation)

    def running(self, *, until: datetime | None = None, limit: int = 100) -> list[Conversation]:
        """Conversations with a running turn whose lease is over at ``until`` (None: any), the oldest lease first."""
        values = {"until": EVERYTHING if until is None else rows.micros(until), "limit": _bound("limit", limit)}
        return self._read("conversation", self._sql.running, values, rows.read_conversation)

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
            "limit": _bound("limit", limit),
            "before": _bound("before", before),
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
        return rows.read(table, self._rows(statement, values, key), reader, key)

    def _rows(self, statement: Statement, values: Mapping[str, Any], key: str | None = None) -> list[Any]:
        with self._errors(key):
            return self._persistently(lambda _: self._select(statement, values))

    @contextmanager
    def _errors(self, key: str | None) -> Iterator[None]:
        """What the database raises, as an error of this library; never with the values of a row in it."""
        try:
            yield
        except FSMError as error:
            error.key = error.key or key
            raise
        except MemoryError as error:  # how Python's driver tells that SQLite has none
            raise StoreError("the database has run out of memory; nothing of this step was stored", key) from error
        except PeeweeException as error:
            what = str(error).partition("\n")[0] if not isinstance(error, IntegrityError) else "a row was refused"
            outcome = (
                "load the conversation to see what was stored"
                if self._dialect.is_lost(error)
                else "nothing of this step was stored"
            )
            raise StoreError(f"the database can't be used ({type(error).__name__}: {what}); {outcome}", key) from error


def _bound(name: str, bound: int | None) -> int:
    """A limit, or a number to stop before; everything for None."""
    if bound is not None and not 0 <= bound <= EVERYTHING:
        raise InvalidInput(f"{name} is {bound}; it must not be negative")
    return EVERYTHING if bound is None else bound
