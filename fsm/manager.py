"""The synchronous manager: what an application embeds.

:class:`SessionManager` is a thin shell. It lets the driver's coroutines run to their end in one go, for its ports never
wait on an event loop: a store is called, a provider is read, and the thread sleeps, right where it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Self, TypeVar

from fsm._runtime.adapters import ThreadPorts
from fsm._runtime.engine import Driver
from fsm._runtime.settings import Observer, OnBusy, Settings, utc_now
from fsm._runtime.streamed import Streamed
from fsm.content import Content
from fsm.context import ContextWindow
from fsm.events import Event
from fsm.provider import Provider
from fsm.records import Conversation, Message, Session, Transition, Turn
from fsm.reply import Reply
from fsm.store import Store

__all__ = ["SessionManager", "StreamedTurn"]

R = TypeVar("R")


def _run(coroutine: Coroutine[Any, Any, R]) -> R:
    """Run a coroutine whose ports never wait to its end."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: R = stop.value
        return result
    coroutine.close()
    raise RuntimeError("a port of the synchronous manager has waited; its store or provider is an asynchronous one")


class StreamedTurn(Streamed):
    """A running turn whose events are read by iterating over it; see :meth:`SessionManager.stream`.

    One thread at a time reads it.
    """

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        event = _run(self._turn.pull())
        if event is None:
            raise StopIteration
        return event

    def close(self) -> None:
        """End the turn as ``interrupted`` if it has not ended; what was said is kept. A closed turn has a reply.

        Raises:
            StoreError: the store refused; ``error.reply`` holds what was answered (G16).
        """
        _run(self._turn.close())


