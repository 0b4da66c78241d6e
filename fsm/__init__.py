"""Conversations with an AI that survive the death of their provider session.

Each conversation is a finite state machine, *fresh → active → stale*, whose transitions on the AI's results drive what
is persisted. ``error_during_execution`` makes it stale; a stale conversation can only be reset to fresh; a fresh one
starts a new provider session with its context rebuilt from the stored history.

>>> from fsm import SessionManager
>>> from fsm.providers import DemoProvider
>>> from persistence import SQLStore
>>> manager = SessionManager(SQLStore("sqlite:///:memory:"), DemoProvider())
>>> manager.send("ticket-42", "Where is my parcel?").text
'You said “Where is my parcel?”. This is the first thing I hear from you.'
"""

from typing import TYPE_CHECKING, Any

from fsm._core.table import TABLE, Row, State, Trigger
from fsm.context import ContextWindow
from fsm.conversations import AsyncConversations, Conversations
from fsm.errors import (
    Closed,
    Conflict,
    ConversationBusy,
    ConversationNotFound,
    CorruptRecord,
    FSMError,
    InvalidContent,
    InvalidInput,
    InvalidKey,
    InvalidTable,
    InvalidTransition,
    ProviderError,
    SchemaVersionError,
    StoreError,
    TurnFailed,
    TurnSuperseded,
)
from fsm.events import Event, Result, TextDelta, ToolResult, ToolUse
from fsm.manager import SessionManager
from fsm.provider import AsyncProvider, BaseProvider, Provider, Request
from fsm.records import Conversation, Message, Running, Session, Transition, Turn, TurnStatus
from fsm.reply import Reply
from fsm.store import BaseStore, BatchingStore, Store

if TYPE_CHECKING:
    from fsm.aio import AsyncSessionManager

    __version__: str

__all__ = [
    "TABLE",
    "AsyncConversations",
    "AsyncProvider",
    "AsyncSessionManager",
    "BaseProvider",
    "BaseStore",
    "BatchingStore",
    "Closed",
    "Conflict",
    "ContextWindow",
    "Conversation",
    "ConversationBusy",
    "ConversationNotFound",
    "Conversations",
    "CorruptRecord",
    "Event",
    "FSMError",
    "InvalidContent",
    "InvalidInput",
    "InvalidKey",
    "InvalidTable",
    "InvalidTransition",
    "Message",
    "Provider",
    "ProviderError",
    "Reply",
    "Request",
    "Result",
    "Row",
    "Running",
    "SchemaVersionError",
    "Session",
    "SessionManager",
    "State",
    "Store",
    "StoreError",
    "TextDelta",
    "ToolResult",
    "ToolUse",
    "Transition",
    "Trigger",
    "Turn",
    "TurnFailed",
    "TurnStatus",
    "TurnSuperseded",
]


def __getattr__(name: str) -> Any:
    """Return the asynchronous manager or the version, imported when asked for: both take longer than all the rest."""
    if name == "AsyncSessionManager":
        from fsm.aio import AsyncSessionManager

        return AsyncSessionManager
    if name == "__version__":
        from importlib.metadata import version

        return version("conversation-fsm")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
