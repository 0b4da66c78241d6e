"""What every call of a store has around it: whatever a store raises becomes an error of this library."""

from __future__ import annotations

from types import TracebackType

from fsm._core.effects import Step
from fsm._runtime.log import LOGGER
from fsm.errors import FSMError, StoreError
from fsm.records import Conversation
from fsm.store import Store

__all__ = ["StoreErrors", "known_dead"]


class StoreErrors:
    """Translates what a store raises inside a ``with`` block, and logs a commit that was refused.

    Args:
        key: the conversation, or None if the call is about no single one.
        step: the step that is committed, or None if the block only reads.

    >>> with StoreErrors("ticket-42"):
    ...     raise OSError
    Traceback (most recent call last):
    ...
    fsm.errors.StoreError: conversation 'ticket-42': the store raised OSError, which a store should translate; \
load the conversation to see what was stored
    """

    def __init__(self, key: str | None, step: Step | None = None) -> None:
        self._key = key
        self._step = step

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not isinstance(error, Exception):
            return
        if isinstance(error, StoreError) or not isinstance(error, FSMError):
            self._log(error)
        if not isinstance(error, FSMError):
            raise StoreError(
                f"the store raised {type(error).__name__}, which a store should translate; "
                "load the conversation to see what was stored",
                self._key,
            ) from error

    def _log(self, error: Exception) -> None:
        if self._step is not None:
            name = type(error).__name__ if isinstance(error, FSMError) else StoreError.__name__
            fields = {"conversation": self._key, "version": self._step.before.version, "error": name}
            LOGGER.error("store.commit_failed", extra=fields)  # raised to the caller, with its trace


def known_dead(store: Store, conversation: Conversation, *session_ids: str | None) -> frozenset[str]:
    """Return those of the ids that were reported dead; the id that is held never was (G2)."""
    unknown = {named for named in session_ids if named is not None and named != conversation.session_id}
    if not unknown:
        return frozenset()
    with StoreErrors(conversation.key):
        return store.dead(conversation, unknown)
