"""What a provider must do: answer a request with a stream of events that ends in exactly one result.

A provider is an AI that keeps a *context* on its side and names it with a provider session id. Its promises:

* it names a session in its result only if resuming that session continues this conversation;
* it reports as ``error_during_execution`` every failure that would repeat for as long as that session is resumed,
  and no other: that is what *dead* means;
* the last event, and only the last, is a :class:`~fsm.results.Result`. After it the iterator is read once more and
  closed, in the background, by another thread or task: clean up in a ``finally``, and let no cancel scope or task group
  span a ``yield``.

A provider may also have these:

* ``wants_transcript = True``: while a session is resumed, the request brings the raw messages of that session. It is
  for an API that keeps nothing itself.
* ``wants_tool_results = True``: while a session is resumed, ``request.history`` holds the tool results of earlier turns
  of this session that did not succeed (G23). It is for an API whose session may still wait for them.
* ``check_content(content)``, called with the blocks of every message before anything is written. It raises
  :class:`~fsm.errors.InvalidContent` for what the provider can't take.
* ``longest_silence``: for how many seconds the provider may give no sign of life while all is well, such as the
  timeout of its client times the attempts; None if that is not known. A manager holds it against its lease.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from attrs import field, frozen

from fsm.content import Block
from fsm.records import Message
from fsm.results import Event

__all__ = ["AsyncProvider", "Provider", "Request"]


def _ignored() -> None:
    """A sign of life that nobody waits for."""


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
            Tool results of turns that did not succeed are among them, as user messages with nothing else (G23).
        metadata: the conversation's own JSON object.
        alive: call it for every sign of life of the service: an event, a ping, a line of output. It keeps the turn's
            lease. Any thread may call it as often as it likes; it does no I/O and never raises.
    """

    key: str
    turn: int
    session: int
    content: tuple[Block, ...] = field(hash=False)
    session_id: str | None = None
    history: tuple[Message, ...] = ()
    metadata: Mapping[str, Any] = field(factory=dict, hash=False)
    alive: Callable[[], object] = field(default=_ignored, eq=False, repr=False)


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
