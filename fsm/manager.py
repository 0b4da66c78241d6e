"""The synchronous manager.

:class:`SessionManager` is a thin shell over the engine. The engine's coroutines run to their end in one go, because
they never wait on an event loop: the caller's thread calls the store, reads the provider, and sleeps.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from fsm._runtime.adapters import InlineAdapter
from fsm._runtime.engine import Engine
from fsm._runtime.inline import run
from fsm._runtime.observers import Observer
from fsm._runtime.replay import ReplayedTurn
from fsm._runtime.settings import OnBusy, Settings, utc_now
from fsm._runtime.turn_runner import TurnRunner
from fsm.content import Content
from fsm.context import ContextWindow
from fsm.conversations import Conversations
from fsm.events import Event
from fsm.provider import Provider
from fsm.records import Conversation
from fsm.reply import Reply
from fsm.store import Store

__all__ = ["SessionManager", "StreamedTurn"]


class StreamedTurn:
    """A running turn: iterate over it for its events; see :meth:`SessionManager.stream`.

    One thread at a time reads it.

    Attributes:
        key: the conversation.
        number: the number of the turn.
    """

    def __init__(self, turn: TurnRunner | ReplayedTurn) -> None:
        self._turn = turn
        self.key = turn.key
        self.number = turn.number

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.number} of {self.key!r}>"

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        event = run(self._turn.pull())
        if event is None:
            raise StopIteration
        return event

    @property
    def text(self) -> str:
        """The text so far."""
        return self._turn.text

    @property
    def reply(self) -> Reply:
        """The reply, once the turn has ended.

        Raises:
            RuntimeError: it has not ended; read its events to the end first.
        """
        return self._turn.reply

    def close(self) -> None:
        """End the turn as ``interrupted`` if it has not ended; the answer so far is kept. A closed turn has a reply.

        Raises:
            StoreError: the store refused; ``error.reply`` holds the answer (G16).
        """
        run(self._turn.close())


class SessionManager:
    """Conversations with one AI, kept in one store. Any number of threads may use one manager.

    A manager is a context manager. Once it is closed it refuses new turns; turns that had begun may be read to their
    end. It does not close the store, which it did not open.

    Args:
        store: where the conversations are kept, such as ``persistence.SQLStore``.
        provider: the AI, such as :class:`fsm.providers.DemoProvider`.
        heal: replace a session that a turn finds dead within that turn, once (G11). Without it the turn fails, the
            conversation is stale, and the next turn starts the new session.
        context: the part of the stored history that a new session is told.
        lease: the seconds that a turn may give no sign of life before other workers may end it. Set it above your
            provider's longest silence. None for 600, or 60 more than that silence if it is known and longer.
        on_busy: ``raise`` if another turn runs in the conversation, or ``wait`` for it.
        busy_timeout: the seconds to wait for it.
        observers: functions that are called with each :class:`~fsm.Transition` after it was committed. Their
            exceptions are logged.
        clock: a function that returns the time as an aware ``datetime`` in UTC.

    Raises:
        InvalidInput: an argument is not usable.

    >>> from fsm import SessionManager
    >>> from fsm.providers import DemoProvider
    >>> from persistence import SQLStore
    >>> with SessionManager(SQLStore("sqlite:///:memory:"), DemoProvider()) as manager:
    ...     reply = manager.send("ticket-42", "Where is my parcel?")
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
        self._engine = Engine(store, InlineAdapter(store, provider), settings)
        self._conversations = Conversations.of(self._engine.commands, observers)
        self._shown = f"<{type(self).__name__} of {settings.provider!r} on {store!r}>"

    def __repr__(self) -> str:
        return self._shown

    def __enter__(self) -> Self:
        self._engine.check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Refuse new turns from now on. Closing twice is a no-op."""
        self._engine.is_closed = True

    @property
    def is_closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._engine.is_closed

    @property
    def conversations(self) -> Conversations:
        """The conversations of the store, for everything that needs no AI."""
        return self._conversations

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
            idempotency_key: your name for this message. If the conversation knows the name, the message is not sent
                again: its stored reply is returned (G13).
            metadata: a JSON object, merged into the conversation's.

        Returns:
            The reply. A turn that failed is a reply too; ``reply.raise_for_error()`` raises.

        Raises:
            InvalidInput: an argument is not usable. Nothing was written or sent.
            ConversationBusy: another turn is running.
            ProviderError: the provider broke its contract; the turn is interrupted.
            StoreError: the store refused; ``error.reply`` holds the answer, if there was one (G16).
            TurnSuperseded: a reset or another worker ended the turn first (G10).
        """
        turn = run(self._engine.begin(key, content, idempotency_key=idempotency_key, metadata=metadata))
        try:
            run(turn.pull(to_the_end=True))
        finally:
            run(turn.close())
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
        ``interrupted`` and keeps the answer so far. Arguments and errors are those of :meth:`send`.

        >>> from fsm.providers import DemoProvider
        >>> from persistence import SQLStore
        >>> manager = SessionManager(SQLStore("sqlite:///:memory:"), DemoProvider())
        >>> with manager.stream("ticket-42", "And now?") as turn:
        ...     events = list(turn)
        >>> turn.reply.result is events[-1]
        True
        """
        begun = self._engine.begin(key, content, idempotency_key=idempotency_key, metadata=metadata)
        turn = StreamedTurn(run(begun))
        try:
            yield turn
        finally:
            turn.close()

    def reset(self, key: str, *, reason: str = "asked for", force: bool = False) -> Conversation:
        """Start over with a new session of this manager's provider; the stored history stays and is told again.

        With ``on_busy="wait"`` it waits for a running turn. Arguments and errors are those of
        :meth:`fsm.Conversations.reset`.
        """
        return run(self._engine.reset(key, reason=reason, force=force))

    def recover(self) -> list[Conversation]:
        """End the running turns whose owner is gone; see :meth:`fsm.Conversations.recover`."""
        return run(self._engine.recover())
