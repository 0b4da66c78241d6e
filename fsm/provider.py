"""What a provider must do: answer a request with a stream of events that ends in exactly one result.

A provider is an AI that keeps a *context* on its side and names it with a provider session id. Its promises:

* it names a session in its result only if resuming that session continues this conversation;
* it reports as ``error_during_execution`` every failure that would repeat for as long as that session is resumed,
  and no other: that is what *dead* means;
* the last event, and only the last, is a :class:`~fsm.events.Result`. After it the iterator is read once more and
  closed, in the background, by another thread or task: clean up in a ``finally``, and let no cancel scope or task group
  span a ``yield``.

Subclass :class:`BaseProvider` to write one: its attributes and hooks say what more a provider may declare.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from attrs import field, frozen

from fsm.content import Block
from fsm.events import Event
from fsm.records import Message

if TYPE_CHECKING:
    from fsm.store import Store

__all__ = ["AsyncProvider", "BaseProvider", "Provider", "Request"]


def _ignored() -> None:
    """A sign of life that nobody waits for."""


@frozen
class Request:
    """One message for the AI, and what it needs to know.

    Attributes:
        key: the conversation.
        turn: the number of the turn.
        session_number: the number of the session it runs in.
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
    session_number: int
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


class BaseProvider:
    """The base of a provider: its optional attributes and hooks, with their defaults.

    A subclass sets ``name`` and has ``stream``, ``astream``, or both; see :class:`Provider` and :class:`AsyncProvider`.

    >>> from fsm.events import Result
    >>> class Echo(BaseProvider):
    ...     name = "echo"
    ...     def stream(self, request):
    ...         yield Result(text=request.content[0]["text"])
    >>> next(Echo().stream(Request("k", 1, 1, ({"type": "text", "text": "hello"},)))).text
    'hello'
    """

    wants_transcript: bool = False
    """Whether the request for a resumed session brings the raw messages of that session, for an API that keeps none."""

    wants_tool_results: bool = False
    """Whether the request for a resumed session brings the tool results of its turns that did not succeed (G23).

    It is for an API whose session may still wait for them.
    """

    @property
    def longest_silence(self) -> float | None:
        """For how many seconds the provider may give no sign of life while all is well; None if that is not known.

        For a client it is the timeout times the number of attempts. A manager compares its lease with it.
        """
        return None

    def attach(self, store: Store) -> None:
        """Take note of the store of a manager that was made with this provider. The default does nothing."""

    def check_content(self, content: tuple[Block, ...]) -> None:
        """Refuse blocks that the provider can't take. Called before anything is written; the default takes all.

        Args:
            content: the blocks of the user's message.

        Raises:
            InvalidContent: the provider can't take one of them.
        """
