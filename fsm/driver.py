"""The one code path behind every manager: load, decide, commit, ask the provider, decide, commit.

It is written as coroutines over :class:`Ports`, the few things that touch the world. The synchronous manager's ports
never wait, so its coroutines run to their end in one go; the asynchronous manager awaits them on its event loop.
Batch is stream read to its end. So sync and async, batch and stream can't differ (G12).

A :class:`Driver` begins turns, resets and recovers; once begun, a turn drives itself (:mod:`fsm.driven`).
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ParamSpec, TypeVar

from fsm import conversation as decide
from fsm.content import Block, Content, as_blocks
from fsm.context import rebuild
from fsm.driven import DrivenTurn
from fsm.effects import Step
from fsm.errors import Conflict, ConversationBusy, ConversationNotFound, InvalidInput, StoreError
from fsm.key import check_key
from fsm.log import LOGGER
from fsm.owner import is_gone, name_owner
from fsm.ports import Ports
from fsm.provider import Request
from fsm.records import Conversation, Message, Transition, Turn, TurnStatus
from fsm.settings import Observer, Settings
from fsm.states import State
from fsm.store import Store
from fsm.turn import Reply, stored_reply
from fsm.waiting import Waiting

__all__ = ["Driver"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T", bound=DrivenTurn)

REASON_LENGTH = 512
"""The longest reason of a reset, in characters."""


class Driver:
    """Drives the conversations of one manager.

    Args:
        store: where they are kept.
        ports: how to reach the world.
        settings: how to behave.
    """

    def __init__(self, store: Store, ports: Ports, settings: Settings) -> None:
        self.store = store
        self.ports = ports
        self.settings = settings
        self._waiting = Waiting(settings, ports)
        self._named = (0, "")
        self._live: set[tuple[str, int]] = set()

    # Turns

    async def begin(
        self,
        kind: type[T],
        key: str,
        content: Content,
        *,
        idempotency_key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> T:
        """Begin a turn: it is stored before the provider hears of it (G8).

        Args:
            kind: the class of the running turn to return.
            key: the conversation.
            content: the user's message.
            idempotency_key: the caller's name for the turn; a turn that has it already is replayed (G13).
            metadata: merged into the conversation's.

        Raises:
            InvalidInput: an argument is not usable. Nothing was written.
            ConversationBusy: another turn is running, and went on running for as long as may be waited.
            StoreError: the turn could not be stored; the provider has not heard of it.
        """
        check_key(key)
        if idempotency_key is not None:
            check_key(idempotency_key, "idempotency key")
        blocks = self._checked(content, key)
        merged = _json_object(metadata, key)

        async def attempt() -> T:
            conversation = await self._load_or_new(key)
            if idempotency_key is not None and conversation.version:
                known = await self.ports.call(self.store.turn_by_idempotency_key, conversation, idempotency_key)
                if known is not None:
                    return kind.replayed(await self._stored_reply(conversation, known, blocks))
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
            return await self._start(kind, step, blocks)

        return await self._waiting.until_free(key, attempt)

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

    async def _start(self, kind: type[T], step: Step, blocks: tuple[Block, ...]) -> T:
        key, number = step.after.key, step.after.turns
        # Before the commit: as soon as others can see the turn, it must not look abandoned.
        self._live.add((key, number))
        try:
            await self.commit(step)
        except (StoreError, Conflict):
            self.forget(key, number)
            raise
        except BaseException:
            with self.ports.shield():
                await kind(self, step, blocks).withdraw()
            raise
        LOGGER.debug("turn.run_started", extra={"conversation": key, "turn": number, "state": step.after.state.value})
        return kind(self, step, blocks)

    async def _stored_reply(self, conversation: Conversation, known: Turn, blocks: tuple[Block, ...]) -> Reply:
        """The reply of the turn that has this idempotency key (G13)."""
        if known.status is TurnStatus.RUNNING:
            if await self._end_lapsed(conversation) is not None:
                raise Conflict("its turn has just been ended; look again", conversation.key)
            raise ConversationBusy(
                f"turn {known.number} with the same idempotency key is still running; wait for it "
                '(on_busy="wait") and its reply is returned',
                conversation.key,
            )
        messages = await self.ports.call(self.store.turn_messages, conversation, known)
        if [message.content for message in messages[:1]] != [blocks]:
            raise InvalidInput(
                f"the idempotency key of turn {known.number} was used for another message; use another key",
                conversation.key,
            )
        return stored_reply(conversation, known, messages)

    async def request(self, conversation: Conversation, content: tuple[Block, ...]) -> Request:
        """What the provider is asked: to resume, or to start anew with the context rebuilt (G3)."""
        resumed = conversation.state is State.ACTIVE
        history: tuple[Message, ...] = ()
        if not resumed:
            history = await self._past(conversation, conversation.session, content)
        elif self.settings.wants_transcript:
            session = conversation.session
            transcript = await self.ports.call(
                self.store.context, conversation, first_session=session, last_session=session, limit=None
            )
            opening = transcript[0].content if transcript else content
            history = (*await self._past(conversation, session - 1, opening), *transcript)
        return Request(
            key=conversation.key,
            turn=conversation.turns,
            session=conversation.session,
            content=content,
            session_id=conversation.session_id,
            history=history,
            metadata=conversation.metadata,
        )

    async def _past(
        self, conversation: Conversation, last_session: int, content: Sequence[Block]
    ) -> tuple[Message, ...]:
        """What a session after ``last_session`` is told of what was said until then."""
        window = self.settings.context
        messages = await self.ports.call(
            self.store.context,
            conversation,
            first_session=1,
            last_session=last_session,
            limit=window.max_messages + 1,
        )
        return rebuild(messages, window, content)

    # Other commands

    async def reset(self, key: str, *, reason: str, force: bool) -> Conversation:
        """Start over with a new session; see :meth:`fsm.SessionManager.reset`."""
        check_key(key)
        _check_reason(reason, key)

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
        fields = {"conversation": key, "session": after.session, "reason": reason}
        LOGGER.info("session.reset_completed", extra=fields)
        return after

    async def recover(self) -> list[Conversation]:
        """End the running turns whose owner is gone or whose lease is over (G9); any number of workers may do it."""
        ended = []
        for conversation in await self.ports.call(self.store.running):
            try:
                after = await self._end_lapsed(conversation)
            except Conflict:
                continue  # somebody else saw to it
            if after is not None:
                ended.append(after)
        return ended

    async def _end_lapsed(self, conversation: Conversation) -> Conversation | None:
        step = decide.lapse(conversation, now=self.settings.clock(), abandoned=self._is_abandoned(conversation))
        if step is None:
            return None
        await self.commit(step)
        fields = {"conversation": conversation.key, "turn": conversation.turns}
        LOGGER.warning("turn.recover_completed", extra=fields)
        return step.after

    # The store

    async def load(self, key: str) -> Conversation:
        """The conversation of this key.

        Raises:
            ConversationNotFound: no turn was ever begun under it.
        """
        conversation = await self.ports.call(self.store.load, check_key(key))
        if conversation is None:
            raise ConversationNotFound("there is none of this key; a conversation begins with its first message", key)
        return conversation

    async def _load_or_new(self, key: str) -> Conversation:
        conversation = await self.ports.call(self.store.load, key)
        if conversation is None:
            now = self.settings.clock()
            return Conversation(key, _new_id(now, self.ports.chance), now, now)
        return conversation

    async def dead(self, conversation: Conversation, *session_ids: str | None) -> frozenset[str]:
        """Those of the ids that were reported dead; the one that is held never was (G2)."""
        unknown = {named for named in session_ids if named is not None and named != conversation.session_id}
        return await self.ports.call(self.store.dead, conversation, unknown) if unknown else frozenset()

    async def commit(self, step: Step) -> None:
        """Commit a step, and tell the observers of its moves."""
        try:
            await self.ports.call(self.store.commit, step)
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

    @property
    def owner(self) -> str:
        """The name under which this driver runs turns, in this process."""
        if self._named[0] != os.getpid():
            self._named = (os.getpid(), name_owner())
        return self._named[1]

    def forget(self, key: str, turn: int) -> None:
        """This driver does not run the turn any more."""
        self._live.discard((key, turn))

    def _is_abandoned(self, conversation: Conversation) -> bool:
        """Whether the running turn's owner is known to have given it up: this driver itself, or a dead process."""
        running = conversation.running
        if running is None:
            return False
        if running.owner == self.owner:
            return (conversation.key, running.turn) not in self._live
        return is_gone(running.owner)


def _new_id(now: datetime, chance: random.Random) -> int:
    """A number that nobody else has: 42 bits of milliseconds, so that neighbours are stored together, 21 of chance."""
    return (int(now.timestamp() * 1000) << 21) | chance.getrandbits(21)


def _json_object(metadata: Mapping[str, Any] | None, key: str) -> dict[str, Any]:
    if metadata is None:
        return {}
    try:
        if not isinstance(metadata, Mapping):
            raise TypeError(type(metadata).__name__)
        normal: dict[str, Any] = json.loads(json.dumps(dict(metadata), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"the metadata is no JSON object ({type(error).__name__}: {error})", key) from error
    return normal


def _check_reason(reason: object, key: str) -> None:
    if not isinstance(reason, str) or not reason.strip() or len(reason) > REASON_LENGTH or not reason.isprintable():
        raise InvalidInput(f"a reason is a line of text of 1 to {REASON_LENGTH} characters", key)
