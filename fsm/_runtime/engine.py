"""The one code path behind every manager: load, decide, commit, ask the provider, decide, commit.

It is written as coroutines over :class:`Ports`, the few things that touch the world. The synchronous manager's ports
never wait, so its coroutines run to their end in one go; the asynchronous manager awaits them on its event loop.
Batch is stream read to its end. So sync and async, batch and stream can't differ (G12).

A :class:`Driver` begins turns, resets and recovers; once begun, a turn drives itself (:mod:`fsm._runtime.turn_runner`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar
from weakref import WeakValueDictionary

from fsm._core import decisions as decide
from fsm._core.effects import Step
from fsm._core.validation import check_key, check_reason, json_object, new_id
from fsm._runtime.adapters import Ports
from fsm._runtime.log import LOGGER
from fsm._runtime.owner import is_gone, name_owner
from fsm._runtime.requests import Requests
from fsm._runtime.settings import Observer, Settings
from fsm._runtime.turn_queue import Waiting
from fsm._runtime.turn_runner import DrivenTurn
from fsm.content import Block, Content, as_blocks
from fsm.errors import Conflict, ConversationBusy, ConversationNotFound, FSMError, InvalidInput, StoreError
from fsm.fork import renew_in_child
from fsm.records import Conversation, Transition, Turn, TurnStatus
from fsm.reply import ReplayedTurn, stored_reply
from fsm.store import Store

__all__ = ["Driver"]

P = ParamSpec("P")
R = TypeVar("R")


class Driver:
    """Drives the conversations of one manager. Any number of threads and tasks may use it.

    Args:
        store: where they are kept.
        ports: how to reach the world.
        settings: how to behave.

    Attributes:
        requests: makes what the provider is asked.
        owner: the name under which turns are run in this process; a forked child has another.
    """

    def __init__(self, store: Store, ports: Ports, settings: Settings) -> None:
        self.store = store
        self.ports = ports
        self.settings = settings
        self.requests = Requests(self)
        # A turn that nobody holds any more is not in it, though it was never closed.
        self._live: WeakValueDictionary[tuple[str, int], DrivenTurn] = WeakValueDictionary()
        self.renew()
        renew_in_child(self)

    def renew(self) -> None:
        """Start afresh in this process: what runs in a parent is the parent's."""
        self.owner = name_owner()
        self._waiting = Waiting(self.settings, self.ports)
        for turn in list(self._live.values()):
            turn.leave_to_parent()
        self._live.clear()

    # Turns

    async def begin(
        self,
        key: str,
        content: Content,
        *,
        idempotency_key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        busy_timeout: float | None = None,
    ) -> DrivenTurn | ReplayedTurn:
        """Begin a turn: it is stored before the provider hears of it (G8).

        Args:
            key: the conversation.
            content: the user's message.
            idempotency_key: the caller's name for the turn; a turn that has it already is replayed (G13).
            metadata: merged into the conversation's.
            busy_timeout: for how many seconds to wait for another turn; None for as long as the settings say.

        Raises:
            InvalidInput: an argument is not usable. Nothing was written.
            ConversationBusy: another turn is running, and went on running for as long as may be waited.
            StoreError: the turn could not be stored; the provider has not heard of it.
        """
        check_key(key)
        if idempotency_key is not None:
            check_key(idempotency_key, "idempotency key")
        blocks = self._checked(content, key)
        merged = json_object(metadata, key)

        async def attempt() -> DrivenTurn | ReplayedTurn:
            conversation = await self._load_or_new(key)
            if idempotency_key is not None and conversation.version:
                known = await self.ask(key, self.store.turn_by_idempotency_key, conversation, idempotency_key)
                if known is not None:
                    return await self._replayed(conversation, known, blocks)
            step = decide.begin(
                conversation,
                content=blocks,
                provider=self.settings.provider,
                owner=self.owner,
                now=self.settings.clock(),
                lease=self.settings.lease_length,
                idempotency_key=idempotency_key,
                metadata=merged,
                abandoned=self._is_abandoned(conversation),
            )
            return await self._start(step, blocks)

        return await self._waiting.until_free(key, attempt, busy_timeout)

    def _checked(self, content: Content, key: str) -> tuple[Block, ...]:
        """The content as blocks that can be stored and that the provider takes."""
        blocks = as_blocks(content, key)
        try:
            if self.settings.check_content is not None:
                self.settings.check_content(blocks)
        except InvalidInput as error:
            error.key = error.key or key
            raise
        return blocks

    async def _start(self, step: Step, blocks: tuple[Block, ...]) -> DrivenTurn:
        key, number = step.after.key, step.after.turn_count
        turn = DrivenTurn(self, step, blocks)
        # Before the commit: as soon as others can see the turn, it must not look abandoned.
        self._live[key, number] = turn
        try:
            await self.commit(step)
        except (StoreError, Conflict):
            self.forget(key, number)
            raise
        except BaseException:
            with self.ports.shield():
                await turn.withdraw()
            raise
        LOGGER.debug("turn.run_started", extra={"conversation": key, "turn": number, "state": step.after.state.value})
        turn.run()
        return turn

    async def _replayed(self, conversation: Conversation, known: Turn, blocks: tuple[Block, ...]) -> ReplayedTurn:
        """The stored turn that has this idempotency key (G13)."""
        if known.status is TurnStatus.RUNNING:
            if await self._end_lapsed(conversation) is not None:
                raise Conflict("its turn has just been ended; look again", conversation.key)
            raise ConversationBusy(
                f"turn {known.number} with the same idempotency key is still running; wait for it "
                '(on_busy="wait") and its reply is returned',
                conversation.key,
            )
        messages = await self.ask(conversation.key, self.store.turn_messages, conversation, known)
        if [message.content for message in messages[:1]] != [blocks]:
            raise InvalidInput(
                f"the idempotency key of turn {known.number} was used for another message; use another key",
                conversation.key,
            )
        return ReplayedTurn(stored_reply(conversation, known, messages), messages)

    # Other commands

    async def reset(self, key: str, *, reason: str, force: bool) -> Conversation:
        """Start over with a new session; see :meth:`fsm.SessionManager.reset`."""
        check_key(key)
        check_reason(reason, key)

        async def attempt() -> Conversation:
            conversation = await self.load(key)
            step = decide.reset(
                conversation,
                reason=reason,
                provider=self.settings.provider,
                now=self.settings.clock(),
                force=force,
                abandoned=self._is_abandoned(conversation),
            )
            await self.commit(step)
            return step.after

        after = await self._waiting.until_free(key, attempt)
        fields = {"conversation": key, "session": after.session_number, "reason": reason}
        LOGGER.info("session.reset_completed", extra=fields)
        return after

    async def recover(self) -> list[Conversation]:
        """End the running turns whose owner is gone or whose lease is over (G9); any number of workers may do it."""
        ended: list[Conversation] = []
        page = await self.ask(None, self.store.running)
        while page:
            for conversation in page:
                try:
                    after = await self._end_lapsed(conversation)
                except Conflict:
                    continue  # somebody else saw to it
                if after is not None:
                    ended.append(after)
            page = await self.ask(None, self.store.running, after=page[-1])
        return ended

    async def _end_lapsed(self, conversation: Conversation) -> Conversation | None:
        step = decide.expire_lease(conversation, now=self.settings.clock(), abandoned=self._is_abandoned(conversation))
        if step is None:
            return None
        await self.commit(step)
        fields = {"conversation": conversation.key, "turn": conversation.turn_count}
        LOGGER.warning("turn.recover_completed", extra=fields)
        return step.after

    # The store

    async def load(self, key: str) -> Conversation:
        """The conversation of this key.

        Raises:
            ConversationNotFound: no turn was ever begun under it.
        """
        conversation = await self.ask(key, self.store.load, check_key(key))
        if conversation is None:
            raise ConversationNotFound("there is none of this key; a conversation begins with its first message", key)
        return conversation

    async def _load_or_new(self, key: str) -> Conversation:
        conversation = await self.ask(key, self.store.load, key)
        if conversation is None:
            now = self.settings.clock()
            return Conversation(key, new_id(now, self.ports.chance), now, now)
        return conversation

    async def dead(self, conversation: Conversation, *session_ids: str | None) -> frozenset[str]:
        """Those of the ids that were reported dead; the one that is held never was (G2)."""
        unknown = {named for named in session_ids if named is not None and named != conversation.session_id}
        return await self.ask(conversation.key, self.store.dead, conversation, unknown) if unknown else frozenset()

    async def ask(self, key: str | None, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the store; whatever it raises becomes an error of this library.

        Raises:
            Conflict, StoreError: see :class:`fsm.Store`.
        """
        try:
            return await self.ports.call(function, *args, **kwargs)
        except FSMError:
            raise
        except Exception as error:
            raise StoreError(
                f"the store raised {type(error).__name__}, which no store should; "
                "load the conversation to see what was stored",
                key,
            ) from error

    async def commit(self, step: Step) -> None:
        """Commit a step, and tell the observers of its moves."""
        try:
            await self.ask(step.after.key, self.store.commit, step)
        except StoreError as error:
            fields = {"conversation": step.after.key, "version": step.before.version, "error": type(error).__name__}
            LOGGER.error("store.commit_failed", extra=fields)  # raised to the caller, with its trace
            raise
        for transition in step.transitions:
            for observer in self.settings.observers:
                self._tell(observer, transition)

    @staticmethod
    def _tell(observer: Observer, transition: Transition) -> None:
        try:
            observer(transition)
        except Exception:  # noqa: BLE001  # an observer is somebody else's code and must not do harm
            fields = {"conversation": transition.key, "transition": transition.number}
            LOGGER.exception("observer.call_failed", extra=fields)

    # Who runs what

    def forget(self, key: str, turn: int) -> None:
        """This driver does not run the turn any more."""
        self._live.pop((key, turn), None)

    def _is_abandoned(self, conversation: Conversation) -> bool | None:
        """Whether the running turn's owner is known to have given it up: this driver itself, or a dead process.

        False if this driver is at work on it, whatever its lease says. None if nothing is known.
        """
        running = conversation.running
        if running is None:
            return None
        if running.owner == self.owner:
            return (conversation.key, running.turn) not in self._live
        return True if is_gone(running.owner) else None
