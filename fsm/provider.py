"""What a provider must do: answer a request with a stream of events that ends in exactly one result.

A provider is an AI that keeps a *context* on its side and names it with a provider session id. Its promises:

* it names a session in its result only if resuming that session continues this conversation;
* it reports as ``error_during_execution`` every failure that would repeat for as long as that session is resumed,
  and no other: that is what *dead* means;
* the last event, and only the last, is a :class:`~fsm.results.Result`.

It may declare ``wants_transcript = True``: then, while a session is resumed, the request brings the raw messages of
that session (for an API that keeps nothing itself). It may have a method ``check_content(content)``, called with the
blocks of every message before anything is written: it raises :class:`~fsm.errors.InvalidContent` for what the
provider can't take.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from attrs import field, frozen

from fsm.content import Block
from fsm.records import Message
from fsm.results import Event

__all__ = ["AsyncProvider", "Provider", "Request"]


@frozen
class Request:
    """One message for the AI, and what it needs to know.

    Attributes:
        key: the conversation.
        turn: the number of the turn.
        session: the number of the session it runs in.
        content: the new message, as blocks.
        session_id: the provider session id to resume, or None to start a new session.
        history: the messages that the context is rebuilt from, oldest first. For a new session: the succeeded turns
            inside the context window, as plain text. For a resumed one: nothing, unless the provider wants the
            transcript; then what the session was opened with, and after it the session's own messages as stored.
        metadata: the conversation's own JSON object.
    """

    key: str
    turn: int
    session: int
    content: tuple[Block, ...] = field(hash=False)
    session_id: str | None = None
    history: tuple[Message, ...] = ()
    metadata: Mapping[str, Any] = field(factory=dict, hash=False)


@runtime_checkable
class Provider(Protocol):
    """An AI for :class:`fsm.SessionManager`."""

    @property
    def name(self) -> str:
        """Names the provider; a session of one provider is never resumed at another (G15)."""
        ...

    def stream(self, request: Request) -> Iterator[Event]:
        """Answer. Closing the iterator early stops the AI and frees what the answer needs."""
        ...


@runtime_checkable
class AsyncProvider(Protocol):
    """An AI for :class:`fsm.AsyncSessionManager`: the same, as an async iterator."""

    @property
    def name(self) -> str:
        """Names the provider."""
        ...

    def astream(self, request: Request) -> AsyncIterator[Event]:
        """Answer. Closing the iterator early stops the AI and frees what the answer needs."""
        ...
