"""The conversations of a store, for everything that needs no AI: read, list, reset, recover.

:class:`Conversations` calls the store in the caller's thread; :class:`AsyncConversations` calls it in other threads.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Self

from fsm._runtime.adapters import Adapter
from fsm._runtime.commands import Commands
from fsm._runtime.observers import Observer, tell_observers
from fsm._runtime.scripts import run_alone
from fsm._runtime.settings import check_store, utc_now
from fsm._runtime.store_errors import store_errors
from fsm._runtime.worker import Worker
from fsm.records import Conversation, Message, Session, Transition, Turn
from fsm.store import Store

__all__ = ["AsyncConversations", "Conversations"]


class Conversations:
    """The conversations of one store. No AI is needed; ``manager.conversations`` is one of these.

    Args:
        store: where the conversations are kept.
        observers: functions that are called with each :class:`~fsm.Transition` after it was committed.
        clock: a function that returns the time as an aware ``datetime`` in UTC.

    Raises:
        InvalidInput: the store is not one.

    >>> from fsm import Conversations, SessionManager
    >>> from fsm.providers import DemoProvider
    >>> from persistence import SQLStore
    >>> store = SQLStore("sqlite:///:memory:")
    >>> reply = SessionManager(store, DemoProvider()).send("ticket-42", "Where is my parcel?")
    >>> talks = Conversations(store)
    >>> [talk.key for talk in talks.list()], talks.messages("ticket-42")[0].text
    (['ticket-42'], 'Where is my parcel?')
    """

    def __init__(
        self, store: Store, *, observers: Collection[Observer] = (), clock: Callable[[], datetime] = utc_now
    ) -> None:
        check_store(store)
        self._commands = Commands(store, clock, Worker())
        self._observers = observers

    @classmethod
    def of(cls, commands: Commands, observers: Collection[Observer]) -> Self:
        """Return the conversations of a manager, which knows which turns it runs itself."""
        talks = cls(commands.store, observers=observers)
        talks._commands = commands
        return talks

    def __repr__(self) -> str:
        return f"<{type(self).__name__} on {self._commands.store!r}>"

    def get(self, key: str) -> Conversation:
        """Return the conversation as it stands.

        Raises:
            ConversationNotFound: no turn was ever begun under this key.
            InvalidKey: it can't be a key.
            StoreError: the store refused.
        """
        return self._commands.load(key)

    def list(self, *, limit: int | None = None, after: str | None = None) -> Sequence[Conversation]:
        """Return the first ``limit`` conversations in the order of their keys, from the one after key ``after`` on."""
        with store_errors(None):
            return self._commands.store.conversations(limit=limit, after=after)

    def count(self) -> int:
        """Return the number of conversations."""
        with store_errors(None):
            return self._commands.store.count()

    def messages(self, key: str, *, limit: int | None = None, before: int | None = None) -> Sequence[Message]:
        """Return the newest ``limit`` messages before number ``before``, oldest first; failed turns' included.

        Raises:
            ConversationNotFound, InvalidKey, StoreError: see :meth:`get`, also for the next three methods.
        """
        conversation = self.get(key)
        with store_errors(key):
            return self._commands.store.messages(conversation, limit=limit, before=before)

    def turns(self, key: str, *, limit: int | None = None, before: int | None = None) -> Sequence[Turn]:
        """Return the newest ``limit`` turns before number ``before``, oldest first."""
        conversation = self.get(key)
        with store_errors(key):
            return self._commands.store.turns(conversation, limit=limit, before=before)

    def sessions(self, key: str, *, limit: int | None = None, before: int | None = None) -> Sequence[Session]:
        """Return the newest ``limit`` sessions before number ``before``, oldest first; each with its parent."""
        conversation = self.get(key)
        with store_errors(key):
            return self._commands.store.sessions(conversation, limit=limit, before=before)

    def transitions(self, key: str, *, limit: int | None = None, before: int | None = None) -> Sequence[Transition]:
        """Return the newest ``limit`` transitions before number ``before``, oldest first: a path of the table (G6)."""
        conversation = self.get(key)
        with store_errors(key):
            return self._commands.store.transitions(conversation, limit=limit, before=before)

    def reset(self, key: str, *, reason: str = "asked for", force: bool = False) -> Conversation:
        """Start over with a new provider session; the stored history stays, and the new session is told it.

        Args:
            key: the conversation.
            reason: the reason, in a line; kept with the closed session.
            force: end a running turn as ``superseded`` instead of raising.

        Returns:
            The conversation afterwards.

        Raises:
            ConversationNotFound: no turn was ever begun under this key.
            ConversationBusy: a turn is running, and ``force`` was not given.
            InvalidInput: the reason is not a line of text.
            StoreError: the store refused. Nothing was written.
        """
        step = run_alone(self._commands.store, self._commands.reset(key, reason=reason, force=force))
        tell_observers(self._observers, step)
        return step.after

    def recover(self) -> Sequence[Conversation]:
        """End the running turns whose owner is gone or whose lease is over, as ``interrupted`` (G9).

        It is safe at any time, for any number of workers. The next turn of a conversation does it by itself.

        Returns:
            The conversations in which a turn was ended.

        Raises:
            StoreError: the store refused.
        """
        steps = self._commands.recover()
        for step in steps:
            tell_observers(self._observers, step)
        return [step.after for step in steps]


class AsyncConversations:
    """The conversations of one store, for applications on asyncio or trio; see :class:`fsm.Conversations`.

    The store is called in threads. Observers are called there too.

    Args:
        store: where the conversations are kept.
        observers: functions that are called with each :class:`~fsm.Transition` after it was committed.
        clock: a function that returns the time as an aware ``datetime`` in UTC.

    Raises:
        InvalidInput: the store is not one.
    """

    def __init__(
        self, store: Store, *, observers: Collection[Observer] = (), clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._talks = Conversations(store, observers=observers, clock=clock)
        self._adapter = _loop_adapter(store)

    @classmethod
    def of(cls, talks: Conversations, store: Store, adapter: Adapter) -> Self:
        """Return the conversations of a manager, which knows which turns it runs itself."""
        found = cls(store)
        found._talks, found._adapter = talks, adapter
        return found

    def __repr__(self) -> str:
        return f"<{type(self).__name__}{repr(self._talks).removeprefix('<Conversations')}"

    async def get(self, key: str) -> Conversation:
        """See :meth:`fsm.Conversations.get`."""
        return await self._adapter.call(self._talks.get, key)

    async def list(self, *, limit: int | None = None, after: str | None = None) -> Sequence[Conversation]:
        """See :meth:`fsm.Conversations.list`."""
        return await self._adapter.call(self._talks.list, limit=limit, after=after)

    async def count(self) -> int:
        """See :meth:`fsm.Conversations.count`."""
        return await self._adapter.call(self._talks.count)

    async def messages(self, key: str, *, limit: int | None = None, before: int | None = None) -> Sequence[Message]:
        """See :meth:`fsm.Conversations.messages`."""
        return await self._adapter.call(self._talks.messages, key, limit=limit, before=before)

    async def turns(self, key: str, *, limit: int | None = None, before: int | None = None) -> Sequence[Turn]:
        """See :meth:`fsm.Conversations.turns`."""
        return await self._adapter.call(self._talks.turns, key, limit=limit, before=before)

    async def sessions(self, key: str, *, limit: int | None = None, before: int | None = None) -> Sequence[Session]:
        """See :meth:`fsm.Conversations.sessions`."""
        return await self._adapter.call(self._talks.sessions, key, limit=limit, before=before)

    async def transitions(
        self, key: str, *, limit: int | None = None, before: int | None = None
    ) -> Sequence[Transition]:
        """See :meth:`fsm.Conversations.transitions`."""
        return await self._adapter.call(self._talks.transitions, key, limit=limit, before=before)

    async def reset(self, key: str, *, reason: str = "asked for", force: bool = False) -> Conversation:
        """See :meth:`fsm.Conversations.reset`."""
        return await self._adapter.call(self._talks.reset, key, reason=reason, force=force)

    async def recover(self) -> Sequence[Conversation]:
        """See :meth:`fsm.Conversations.recover`."""
        return await self._adapter.call(self._talks.recover)


def _loop_adapter(store: Store) -> Adapter:
    """Return the way of an event loop; it is imported when it is needed, because anyio takes long to import."""
    from fsm._runtime.loop_adapters import LoopAdapter

    return LoopAdapter(store, None, threads=16)
