"""The history of a request: the past that a new session is told, or the transcript of a resumed one (G3).

A history is a function of stored rows. So a session's opening is sent again word for word with each later message.
Everything here blocks while it reads the store.
"""

from __future__ import annotations

from collections.abc import Sequence

from fsm._core.table import State
from fsm._runtime.settings import Settings
from fsm._runtime.store_errors import store_errors
from fsm.content import Block
from fsm.context import from_beginning, has_beginning, rebuild, with_results
from fsm.records import Conversation, Message
from fsm.store import Store

__all__ = ["Requests"]


class Requests:
    """Makes the histories of requests.

    Args:
        store: where the messages are.
        settings: how the manager behaves.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings

    def reads_history(self, conversation: Conversation) -> bool:
        """Return whether the running turn's request has a history, so that the store has to be read."""
        if conversation.state is State.ACTIVE:
            return self._settings.wants_transcript or self._settings.wants_tool_results
        return conversation.turn_count > 1

    def history(
        self, conversation: Conversation, content: tuple[Block, ...], characters: int | None = None
    ) -> tuple[Message, ...]:
        """Return the history of the running turn's request, oldest first.

        Args:
            conversation: the snapshot.
            content: the new message.
            characters: the most characters that a new session may be told, if more was refused for its size.
        """
        session = conversation.session_number
        if conversation.state is not State.ACTIVE:
            return self._past(conversation, session, content, characters)
        if not self._settings.wants_transcript:
            return self._with_results((), conversation, content, session, session, None)
        told = self._told(conversation, session, session, None)
        transcript = self._with_results(told, conversation, content, session, session, None)
        opening = transcript[0].content if transcript else content
        return (*self._past(conversation, session - 1, opening), *transcript)

    def _past(
        self,
        conversation: Conversation,
        last_session: int,
        content: Sequence[Block],
        characters: int | None = None,
    ) -> tuple[Message, ...]:
        """Return the history for a session that follows ``last_session``."""
        if last_session < 1 or conversation.turn_count < 2:
            return ()
        window = self._settings.context
        window = window.remembered(conversation.window, content) if characters is None else window.narrowed(characters)
        limit = window.max_messages + 1
        told = self._told(conversation, 1, last_session, limit)
        while len(told) >= limit > 2 and not has_beginning(told):
            limit *= 4  # a turn that is larger than the window is told from its beginning (G22)
            told = self._told(conversation, 1, last_session, limit)
        messages: Sequence[Message] = self._with_results(told, conversation, content, 1, last_session, limit)
        if len(told) >= limit:  # drop a turn that was not read whole, so that there is never a gap
            messages = from_beginning([message for message in messages if message.number >= told[0].number])
        return rebuild(messages, window, content)

    def _told(self, conversation: Conversation, first: int, last: int, limit: int | None) -> Sequence[Message]:
        """Return the messages of succeeded turns of these sessions."""
        with store_errors(conversation.key):
            return self._store.context(conversation, first_session=first, last_session=last, limit=limit)

    def _with_results(
        self,
        told: Sequence[Message],
        conversation: Conversation,
        content: Sequence[Block],
        first: int,
        last: int,
        limit: int | None,
    ) -> tuple[Message, ...]:
        """Return these messages, and among them the tool results of other turns of these sessions (G23)."""
        with store_errors(conversation.key):
            unheard = self._store.unheard(conversation, first_session=first, last_session=last, limit=limit)
        return with_results(told, unheard, content)
