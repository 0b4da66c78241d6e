"""The errors of a store, translated into errors of this library."""

from __future__ import annotations

from types import TracebackType

from fsm._core.effects import Step
from fsm._runtime.log import LOGGER
from fsm.errors import FSMError, StoreError

__all__ = ["StoreErrors", "as_store_error"]


class StoreErrors:
    """Translates the exceptions of a store inside a ``with`` block, and logs a refused commit.

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
        if isinstance(error, Exception):
            told = as_store_error(error, self._key, self._step)
            if told is not error:
                raise told from error


def as_store_error(error: Exception, key: str | None, step: Step | None = None) -> FSMError:
    """Return an exception of a store as an error of this library, and log a refused commit.

    Args:
        error: the exception.
        key: the conversation, or None if the call is about no single one.
        step: the step that was to be committed, or None if the call only reads.
    """
    told: FSMError
    if isinstance(error, FSMError):
        told = error
    else:
        told = StoreError(
            f"the store raised {type(error).__name__}, which a store should translate; "
            "load the conversation to see what was stored",
            key,
        )
        told.__cause__ = error
    if step is not None and isinstance(told, StoreError):
        fields = {"conversation": key, "version": step.before.version, "error": type(told).__name__}
        LOGGER.error("store.commit_failed", extra=fields)  # raised to the caller, with its trace
    return told
