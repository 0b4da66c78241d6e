"""The errors of a store, translated into errors of this library."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fsm._core.effects import Step
from fsm._runtime.log import LOGGER
from fsm.errors import FSMError, StoreError

__all__ = ["as_store_error", "store_errors"]


@contextmanager
def store_errors(key: str | None) -> Iterator[None]:
    """Translate the exceptions of a store that is read inside the block.

    Args:
        key: the conversation, or None if the call is about no single one.

    >>> with store_errors("ticket-42"):
    ...     raise OSError
    Traceback (most recent call last):
    ...
    fsm.errors.StoreError: conversation 'ticket-42': the store raised OSError, which a store should translate; \
load the conversation to see what was stored
    """
    try:
        yield
    except FSMError:
        raise
    except Exception as error:
        raise as_store_error(error, key) from error


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
