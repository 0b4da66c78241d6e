"""The commits of one running turn: each is decided from the newest snapshot, and again if another writer was first.

A turn's writes are stored once, on top of the newest rows, also if other writers commit meanwhile. If a database
crashed and forgot commits of the turn, they are stored again first.

Each commit is a script (:mod:`fsm._runtime.scripts`). The lease is renewed in the keeper's own thread.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TypeVar

import attrs

from fsm._core import decisions as decide
from fsm._core.effects import EndTurn, StartTurn, Step
from fsm._core.turn import Answer
from fsm._runtime.log import LOGGER
from fsm._runtime.scripts import Script, retried
from fsm._runtime.settings import Settings
from fsm._runtime.store_errors import store_errors
from fsm.errors import Conflict, ConversationNotFound, FSMError, StoreError, TurnSuperseded
from fsm.events import Result
from fsm.records import Conversation, TurnStatus
from fsm.store import Store

__all__ = ["TurnCommits"]

S = TypeVar("S", Step, Step | None)


class TurnCommits:
    """The commits of one running turn.

    The turn's reader calls these methods; the keeper's thread calls :meth:`renew`. If the two commit at the same time,
    one of them gets a conflict.

    Args:
        store: where the conversation is kept.
        settings: how the manager behaves.
        owner: the name under which the turn runs.
        begun: the step that begins it.

    Attributes:
        conversation: the newest snapshot.
    """

    def __init__(self, store: Store, settings: Settings, owner: str, begun: Step) -> None:
        self.conversation = begun.after
        self._store = store
        self._settings = settings
        self._owner = owner
        self._turn = next(effect.turn for effect in begun.effects if isinstance(effect, StartTurn))
        self._steps = [begun]
        self._ends: set[tuple[TurnStatus, datetime | None]] = set()
        self._epoch = self._store_epoch

    # The decisions

    def heal(self, result: Result) -> Script[Step]:
        """Replace the session that the turn found dead; raises what :meth:`finish` raises."""

        def decision(conversation: Conversation) -> Step:
            return decide.heal(
                conversation,
                turn=self._turn.number,
                owner=self._owner,
                result=result,
                now=self._settings.clock(),
                lease=self._settings.lease_length,
                dead=_known_dead(self._store, conversation, result.session_id),
            )

        return self._make(decision)

    def finish(self, result: Result, answer: Answer, fitted: int | None) -> Script[Step]:
        """End the turn with its result.

        Raises:
            TurnSuperseded: another worker or a reset has ended the turn.
            ConversationNotFound: the conversation was deleted.
            StoreError: the store refused.
        """

        def decision(conversation: Conversation) -> Step:
            return decide.finish(
                conversation,
                turn=self._turn.number,
                owner=self._owner,
                result=result,
                answer=answer,
                now=self._settings.clock(),
                dead=_known_dead(self._store, conversation, result.session_id),
                fitted=fitted,
            )

        return self._make(decision)

    def interrupt(self, answer: Answer) -> Script[TurnStatus]:
        """End the turn without a result.

        Args:
            answer: the answer so far.

        Returns:
            ``interrupted``. If this worker had stored an end although its commit was cut off, the status of that.

        Raises:
            TurnSuperseded, ConversationNotFound, StoreError: see :meth:`finish`.
        """
        try:
            yield from self._make(self._interruption(attrs.evolve(answer, result=None)))
        except TurnSuperseded:
            stored = self._stored_end()
            if stored is None:
                raise
            return stored
        return TurnStatus.INTERRUPTED

    def record_late(self, answer: Answer, resumed: str | None) -> Script[None]:
        """Keep the answer with a turn that another worker or a reset has ended (G10).

        Raises:
            StoreError: the database has forgotten the turn, and another turn has its number; or the store refused.
        """
        named = None if answer.result is None else answer.result.session_id

        def decision(conversation: Conversation) -> Step | None:
            return decide.record_late_result(
                conversation,
                turn=self._turn.number,
                answer=answer,
                now=self._settings.clock(),
                resumed=resumed,
                dead=_known_dead(self._store, conversation, resumed, named),
            )

        self.conversation = yield from self._look_again()
        yield from self._make(decision)

    def withdraw(self) -> Script[None]:
        """End a turn whose begin was cut off, so that it may or may not be stored; if it is not, write nothing."""
        self._steps.clear()
        with suppress(StoreError, ConversationNotFound, TurnSuperseded):
            yield from self._make(self._interruption(Answer()))

    def release(self) -> Script[None]:
        """Try once to end a turn whose answer could not be stored, so that nobody has to wait for its lease."""
        with suppress(FSMError):
            yield from self._make(self._interruption(Answer()))

    def _interruption(self, answer: Answer) -> Callable[[Conversation], Step]:
        return lambda conversation: decide.interrupt(
            conversation, turn=self._turn.number, owner=self._owner, answer=answer, now=self._settings.clock()
        )

    # The lease

    @property
    def lease_left(self) -> timedelta:
        """The rest of the lease, by the manager's clock."""
        running = self.conversation.running
        return timedelta.max if running is None else running.until - self._settings.clock()

    def extend(self) -> Script[Step]:
        """Lengthen the lease; raises what :meth:`finish` raises."""
        return self._make(
            lambda conversation: decide.extend(
                conversation,
                turn=self._turn.number,
                owner=self._owner,
                now=self._settings.clock(),
                lease=self._settings.lease_length,
            )
        )

    def renew(self, signed_at: datetime) -> None:
        """Lengthen the lease if half of it is over. The keeper's thread calls this, so it raises nothing.

        Args:
            signed_at: the time of the provider's newest sign of life; the lease counts from there.
        """
        try:
            if not self._renew(self.conversation, signed_at):
                found = self._store.load(self.conversation.key)
                if found is not None and found.id == self.conversation.id:
                    self._renew(found, signed_at)
        except TurnSuperseded:
            return  # the reader of the turn gets this error at its next commit
        except Exception as error:  # noqa: BLE001  # a store is somebody else's code; the keeper tries again soon
            fields = {"conversation": self.conversation.key, "turn": self._turn.number, "error": type(error).__name__}
            LOGGER.warning("lease.renew_failed", extra=fields)

    def _renew(self, before: Conversation, signed_at: datetime) -> bool:
        """Lengthen the lease of this snapshot; return False if it is not the newest."""
        settings, running = self._settings, before.running
        now, until = settings.clock(), signed_at + settings.lease_length
        if running is None or running.until - now > settings.lease_length / 2 or until <= max(now, running.until):
            return True
        step = decide.extend(before, turn=self._turn.number, owner=self._owner, now=now, lease=until - now)
        try:
            self._store.commit(step)
        except Conflict:
            return False
        if self.conversation is before:
            self._steps.append(step)
            self.conversation = step.after
        return True

    # One commit

    def _make(self, decision: Callable[[Conversation], S]) -> Script[S]:
        """Decide and commit, if there is anything to; if another writer was first, load and decide again."""

        def attempt(number: int) -> Script[S]:
            if number:
                self.conversation = yield from self._look_again()
            step = decision(self.conversation)
            if step is not None:
                self._ends |= {(end.status, end.at) for end in step.effects if isinstance(end, EndTurn)}
                yield step
                self.conversation = step.after
                self._steps.append(step)
            return step

        return retried(attempt)

    def _look_again(self) -> Script[Conversation]:
        """Return the newest snapshot, after storing again the commits of this turn that the database forgot.

        A server that crashes forgets commits that were not synced. With ``durability="acknowledged"`` these are all
        commits of a turn but its end. If nothing else was committed since, the same steps can be stored again.

        Raises:
            ConversationNotFound: the conversation was deleted, and must not come back.
            StoreError: something else has happened, and another turn has this one's number.
        """
        key = self.conversation.key
        with store_errors(key):
            found = self._store.load(key)
        may_be_forgotten = self._store_epoch != self._epoch
        for number, step in enumerate(self._steps):
            if step.before == found or (found is None and step.before.version == 0 and may_be_forgotten):
                return (yield from self._store_again(self._steps[number:]))
        if found is None or (found.id != self.conversation.id and not may_be_forgotten):
            raise ConversationNotFound(
                f"it was deleted while turn {self._turn.number} ran; nothing of that turn is stored", key
            )
        self._check_number(found)
        return found

    def _store_again(self, forgotten: list[Step]) -> Script[Conversation]:
        """Store steps once more, and return the snapshot after the last."""
        key = self.conversation.key
        yield from forgotten
        fields = {"conversation": key, "turn": self._turn.number, "version": forgotten[0].before.version}
        LOGGER.warning("store.restore_completed", extra=fields)
        return forgotten[-1].after

    def _check_number(self, conversation: Conversation) -> None:
        """Raise :class:`~fsm.errors.StoreError` unless the stored turn of this number is this one."""
        number = self._turn.number
        with store_errors(conversation.key):
            found = self._store.turns(conversation, limit=1, before=number + 1)
        mine = (self._turn.first_message, self._turn.started_at)
        if [(turn.first_message, turn.started_at) for turn in found] != [mine]:
            raise StoreError(
                f"the database has lost the beginning of turn {number}, as a server that crashes may, and another turn "
                "has taken its place; nothing of it is stored. Send the message again",
                self.conversation.key,
            )

    def _stored_end(self) -> TurnStatus | None:
        """Return the status with which this worker has ended the turn, or None if another ended it."""
        with store_errors(self.conversation.key):
            found = self._store.turns(self.conversation, limit=1, before=self._turn.number + 1)
        return next((turn.status for turn in found if (turn.status, turn.ended_at) in self._ends), None)

    @property
    def _store_epoch(self) -> int:
        """The store's :attr:`~fsm.BaseStore.epoch`; 0 for a store that has none."""
        return int(getattr(self._store, "epoch", 0))


def _known_dead(store: Store, conversation: Conversation, *session_ids: str | None) -> frozenset[str]:
    """Return the ids, of these, that were reported dead. The id that is held is never among them (G2)."""
    unknown = {named for named in session_ids if named is not None and named != conversation.session_id}
    if not unknown:
        return frozenset()
    with store_errors(conversation.key):
        return store.dead(conversation, unknown)
