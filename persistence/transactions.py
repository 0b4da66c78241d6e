"""The transactions of a store: a step in one, or several that come at the same time; read, or tried again.

It promises that a step is stored whole or not at all, and never over somebody else's; that what became of a commit
whose connection was lost is read and never guessed; and that what a database raises is told as an error of this
library, never with the values of a row in it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar, TypeVarTuple

from peewee import IntegrityError, PeeweeException

from fsm._core import effects as fx
from fsm._core.effects import Step
from fsm.errors import Conflict, FSMError, StoreError
from fsm.fork import GATE, Gate, call_before_fork, renew_in_child
from fsm.records import Conversation
from persistence import reading
from persistence.dialects import Dialect, Refusal
from persistence.group_commit import Group
from persistence.queries import Statement, Statements, Write
from persistence.schema import migrate
from persistence.telling import told
from persistence.writes import Writes

__all__ = ["Transactions"]

R = TypeVar("R")
Ts = TypeVarTuple("Ts")

SAVEPOINT: Write = (Statement("SAVEPOINT step", ()), ())
RELEASE: Write = (Statement("RELEASE step", ()), ())

SHORTEST_PAUSE, LONGEST_PAUSE = 0.03, 0.5
"""How long to wait before something is tried again, in seconds; each pause is twice as long as the one before."""


class Transactions:
    """The transactions of one store.

    Args:
        dialect: its database.
        is_synced: whether the commit of a step must survive loss of power.
        timeout: how long to try again, in seconds.
        group_commit: let steps that come at the same time share a transaction, where that saves anything.

    Attributes:
        sql: the statements of the database.
        group: who shares a transaction with whom; None where nobody does.
    """

    def __init__(
        self, dialect: Dialect, is_synced: Callable[[Step], bool], *, timeout: float, group_commit: bool
    ) -> None:
        self.sql = Statements(dialect.database)
        self.group = Group(self.alone, self.together) if group_commit and dialect.one_writer else None
        self._dialect = dialect
        self._is_synced = is_synced
        self._timeout = timeout
        self._writes = Writes(self.sql)
        self._calls = Gate()
        renew_in_child(self)
        call_before_fork(self)

    def before_fork(self) -> None:
        """Close what a child must not inherit."""
        self._dialect.before_fork()

    def renew(self) -> None:
        """In a child: nobody is inside, nobody waits, and no connection is open."""
        self._calls.renew()
        if self.group is not None:
            self.group.renew()
        self._dialect.renew()

    def close(self) -> None:
        """Close all connections, after every other thread has left the store; a later call opens its own."""
        with GATE.inside():
            self._calls.close()
            try:
                self._dialect.close()
            finally:
                self._calls.open()

    def migrate(self) -> None:
        """Create the tables, or bring them up to date."""
        self._called(None, self._persistently, lambda _: migrate(self._dialect))

    def select(self, statement: Statement, values: Mapping[str, Any], key: str | None = None) -> list[Any]:
        """The rows that a statement finds; ``key`` names the conversation in an error."""
        return self._called(key, self._persistently, lambda _: self._select(statement, values))

    def commit(self, step: Step) -> None:
        """Write one step; see :meth:`persistence.SQLStore.commit`."""
        self._called(step.before.key, self.group.commit if self.group else self.alone, step)

    def commit_many(self, steps: Sequence[Step]) -> list[Exception | None]:
        """Write steps; see :meth:`persistence.SQLStore.commit_many`."""
        if self.group is None or len(steps) == 1:
            return [_error_of(self.commit, step) for step in steps]
        with GATE.inside(), self._calls.inside():
            outcomes = self.group.commit_many(steps)
        return [
            error and told(error, step.before.key, self._dialect) for step, error in zip(steps, outcomes, strict=True)
        ]

    def _called(self, key: str | None, operation: Callable[[*Ts], R], *values: *Ts) -> R:
        """A call of the store: a fork waits for its end, and whatever it raises is told as an error of this library."""
        try:
            with GATE.inside(), self._calls.inside():
                return operation(*values)
        except Exception as error:  # noqa: BLE001  # a driver, and what it calls, may raise anything
            story = told(error, key, self._dialect)
        raise story

    # One transaction

    def alone(self, step: Step, *, lost: bool = False) -> None:
        """Write a step in a transaction of its own.

        Args:
            step: the step.
            lost: whether it was tried before, and nobody knows what became of it.
        """
        self._persistently(self._commit, step, lost=lost)

    def _commit(self, lost: bool, step: Step) -> None:
        try:
            writes = self._writes.of(step)
            refusal = self._dialect.transact(writes, synced=self._is_synced(step))
            if refusal is not None:
                self._refuse(step, refusal)
        except BaseException as error:
            self._dialect.roll_back()
            # The one that was first may have been this very step, on the connection that was lost: committed before, or
            # still under way on the server, so that this attempt had to wait for it.
            if not (lost and isinstance(error, Conflict) and self._is_stored(step)):
                raise

    def together(self, steps: Sequence[Step]) -> list[Exception | None]:
        """Write steps in one transaction; for each, why it was refused."""
        return self._persistently(lambda _: self._commit_together(steps))

    def _commit_together(self, steps: Sequence[Step]) -> list[Exception | None]:
        try:
            self._dialect.begin(synced=any(self._is_synced(step) for step in steps))
            outcomes = [self._commit_inside(step) for step in steps]
            self._dialect.commit()
        except BaseException:
            self._dialect.roll_back()
            raise
        return outcomes

    def _commit_inside(self, step: Step) -> Exception | None:
        """Write a step of several, or leave no trace of it."""
        refusal = self._dialect.run((SAVEPOINT, *self._writes.of(step), RELEASE))
        if refusal is None:
            return None
        try:
            self._refuse(step, refusal)
        except (FSMError, IntegrityError) as error:
            self._dialect.database.execute_sql("ROLLBACK TO step")
            self._dialect.database.execute_sql("RELEASE step")
            return error

    def _refuse(self, step: Step, refusal: Refusal) -> NoReturn:
        """Raise what it means that the database refused to write."""
        if refusal.statement is self.sql.create and isinstance(refusal.error, IntegrityError):
            raise Conflict("somebody else began it first; load it and decide again", step.before.key) from refusal.error
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

    def _persistently(self, attempt: Callable[[bool, *Ts], R], *values: *Ts, lost: bool = False) -> R:
        """Attempt something again while that is safe: the database said so, or the connection was lost.

        ``attempt`` is told whether an earlier one lost its connection, so that nobody knows what became of it. That
        stays true, whatever the attempts after it come to.
        """
        deadline = time.monotonic() + self._timeout
        pause = SHORTEST_PAUSE
        while True:
            try:
                return self._dialect.within(attempt, lost, *values)
            except PeeweeException as error:
                self._dialect.learn(error)
                is_lost = self._dialect.is_lost(error)
                lost = lost or is_lost
                if time.monotonic() >= deadline or not (is_lost or self._dialect.may_retry(error)):
                    raise
            time.sleep(random.uniform(pause / 2, pause))  # noqa: S311  # jitter, no secret
            pause = min(2 * pause, LONGEST_PAUSE)

    def _is_stored(self, step: Step) -> bool:
        """What became of a commit whose connection was lost: read, never guessed.

        A step that wrote neither message nor move and was overtaken counts as not stored: its commit is then a
        conflict, and it is decided again.
        """
        after = step.after
        found = reading.read("conversation", self._select(self.sql.load, {"key": after.key}), reading.read_conversation)
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
                found = self._select(self.sql.page["messages"], values)
                return [message] == [reading.read_message(row) for row in found]
            case fx.LogTransition(move):
                values = {"conversation": conversation.id, "before": move.number + 1, "limit": 1}
                found = self._select(self.sql.page["transitions"], values)
                return [move] == [reading.read_transition(row, conversation.key) for row in found]
            case _:
                return None

    def _select(self, statement: Statement, values: Mapping[str, Any]) -> list[Any]:
        found: list[Any] = self._dialect.database.execute_sql(statement.sql, statement.bind(values)).fetchall()
        return found


def _error_of(commit: Callable[[Step], None], step: Step) -> Exception | None:
    try:
        commit(step)
    except Exception as error:  # noqa: BLE001  # for its own caller
        return error
    return None
