"""The commands that need no AI: load, reset, recover."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from fsm._core import decisions as decide
from fsm._core.effects import Step
from fsm._core.validation import check_key, check_reason
from fsm._runtime.log import LOGGER
from fsm._runtime.scripts import Script, retried, run_alone
from fsm._runtime.store_errors import store_errors
from fsm._runtime.worker import Worker
from fsm.errors import Conflict, ConversationNotFound
from fsm.records import Conversation
from fsm.store import Store

__all__ = ["Commands"]


class Commands:
    """The commands on the conversations of a store that need no AI.

    Args:
        store: where the conversations are.
        clock: tells the time, in UTC.
        worker: the worker on whose behalf they are given.
    """

    def __init__(self, store: Store, clock: Callable[[], datetime], worker: Worker) -> None:
        self.store = store
        self.worker = worker
        self._clock = clock

    def load(self, key: str) -> Conversation:
        """Return the conversation of this key.

        Raises:
            ConversationNotFound: no turn was ever begun under it.
        """
        check_key(key)
        with store_errors(key):
            conversation = self.store.load(key)
        if conversation is None:
            raise ConversationNotFound("there is none of this key; a conversation begins with its first message", key)
        return conversation

    def reset(self, key: str, *, reason: str, force: bool, provider: str | None = None) -> Script[Step]:
        """Start over with a new session.

        Args:
            key: the conversation.
            reason: the reason, in a line.
            force: end a running turn as ``superseded``.
            provider: the provider that the new session belongs to; None for the one of the session before.
        """
        check_key(key)
        check_reason(reason, key)

        def attempt(_: int) -> Script[Step]:
            conversation = self.load(key)
            step = decide.reset(
                conversation,
                reason=reason,
                provider=provider or conversation.provider,
                now=self._clock(),
                force=force,
                abandoned=self.worker.has_abandoned(conversation),
            )
            yield step
            return step

        step = yield from retried(attempt)
        fields = {"conversation": key, "session": step.after.session_number, "reason": reason}
        LOGGER.info("session.reset_completed", extra=fields)
        return step

    def recover(self) -> list[Step]:
        """End the running turns whose owner is gone or whose lease is over (G9); any number of workers may do it.

        This blocks until all of them are ended.
        """
        steps: list[Step] = []
        after: Conversation | None = None
        while page := self._running(after):
            for conversation in page:
                try:
                    step = run_alone(self.store, self.expire_lease(conversation))
                except Conflict:
                    continue  # another worker saw to it
                steps += [] if step is None else [step]
            after = page[-1]
        return steps

    def _running(self, after: Conversation | None) -> list[Conversation]:
        with store_errors(None):
            return list(self.store.running(after=after))

    def expire_lease(self, conversation: Conversation) -> Script[Step | None]:
        """End the running turn if its owner is gone or its lease is over; return None if it is not."""
        abandoned = self.worker.has_abandoned(conversation)
        step = decide.expire_lease(conversation, now=self._clock(), abandoned=abandoned)
        if step is not None:
            yield step
            fields = {"conversation": conversation.key, "turn": conversation.turn_count}
            LOGGER.warning("turn.recover_completed", extra=fields)
        return step
