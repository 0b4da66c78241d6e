"""Every error that this library raises, in one place.

All of them are subclasses of :class:`FSMError`. A message names the conversation, says what was wrong and what to do
next. It never contains message text. An error that is raised *after* the AI answered carries that answer as
``error.reply`` (G16).
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from fsm.reply import Reply

__all__ = [
    "Closed",
    "Conflict",
    "ConversationBusy",
    "ConversationNotFound",
    "CorruptRecord",
    "FSMError",
    "InvalidContent",
    "InvalidInput",
    "InvalidKey",
    "InvalidTable",
    "InvalidTransition",
    "ProviderError",
    "SchemaVersionError",
    "StoreError",
    "TurnFailed",
    "TurnSuperseded",
]


class FSMError(Exception):
    """The base class of all errors of this library.

    Args:
        message: what was wrong and what to do, in one or two sentences.
        key: the conversation, or None.
        reply: the AI's answer before the error, or None.

    >>> error = FSMError("nothing to do", key="ticket-42")
    >>> str(error), error.key, error.reply
    ("conversation 'ticket-42': nothing to do", 'ticket-42', None)
    """

    def __init__(self, message: str, key: str | None = None, reply: Reply | None = None) -> None:
        super().__init__(message, key, reply)
        self.message = message
        self.key = key
        self.reply = reply

    def completed(self, *, key: str | None = None, reply: Reply | None = None) -> Self:
        """Return the same error with its missing attributes, to be raised in its place.

        Args:
            key: the conversation, if the error names none.
            reply: the reply, if the error has none.
        """
        other = copy(self)
        other.key, other.reply = self.key or key, self.reply or reply
        other.args = (self.message, other.key, other.reply)
        other.__cause__ = self.__cause__
        return other.with_traceback(self.__traceback__)

    def __str__(self) -> str:
        return self.message if self.key is None else f"conversation {self.key!r}: {self.message}"


class InvalidTransition(FSMError):
    """The machine has no row for this state and trigger. Nothing was changed."""


class InvalidTable(FSMError):
    """The table of the machine contradicts itself. The message names the row."""


class InvalidInput(FSMError, ValueError):
    """An argument was refused before anything was written or sent."""


class InvalidKey(InvalidInput):
    """A conversation key or idempotency key is not 1 to 512 characters of plain text."""


class InvalidContent(InvalidInput):
    """The content of a message can't be stored or sent.

    It is neither text nor a list of JSON blocks, it is empty, or it can't be written as UTF-8. Or the provider does not
    take one of its blocks.
    """


class ConversationNotFound(FSMError, LookupError):
    """No turn was ever begun under this key."""


class ConversationBusy(FSMError):
    """Another turn is running in this conversation; at most one runs at a time (G5)."""


class Conflict(FSMError):
    """Another writer changed the conversation first. Nothing was written: load it and decide again."""


class TurnSuperseded(FSMError):
    """The turn ended late: a reset or another worker had already ended it.

    Its text is kept with the turn, outside the context; the conversation did not move (G10).
    """


class TurnFailed(FSMError):
    """Raised by :meth:`fsm.Reply.raise_for_error` for a turn that did not succeed."""


class StoreError(FSMError):
    """The database refused to read or write. Nothing of the step was stored (G16)."""


class Closed(StoreError):
    """The store, or the manager that uses it, was closed. Nothing was written or sent."""


class SchemaVersionError(StoreError):
    """The database was written by a newer version of this library."""


class CorruptRecord(StoreError):
    """A stored row can't be what this library wrote; the message names table and row."""


class ProviderError(FSMError):
    """The provider broke its contract: it raised, or its events were not those of one turn."""
