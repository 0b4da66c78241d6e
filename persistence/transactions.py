"""The transactions of a store: read, write one step, write several together, and retry where that is safe.

A step is stored whole or not at all, and never over another writer's. If the connection is lost during a commit, the
outcome is read and never guessed.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from peewee import IntegrityError, PeeweeException

from fsm import Conversation, Message, Transition
from fsm.errors import Conflict, FSMError, StoreError
from fsm.store import AddMessage, Effect, LogTransition, Step
from persistence.dialects.base import Dialect, Refusal
from persistence.group_commit import GroupCommit
from persistence.mapping import read
from persistence.migrate import migrate
from persistence.queries import COLUMNS, Statement, Statements, Write

__all__ = ["Transactions"]

SAVEPOINT: Write = (Statement(sql="SAVEPOINT step"), ())
RELEASE: Write = (Statement(sql="RELEASE step"), ())

SHORTEST_PAUSE, LONGEST_PAUSE = 0.03, 0.5
"""The pause before something is tried again, in seconds; each pause is twice as long as the one before."""


class _Attempts:
    """The attempts at one transaction, until one succeeds or fails for good.

    Args:
        dialect: the database.
        timeout: the seconds for which to try again.
        lost: whether the transaction was tried before, and its outcome is not known.

    Attributes:
        lost: whether an attempt has lost its connection, so that its outcome is not known. It stays true, whatever
            later attempts come to.
    """

    def __init__(self, dialect: Dialect, timeout: float, *, lost: bool = False) -> None:
        self.lost = lost
        self._dialect = dialect
        self._deadline = time.monotonic() + timeout
        self._pause = SHORTEST_PAUSE

    def pause_after(self, error: PeeweeException) -> None:
        """Wait before the next attempt; raise the error if there is to be none."""
        self._dialect.learn(error)
        is_lost = self._dialect.is_lost(error)
        self.lost = self.lost or is_lost
        if time.monotonic() >= self._deadline or not (is_lost or self._dialect.may_retry(error)):
            raise error
        time.sleep(random.uniform(self._pause / 2, self._pause))  # noqa: S311  # jitter, no secret
        self._pause = min(2 * self._pause, LONGEST_PAUSE)


class Transactions:
    """The transactions of one store.

    Args:
        dialect: the database.
        is_synced: tells whether the commit of a step must survive loss of power.
        timeout: the seconds for which to try again.
        group_commit: let steps that come at the same time share a transaction, where that saves anything.

    Attributes:
        sql: the statements of the database.
        group: lets steps share a transaction; None if none do.
        commit: writes one step, in a transaction that it may share.
    """

    def __init__(
        self, dialect: Dialect, is_synced: Callable[[Step], bool], *, timeout: float, group_commit: bool
    ) -> None:
        self.sql = Statements(dialect.database)
        self.group = GroupCommit(self.alone, self.together) if group_commit and dialect.one_writer else None
        self.commit = self.alone if self.group is None else self.group.commit
        self._dialect = dialect
        self._is_synced = is_synced
        self._timeout = timeout

    def migrate(self) -> None:
        """Create the tables, or bring them up to date."""
        attempts = self._attempts()
        while True:
            try:
                with self._dialect.connection():
                    return migrate(self._dialect)
            except PeeweeException as error:
                attempts.pause_after(error)

    def select(self, statement: Statement, values: Mapping[str, Any]) -> list[Any]:
        """Return the rows that a statement finds."""
        attempts = self._attempts()
        while True:
            try:
                with self._dialect.connection():
                    return self._dialect.fetch(statement, statement.bind(values))
            except PeeweeException as error:
                attempts.pause_after(error)

    def commit_many(self, steps: Sequence[Step]) -> list[Exception | None]:
        """Write steps, in transactions that they may share; return for each the reason of its refusal, or None."""
        if self.group is not None:
            return self.group.commit_many(steps)
        return [self._outcome(step) for step in steps]

    def _outcome(self, step: Step) -> Exception | None:
        try:
            self.alone(step)
        except Exception as error:  # noqa: BLE001  # its own caller raises it
            return error
        return None

    # One transaction

    def alone(self, step: Step, *, lost: bool = False) -> None:
        """Write one step in one transaction.

        Args:
            step: the step.
            lost: whether it was tried before, and the outcome is not known.
        """
        attempts = self._attempts(lost=lost)
        while True:
            try:
                with self._dialect.connection():
                    try:
                        refusal = self._dialect.transact(self.sql.writes(step), synced=self._is_synced(step))
                        if refusal is not None:
                            self._refuse(step, refusal)
                    except BaseException as error:
                        self._dialect.roll_back()
                        # The writer that was first may have been this step, on the connection that was lost.
                        if not (attempts.lost and isinstance(error, Conflict) and self.is_stored(step)):
                            raise
                    return
            except PeeweeException as error:
                attempts.pause_after(error)

    def together(self, steps: Sequence[Step]) -> list[Exception | None]:
        """Write steps in one transaction; return for each the reason of its refusal, or None."""
        attempts = self._attempts()
        while True:
            try:
                with self._dialect.connection():
                    return self._write_together(steps)
            except PeeweeException as error:
                attempts.pause_after(error)

    def _write_together(self, steps: Sequence[Step]) -> list[Exception | None]:
        try:
            self._dialect.begin(synced=any(self._is_synced(step) for step in steps))
            outcomes = [self._write_inside(step) for step in steps]
            self._dialect.commit()
        except BaseException:
            self._dialect.roll_back()
            raise
        return outcomes

    def _write_inside(self, step: Step) -> Exception | None:
        """Write one of several steps, or nothing of it."""
        refusal = self._dialect.run((SAVEPOINT, *self.sql.writes(step), RELEASE))
        if refusal is None:
            return None
        try:
            self._refuse(step, refusal)
        except (FSMError, IntegrityError) as error:
            self._dialect.database.execute_sql("ROLLBACK TO step")
            self._dialect.database.execute_sql("RELEASE step")
            return error

    def _refuse(self, step: Step, refusal: Refusal) -> NoReturn:
        """Raise the reason for which the database refused to write."""
        if refusal.statement is self.sql.create and isinstance(refusal.error, IntegrityError):
            raise Conflict(
                "another writer began it first; load it and decide again", step.before.key
            ) from refusal.error
        if refusal.error is not None:
            raise refusal.error
        if refusal.statement is self.sql.move:
            version = step.before.version
            raise Conflict(f"it is not at version {version} any more; load it and decide again", step.before.key)
        raise StoreError(
            "a row that this step changes is missing or already closed; the database was changed by something "
            "else. Nothing was written"
        )

    # Again

    def _attempts(self, *, lost: bool = False) -> _Attempts:
        return _Attempts(self._dialect, self._timeout, lost=lost)

    def is_stored(self, step: Step) -> bool:
        """Return whether a commit whose connection was lost is stored: it is read, never guessed.

        A step that wrote neither message nor transition and was overtaken counts as not stored. Its commit is then a
        conflict, and it is decided again.
        """
        after = step.after
        rows = self._dialect.fetch(self.sql.reads["load"], (after.key,))
        found = read(Conversation, COLUMNS["conversation"], rows)
        if not found or found[0].id != after.id or found[0].version < after.version:
            return False
        if found[0].version == after.version:
            return found[0] == after
        kept = [self._is_there(after, effect) for effect in step.effects]
        return True in kept and False not in kept

    def _is_there(self, conversation: Conversation, effect: Effect) -> bool | None:
        """Return whether the row of an effect is there; None if it can't be told from the row of another."""
        match effect:
            case AddMessage(message):
                rows = self._newest("messages", conversation, message.number)
                return [message] == read(Message, COLUMNS["message"], rows)
            case LogTransition(move):
                rows = self._newest("transitions", conversation, move.number)
                return [move] == read(Transition, COLUMNS["transition"], rows, key=conversation.key)
            case _:
                return None

    def _newest(self, page: str, conversation: Conversation, number: int) -> list[Any]:
        statement = self.sql.reads[page]
        values = {"conversation": conversation.id, "before": number + 1, "limit": 1}
        return self._dialect.fetch(statement, statement.bind(values))
