"""The interface of a provider: it answers a request with a stream of events that ends in exactly one result.

A provider is an AI that keeps a *context* on its side and names it with a provider session id. It must keep these
rules:

* It names a session in its result only if resuming that session continues this conversation.
* It reports a failure as ``error_during_execution`` if, and only if, the failure would repeat for as long as that
  session is resumed. Then the session is *dead*.
* The last event, and no other, is a :class:`~fsm.events.Result`. After it another thread or task reads the iterator
  once more and closes it, in the background. So clean up in a ``finally``, and let no cancel scope or task group span a
  ``yield``.

Subclass :class:`BaseProvider` to write one. Its attributes and hooks are what a provider may declare.
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
    """The default of ``Request.alive``."""


@frozen(kw_only=True)
class Request:
    """One message for the AI, with its context.

    Attributes:
        key: the conversation.
        turn: the number of the turn.
        session_number: the number of the session it runs in.
        content: the new message, as blocks.
        session_id: the provider session id to resume, or None to start a new session.
        history: messages, oldest first. For a new session they are the succeeded turns inside the context window, as
            plain text. For a resumed one there are none, unless the provider wants the transcript: the messages that
            the session was opened with, then its own messages as stored. Tool results of turns that did not succeed are
            among them, each in a user message without other blocks (G23).
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
        """The name of the provider; a session of one provider is never resumed at another (G15)."""
        ...

    def stream(self, request: Request) -> Iterator[Event]:
        """Answer a request. Closing the iterator early stops the AI and frees its resources."""
        ...


@runtime_checkable
class AsyncProvider(Protocol):
    """An AI for :class:`fsm.AsyncSessionManager`; its answer is an async iterator."""

    @property
    def name(self) -> str:
        """The name of the provider."""
        ...

    def astream(self, request: Request) -> AsyncIterator[Event]:
        """Answer a request. Closing the iterator early stops the AI and frees its resources."""
        ...


class BaseProvider:
    """The base class of providers: the optional attributes and hooks, with their defaults.

    A subclass sets ``name`` and has ``stream``, ``astream``, or both; see :class:`Provider` and :class:`AsyncProvider`.

    >>> from fsm.events import Result
    >>> class Echo(BaseProvider):
    ...     name = "echo"
    ...     def stream(self, request):
    ...         yield Result(text=request.content[0]["text"])
    >>> Echo()
    <Echo 'echo'>
    >>> request = Request(key="k", turn=1, session_number=1, content=({"type": "text", "text": "hello"},))
    >>> next(Echo().stream(request)).text
    'hello'
    """

    name = ""

    wants_transcript: bool = False
    """Whether a request for a resumed session brings its raw messages, for an API that does not keep them."""

    wants_tool_results: bool = False
    """Whether a request for a resumed session brings the tool results of its turns that did not succeed (G23).

    Set it for an API whose session may still wait for them.
    """

    @property
    def longest_silence(self) -> float | None:
        """The longest time in seconds without a sign of life while all is well; None if it is not known.

        For a client it is the timeout times the number of attempts. A manager compares its lease with it.
        """
        return None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    def attach(self, store: Store) -> None:
        """Called with the store of each manager that is made with this provider. The default does nothing."""

    def check_content(self, content: tuple[Block, ...]) -> None:
        """Refuse blocks that the provider can't take, before anything is written. The default takes all.

        Args:
            content: the blocks of the user's message.

        Raises:
            InvalidContent: the provider can't take one of them.
        """
