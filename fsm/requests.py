"""What a provider is asked: to resume a session, or to start a new one with the context rebuilt (G3).

A request is made from what is stored and from nothing else: the same rows make the same request, so what a session was
opened with is sent again word for word with each later message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fsm.content import Block
from fsm.context import has_beginning, rebuild, with_results
from fsm.provider import Request
from fsm.records import Conversation, Message
from fsm.states import State

if TYPE_CHECKING:
    from fsm.driver import Driver

__all__ = ["Requests"]


class Requests:
    """Makes requests.

    Args:
        driver: reads what they are made from.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._settings = driver.settings

    async def make(
        self, conversation: Conversation, content: tuple[Block, ...], characters: int | None = None
    ) -> Request:
        """The request for the running turn.

        Args:
            conversation: the snapshot.
            content: the new message.
            characters: how much of the history a new session may be told, if more was refused for its size.
        """
        return Request(
            key=conversation.key,
            turn=conversation.turns,
            session=conversation.session,
            content=content,
            session_id=conversation.session_id,
            history=await self._history(conversation, content, characters),
            metadata=conversation.metadata,
        )

    async def _history(
        self, conversation: Conversation, content: Sequence[Block], characters: int | None
    ) -> tuple[Message, ...]:
        session = conversation.session
        if conversation.state is not State.ACTIVE:
            return await self._past(conversation, session, content, characters)
        if self._settings.wants_transcript:
            transcript = await self._said(conversation, content, session, session, limit=None)
            opening = transcript[0].content if transcript else content
            return (*await self._past(conversation, session - 1, opening), *transcript)
        if self._settings.wants_tool_results:
            return with_results((), await self._unheard(conversation, session, session, limit=None), content)
        return ()

    async def _past(
        self,
        conversation: Conversation,
        last_session: int,
        content: Sequence[Block],
        characters: int | None = None,
    ) -> tuple[Message, ...]:
        """What a session after ``last_session`` is told of what was said until then."""
        if last_session < 1 or conversation.turns < 2:
            return ()
        window = self._settings.context
        window = window.remembered(conversation.window, content) if characters is None else window.narrowed(characters)
        limit = window.max_messages + 1
        messages = await self._said(conversation, content, 1, last_session, limit)
        while len(messages) >= limit > 2 and not has_beginning(messages):
            limit *= 4  # a turn that is larger than the window is told from its beginning (G22)
            messages = await self._said(conversation, content, 1, last_session, limit)
        return rebuild(messages, window, content)

    async def _said(
        self, conversation: Conversation, content: Sequence[Block], first: int, last: int, limit: int | None
    ) -> tuple[Message, ...]:
        """What may be told of these sessions: succeeded turns, and the tool results of others (G23)."""
        told = await self._driver.ask(
            conversation.key,
            self._driver.store.context,
            conversation,
            first_session=first,
            last_session=last,
            limit=limit,
        )
        return with_results(told, await self._unheard(conversation, first, last, limit), content)

    async def _unheard(self, conversation: Conversation, first: int, last: int, limit: int | None) -> Sequence[Message]:
        """The messages with tool results of turns that did not succeed."""
        return await self._driver.ask(
            conversation.key,
            self._driver.store.unheard,
            conversation,
            first_session=first,
            last_session=last,
            limit=limit,
        )
