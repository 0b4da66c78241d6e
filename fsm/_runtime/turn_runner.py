"""A turn at work: it asks its provider, feeds the running turn, heals, and stores how the turn ended.

A turn ends by its result, by an exception, by a cancellation, or because its caller stops reading. In each case it is
ended in the store once, and its provider is closed.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from fsm._core import decisions as decide
from fsm._core.effects import Step
from fsm._core.table import State
from fsm._core.turn import RunningTurn
from fsm._runtime.adapters import Adapter
from fsm._runtime.log import LOGGER, log_cleared_session, log_turn_end
from fsm._runtime.observers import tell_observers
from fsm._runtime.presence import Lease
from fsm._runtime.provider_stream import ProviderStream
from fsm._runtime.requests import Requests
from fsm._runtime.settings import Settings
from fsm._runtime.turn_commits import TurnCommits
from fsm._runtime.worker import Worker
from fsm.content import Block
from fsm.errors import Conflict, ConversationNotFound, FSMError, InvalidInput, StoreError, TurnSuperseded
from fsm.events import Event, Result
from fsm.provider import Request
from fsm.records import TurnStatus
from fsm.reply import Reply

__all__ = ["TurnRunner"]

UNASKED = timedelta(seconds=1)
"""The time after its begin in which a turn may ask its provider without a look at the store. A caller that reads later
may have been superseded, and the session that it was to resume may be dead (G2)."""


class TurnRunner:
    """A turn that was begun. Read it to its end with :meth:`pull`, and :meth:`close` it.

    One task or thread at a time reads it. The keeper's thread writes only the time of its lease.

    Args:
        adapter: calls the store and the provider.
        settings: how the manager behaves.
        requests: makes the provider's requests.
        commits: the commits of this turn.
        worker: the worker that runs the turn, until it has ended.
        content: the user's message.
    """

    def __init__(
        self,
        *,
        adapter: Adapter,
        settings: Settings,
        requests: Requests,
        commits: TurnCommits,
        worker: Worker,
        content: tuple[Block, ...],
    ) -> None:
        conversation = commits.conversation
        self.key = conversation.key
        self.number = conversation.turn_count
        self._adapter = adapter
        self._settings = settings
        self._requests = requests
        self._commits = commits
        self._worker = worker
        self._content = content
        resumed = conversation.state is State.ACTIVE
        self._turn = RunningTurn(self.key, self.number, resumed=resumed, heal=settings.heal)
        self._provider = ProviderStream(adapter, self.key, self.number)
        self._lease = Lease(settings.lease_seconds, settings.clock, commits.renew)
        self._request: Request | None = None
        self._ready: deque[Event] = deque()
        self._is_over = False
        self._process = os.getpid()

    @property
    def text(self) -> str:
        """The text so far."""
        return self._turn.text

    @property
    def reply(self) -> Reply:
        """The reply, once the turn has ended; see :attr:`fsm.manager.StreamedTurn.reply`."""
        return self._turn.reply

    def run(self) -> None:
        """Keep the lease from now on: the turn is stored."""
        self._adapter.watch(self._lease)

    async def pull(self, *, to_the_end: bool = False) -> Event | None:
        """Return the next event for the caller, or None at the end.

        With ``to_the_end`` all events are read and dropped, and None is returned: batch is stream read to its end. The
        result is handed out as soon as it is stored. If anything goes wrong, the turn is ended before the error is
        raised.

        Raises:
            ProviderError: the provider broke its contract.
            StoreError: the store refused; ``error.reply`` holds the answer (G16).
            TurnSuperseded: another worker or a reset has ended the turn (G10).
            InvalidInput: the turn is read in another process than the one that began it.
        """
        if self._is_inherited:
            raise InvalidInput(
                f"turn {self.number} runs in the process that began it, and this is a child of that; read it there",
                self.key,
            )
        try:
            while not self._ready and not self._is_over:
                request = self._request or await self._make_request()
                with self._provider:
                    event = await self._provider.events(request).read()
                handed = self._turn.feed(self._provider.checked(event))
                result = self._turn.result
                if result is None:
                    if self._commits.lease_left <= self._settings.lease_length / 2:
                        await self._adapter.run(self._commits.extend())
                elif self._turn.should_heal:
                    await self._heal(result)
                    continue
                elif (narrower := self._turn.narrower) is not None:
                    await self._narrow(narrower)
                    continue
                else:
                    answer, fitted = self._turn.answer(), self._turn.fitting(self._content)
                    step = await self._adapter.run(self._commits.finish(result, answer, fitted))
                    self._finished(step, result)
                self._ready.extend(() if to_the_end else handed)
        except BaseException as error:
            with self._adapter.shield(), self._left_afterwards():
                await self._end_after(error)
            if isinstance(error, FSMError):
                raise error.completed(reply=self._turn.reply) from error.__cause__
            raise
        return self._ready.popleft() if self._ready else None

    async def close(self) -> None:
        """End the turn as ``interrupted`` if it has not ended: its caller stops reading.

        In a forked child this is a no-op: the turn is the parent's.
        """
        self._ready.clear()
        if self._is_inherited:
            return
        if not self._is_over:
            with self._adapter.shield(), self._left_afterwards():
                await self._interrupt()
        await self._provider.settle()

    async def withdraw(self) -> None:
        """End a turn whose begin was cut off, so that it may or may not be stored."""
        with self._left_afterwards():
            await self._adapter.run(self._commits.withdraw())

    def leave_to_parent(self) -> None:
        """Keep the provider's answer, which belongs to the parent, from being closed in a forked child."""
        self._provider.leave_to_parent()

    @property
    def _is_inherited(self) -> bool:
        return self._process != os.getpid()

    # The provider

    async def _make_request(self) -> Request:
        """Make the next request to the provider, after a check that the turn was not superseded."""
        if self._commits.lease_left <= self._settings.lease_length - UNASKED:
            await self._adapter.run(self._commits.extend())
        conversation, characters = self._commits.conversation, self._turn.told_at_most
        if self._requests.reads_history(conversation):
            history = await self._adapter.call(self._requests.history, conversation, self._content, characters)
        else:
            history = ()
        resumed = conversation.session_id
        self._turn.told = None if resumed is not None else sum(len(message.text) for message in history)
        self._request = Request(
            key=self.key,
            turn=self.number,
            session_number=conversation.session_number,
            content=self._content,
            session_id=resumed,
            history=history,
            metadata=conversation.metadata,
            alive=self._lease.sign,
        )
        return self._request

    async def _heal(self, result: Result) -> None:
        """Replace the dead session, and ask again in a new one (G11)."""
        LOGGER.info("session.heal_started", extra={"conversation": self.key, "turn": self.number})
        await self._provider.close()
        step = await self._adapter.run(self._commits.heal(result))
        tell_observers(self._settings.observers, step)
        log_cleared_session(step, result)
        self._request = None
        self._turn.heal()

    async def _narrow(self, characters: int) -> None:
        """Ask again with less of the history: a new session has refused the request for its size (G22)."""
        fields = {"conversation": self.key, "turn": self.number, "told": self._turn.told, "characters": characters}
        LOGGER.info("session.narrow_started", extra=fields)
        await self._provider.close()
        self._request = None
        self._turn.narrow(characters)

    # The end

    def _finished(self, step: Step, result: Result) -> None:
        """Finish the turn, after its end with a result was stored."""
        tell_observers(self._settings.observers, step)
        log_cleared_session(step, result)
        self._over(decide.status_of(result))
        self._provider.close_later()

    async def _interrupt(self, cause: BaseException | None = None) -> None:
        """End the turn without a result.

        Raises:
            ConversationNotFound, StoreError: the store refused; the error holds the reply.
        """
        await self._provider.close()
        try:
            status = await self._adapter.run(self._commits.interrupt(self._turn.answer()))
        except TurnSuperseded:
            await self._record_late()
            return
        except (StoreError, ConversationNotFound) as error:
            self._turn.result = None
            reply = self._over(TurnStatus.INTERRUPTED, error)
            if isinstance(error, StoreError):
                await self._adapter.run(self._commits.release())
            raise error.completed(reply=reply) from error.__cause__
        if status is TurnStatus.INTERRUPTED:
            self._turn.result = None
        self._over(status, cause)

    async def _end_after(self, error: BaseException) -> None:
        """End the turn because of an error, before the error is raised to the caller."""
        await self._provider.close()
        if isinstance(error, TurnSuperseded):
            await self._record_late()
        elif isinstance(error, StoreError | Conflict | ConversationNotFound):
            await self._give_up(error)
        elif not self._is_over:
            await self._cut_off(error)

    async def _record_late(self) -> None:
        """Keep the answer with a turn that another worker or a reset has ended (G10)."""
        reply = self._over(TurnStatus.SUPERSEDED)
        resumed = None if self._request is None else self._request.session_id
        try:
            await self._adapter.run(self._commits.record_late(self._turn.answer(), resumed))
        except (StoreError, ConversationNotFound) as error:
            raise error.completed(reply=reply) from error.__cause__

    async def _give_up(self, error: FSMError) -> None:
        """Make the reply of a turn whose end the store has refused to write (G16)."""
        result = self._turn.result
        self._over(TurnStatus.INTERRUPTED if result is None else decide.status_of(result), error)
        if isinstance(error, StoreError):  # the answer itself may be the reason for the refusal
            await self._adapter.run(self._commits.release())

    async def _cut_off(self, error: BaseException) -> None:
        """End the turn as ``interrupted`` because of anything else, such as a cancellation."""
        try:
            await self._interrupt(error)
        except (StoreError, ConversationNotFound) as refused:
            if isinstance(error, Exception):
                raise refused from error
            error.add_note(str(refused))

    @contextmanager
    def _left_afterwards(self) -> Iterator[None]:
        """Let the turn leave its manager at the end of a block, also if the block raises."""
        try:
            yield
        finally:
            self._leave()

    def _leave(self) -> None:
        """Take the turn off this manager: it does not run any more."""
        self._is_over = True
        self._adapter.let_go(self._lease)
        self._worker.remove(self)

    def _over(self, status: TurnStatus, error: BaseException | None = None) -> Reply:
        """Leave the manager, make the reply, and log the end."""
        self._leave()
        reply = self._turn.end(self._commits.conversation.state, status)
        log_turn_end(reply, error)
        return reply
