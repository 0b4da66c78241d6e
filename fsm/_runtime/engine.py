"""The one code path behind every manager: load, decide, commit, ask the provider, decide, commit.

It is written as coroutines over an :class:`~fsm._runtime.adapters.Adapter`, which calls the store and the provider. The
adapter of the synchronous manager never waits on an event loop, so its coroutines run to their end in one go. The
asynchronous manager awaits them on its loop. Batch is stream read to its end. So sync and async, batch and stream can't
differ (G12).

An :class:`Engine` begins turns. Once begun, a turn runs by itself (:mod:`fsm._runtime.turn_runner`) and never calls
back. The work on the store is in scripts, each of which the adapter runs as a whole (:mod:`fsm._runtime.scripts`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from attrs import frozen

from fsm._core import decisions as decide
from fsm._core.effects import Step
from fsm._core.validation import check_key, json_object, new_id
from fsm._runtime.adapters import Adapter
from fsm._runtime.commands import Commands
from fsm._runtime.log import LOGGER
from fsm._runtime.observers import tell_observers
from fsm._runtime.replay import ReplayedTurn, stored_reply
from fsm._runtime.requests import Requests
from fsm._runtime.scripts import Script, retried
from fsm._runtime.settings import Settings
from fsm._runtime.store_errors import store_errors
from fsm._runtime.turn_commits import TurnCommits
from fsm._runtime.turn_queue import TurnQueue
from fsm._runtime.turn_runner import TurnRunner
from fsm._runtime.worker import Worker
from fsm.content import Block, Content, as_blocks
from fsm.errors import Closed, Conflict, ConversationBusy, FSMError, InvalidInput
from fsm.fork import renew_in_child
from fsm.records import Conversation, Turn, TurnStatus
from fsm.store import Store

__all__ = ["Engine"]


@frozen(kw_only=True)
class _Question:
    """A message that was checked and is to begin a turn.

    Attributes:
        key: the conversation.
        content: the user's message.
        idempotency_key: the caller's name for the turn, or None.
        metadata: the fields to merge into the conversation's metadata.
    """

    key: str
    content: tuple[Block, ...]
    idempotency_key: str | None
    metadata: Mapping[str, Any]


class Engine:
    """Runs the turns of one manager. Any number of threads and tasks may use it.

    Args:
        store: where the conversations are kept.
        adapter: calls the store and the provider.
        settings: how the manager behaves.
        worker: the worker that runs the turns; None for one of this process.
    """

    def __init__(self, store: Store, adapter: Adapter, settings: Settings, worker: Worker | None = None) -> None:
        self.worker = worker or Worker()
        self.adapter = adapter
        self.settings = settings
        self.commands = Commands(store, settings.clock, self.worker)
        self.is_closed = False
        self._store = store
        self._requests = Requests(store, settings)
        self.renew()
        renew_in_child(self)

    def renew(self) -> None:
        """Start with an empty queue, as in a forked child: the callers that wait belong to the parent."""
        self.queue = TurnQueue(self.settings, self.adapter)

    def check_open(self, key: str | None = None) -> None:
        """Refuse to go on if the manager is closed.

        Raises:
            Closed: it is closed. Turns that had begun may be read to their end.
        """
        if self.is_closed:
            raise Closed("the manager is closed; make another one", key)

    async def begin(
        self,
        key: str,
        content: Content,
        *,
        idempotency_key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        busy_timeout: float | None = None,
    ) -> TurnRunner | ReplayedTurn:
        """Begin a turn: it is stored before the provider hears of it (G8).

        Args:
            key: the conversation.
            content: the user's message.
            idempotency_key: the caller's name for the turn; a turn that has it already is replayed (G13).
            metadata: the fields to merge into the conversation's metadata.
            busy_timeout: the seconds to wait for another turn; None for as long as the settings say.

        Raises:
            InvalidInput: an argument is not usable. Nothing was written.
            ConversationBusy: another turn is running, and did not end in time.
            StoreError: the turn could not be stored; the provider has not heard of it.
        """
        self.check_open(key)
        question = self._checked(key, content, idempotency_key, metadata)
        begun: list[TurnRunner] = []
        try:
            turn, step = await self.queue.until_free(key, partial(self._begin, question, begun), busy_timeout)
        except BaseException:
            for cut_off in begun:
                with self.adapter.shield():
                    await cut_off.withdraw()
            raise
        if step is not None:
            tell_observers(self.settings.observers, step)
            fields = {"conversation": key, "turn": turn.number, "state": step.after.state.value}
            LOGGER.debug("turn.run_started", extra=fields)
        turn.run()
        return turn

    async def reset(self, key: str, *, reason: str, force: bool) -> Conversation:
        """Start over with a new session; see :meth:`fsm.SessionManager.reset`."""
        self.check_open(key)
        attempt = partial(self.commands.reset, key, reason=reason, force=force, provider=self.settings.provider)
        step = await self.queue.until_free(check_key(key), attempt)
        tell_observers(self.settings.observers, step)
        return step.after

    async def recover(self) -> list[Conversation]:
        """End the running turns whose owner is gone or whose lease is over (G9)."""
        self.check_open()
        steps = await self.adapter.call(self.commands.recover)
        for step in steps:
            tell_observers(self.settings.observers, step)
        return [step.after for step in steps]

    def _checked(
        self, key: str, content: Content, idempotency_key: str | None, metadata: Mapping[str, Any] | None
    ) -> _Question:
        """Return the question, if all of it can be stored and the provider takes its content."""
        check_key(key)
        if idempotency_key is not None:
            check_key(idempotency_key, "idempotency key")
        blocks = as_blocks(content, key)
        try:
            self.settings.check_content(blocks)
        except InvalidInput as error:
            raise error.completed(key=key) from error.__cause__
        return _Question(key=key, content=blocks, idempotency_key=idempotency_key, metadata=json_object(metadata, key))

    # On the store

    def _begin(
        self, question: _Question, begun: list[TurnRunner]
    ) -> Script[tuple[TurnRunner | ReplayedTurn, Step | None]]:
        """Load, decide and commit; if another writer was first, do it again.

        Args:
            question: the message.
            begun: holds the turn while it is or may be stored, for a caller that is cut off before this returns.

        Returns:
            The turn, and the step that began it; None for a turn that is replayed.
        """

        def attempt(_: int) -> Script[tuple[TurnRunner | ReplayedTurn, Step | None]]:
            with store_errors(question.key):
                conversation = self._store.load(question.key) or self._new(question.key)
            known = self._known_turn(conversation, question.idempotency_key)
            if known is not None and known.status is TurnStatus.RUNNING:
                yield from self._expire(conversation, known)
                raise Conflict("the turn with the same idempotency key has ended", question.key)
            if known is not None:
                return self._replayed(conversation, known, question.content), None
            step = self._decided(conversation, question)
            turn = self._runner(step, question.content)
            self.worker.add(turn)
            begun.append(turn)
            try:
                yield step
            except FSMError:
                begun.remove(turn)
                self.worker.remove(turn)
                raise
            return turn, step

        return retried(attempt)

    def _decided(self, conversation: Conversation, question: _Question) -> Step:
        return decide.begin(
            conversation,
            content=question.content,
            provider=self.settings.provider,
            owner=self.worker.name,
            now=self.settings.clock(),
            lease=self.settings.lease_length,
            idempotency_key=question.idempotency_key,
            metadata=question.metadata,
            abandoned=self.worker.has_abandoned(conversation),
        )

    def _runner(self, step: Step, content: tuple[Block, ...]) -> TurnRunner:
        return TurnRunner(
            adapter=self.adapter,
            settings=self.settings,
            requests=self._requests,
            commits=TurnCommits(self._store, self.settings, self.worker.name, step),
            worker=self.worker,
            content=content,
        )

    def _new(self, key: str) -> Conversation:
        """Return the snapshot of a conversation that is not stored yet."""
        now = self.settings.clock()
        return Conversation(key=key, id=new_id(now, self.adapter.chance), created_at=now, updated_at=now)

    def _known_turn(self, conversation: Conversation, idempotency_key: str | None) -> Turn | None:
        """Return the turn that was begun with this idempotency key, or None (G13)."""
        if idempotency_key is None or not conversation.version:
            return None
        with store_errors(conversation.key):
            return self._store.turn_by_idempotency_key(conversation, idempotency_key)

    def _expire(self, conversation: Conversation, known: Turn) -> Script[None]:
        """End a running turn with the same idempotency key if its owner is gone.

        Raises:
            ConversationBusy: its owner is not gone.
        """
        if (yield from self.commands.expire_lease(conversation)) is None:
            raise ConversationBusy(
                f"turn {known.number} with the same idempotency key is still running; wait for it "
                '(on_busy="wait") and its reply is returned',
                conversation.key,
            )

    def _replayed(self, conversation: Conversation, known: Turn, content: tuple[Block, ...]) -> ReplayedTurn:
        """Return the stored turn that has this idempotency key (G13)."""
        with store_errors(conversation.key):
            messages = self._store.turn_messages(conversation, known)
        if [message.content for message in messages[:1]] != [content]:
            raise InvalidInput(
                f"the idempotency key of turn {known.number} was used for another message; use another key",
                conversation.key,
            )
        return ReplayedTurn(stored_reply(conversation, known, messages), messages)