class SessionManager:
    """Conversations with one AI, kept in one store. Any number of threads may use one manager.

    Args:
        store: where the conversations are kept, such as ``persistence.SQLStore``.
        provider: the AI, such as :class:`fsm.providers.DemoProvider`.
        heal: replace a session that a turn finds dead within that turn, once (G11). Without it the turn fails, the
            conversation is stale, and the next turn starts the new session.
        context: how much of the stored history a new session is told.
        lease: for how many seconds a turn may give no sign of life before other workers may end it. Set it above your
            provider's longest silence. None for 600, or 60 more than that silence if it is known and longer.
        on_busy: what to do when another turn runs in the conversation: ``raise``, or ``wait`` for it.
        busy_timeout: for how many seconds to wait for it.
        observers: called with each :class:`~fsm.Transition` after it was committed; what they raise is logged.
        clock: tells the time as an aware ``datetime`` in UTC.

    Raises:
        InvalidInput: an argument is not usable.

    >>> from fsm import SessionManager
    >>> from fsm.providers import DemoProvider
    >>> from persistence import SQLStore
    >>> manager = SessionManager(SQLStore("sqlite:///:memory:"), DemoProvider())
    >>> reply = manager.send("ticket-42", "Where is my parcel?")
    >>> reply.state, reply.healed
    (<State.ACTIVE: 'active'>, False)
    """

    def __init__(
        self,
        store: Store,
        provider: Provider,
        *,
        heal: bool = True,
        context: ContextWindow | None = None,
        lease: float | None = None,
        on_busy: OnBusy = "raise",
        busy_timeout: float = 60.0,
        observers: Collection[Observer] = (),
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        settings = Settings.of(
            store,
            provider,
            ("stream",),
            heal=heal,
            context=ContextWindow() if context is None else context,
            lease=lease,
            on_busy=on_busy,
            busy_timeout=busy_timeout,
            observers=observers,
            clock=clock,
        )
        self._driver = Driver(store, ThreadPorts(provider), settings)
        self._store = store

    def send(
        self,
        key: str,
        content: Content,
        *,
        idempotency_key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Reply:
        """Send a message and wait for the whole answer.

        Args:
            key: the conversation; it begins with its first message.
            content: text, or a list of blocks.
            idempotency_key: your name for this message. A message with a name that the conversation knows is not
                sent again; its stored reply is returned (G13).
            metadata: a JSON object, merged into the conversation's.

        Returns:
            The reply. A turn that failed is a reply too; ``reply.raise_for_error()`` raises.

        Raises:
            InvalidInput: an argument is not usable. Nothing was written or sent.
            ConversationBusy: another turn is running.
            ProviderError: the provider broke its contract; the turn is interrupted.
            StoreError: the store refused; ``error.reply`` holds what was answered, if anything was (G16).
            TurnSuperseded: a reset or another worker ended the turn first (G10).
        """
        with self.stream(key, content, idempotency_key=idempotency_key, metadata=metadata) as turn:
            for _ in turn:
                pass
        return turn.reply

    @contextmanager
    def stream(
        self,
        key: str,
        content: Content,
        *,
        idempotency_key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Iterator[StreamedTurn]:
        """Send a message and read the answer as it comes.

        Iterate over the turn for its events; afterwards it has a ``reply``. Leaving the block early ends the turn as
        ``interrupted`` and keeps what was said. Arguments and errors are those of :meth:`send`.

        >>> from fsm.providers import DemoProvider
        >>> from persistence import SQLStore
        >>> manager = SessionManager(SQLStore("sqlite:///:memory:"), DemoProvider())
        >>> with manager.stream("ticket-42", "And now?") as turn:
        ...     events = list(turn)
        >>> turn.reply.result is events[-1]
        True
        """
        begun = self._driver.begin(key, content, idempotency_key=idempotency_key, metadata=metadata)
        turn = StreamedTurn(_run(begun))
        try:
            yield turn
        finally:
            turn.close()

    def reset(self, key: str, *, reason: str = "asked for", force: bool = False) -> Conversation:
        """Start over with a new provider session; the stored history stays and its context is rebuilt.

        Args:
            key: the conversation.
            reason: why, in a line; kept with the closed session.
            force: end a running turn as ``superseded`` instead of raising.

        Raises:
            ConversationNotFound: there is none of this key.
            ConversationBusy: a turn is running, and ``force`` was not given.
            InvalidInput, StoreError: see :meth:`send`.
        """
        return _run(self._driver.reset(key, reason=reason, force=force))

    def recover(self) -> list[Conversation]:
        """End the running turns whose owner is gone or whose lease is over, as ``interrupted`` (G9).

        Safe to call at any time, by any number of workers. The next turn of a conversation does it by itself.

        Returns:
            The conversations in which a turn was ended.
        """
        return _run(self._driver.recover())

    def conversation(self, key: str) -> Conversation:
        """The conversation as it stands.

        Raises:
            ConversationNotFound: there is none of this key.
        """
        return _run(self._driver.load(key))

    def conversations(self, *, limit: int | None = None, after: str | None = None) -> Sequence[Conversation]:
        """The first ``limit`` conversations in the order of their keys, from the one after key ``after`` on."""
        return self._store.conversations(limit=limit, after=after)

    def messages(self, key: str, *, limit: int | None = None, before: int | None = None) -> Sequence[Message]:
        """The newest ``limit`` messages before number ``before``, oldest first; failed turns' messages included."""
        return self._store.messages(self.conversation(key), limit=limit, before=before)

    def turns(self, key: str, *, limit: int | None = None, before: int | None = None) -> Sequence[Turn]:
        """The newest ``limit`` turns before number ``before``, oldest first."""
        return self._store.turns(self.conversation(key), limit=limit, before=before)

    def sessions(self, key: str, *, limit: int | None = None, before: int | None = None) -> Sequence[Session]:
        """The newest ``limit`` sessions before number ``before``, oldest first; each with its parent."""
        return self._store.sessions(self.conversation(key), limit=limit, before=before)

    def transitions(self, key: str, *, limit: int | None = None, before: int | None = None) -> Sequence[Transition]:
        """The newest ``limit`` moves before number ``before``, oldest first: a path of the table (G6)."""
        return self._store.transitions(self.conversation(key), limit=limit, before=before)
