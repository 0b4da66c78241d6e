"""What a provider is asked: to resume a session, or to start a new one with the context rebuilt (G3).

A request is made from what is stored and from nothing else: the same rows make the same request, so what a session was
opened with is sent again word for word with each later message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fsm._core.table import State
from fsm.content import Block
from fsm.context import from_beginning, has_beginning, rebuild, with_results
from fsm.provider import Request
from fsm.records import Conversation, Message

if TYPE_CHECKING:
    from fsm._runtime.engine import Driver

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
            turn=conversation.turn_count,
            session_number=conversation.session_number,
            content=content,
            session_id=conversation.session_id,
            history=await self._history(conversation, content, characters),
            metadata=conversation.metadata,
        )

    async def _history(
        self, conversation: Conversation, content: Sequence[Block], characters: int | None
    ) -> tuple[Message, ...]:
        session = conversation.session_number
        if conversation.state is not State.ACTIVE:
            return await self._past(conversation, session, content, characters)
        if self._settings.wants_transcript:
            told = await self._told(conversation, session, session, None)
            transcript = await self._with_results(told, conversation, content, session, session, None)
            opening = transcript[0].content if transcript else content
            return (*await self._past(conversation, session - 1, opening), *transcript)
        if self._settings.wants_tool_results:
            return await self._with_results((), conversation, content, session, session, None)
        return ()

    async def _past(
        self,
        conversation: Conversation,
        last_session: int,
        content: Sequence[Block],
        characters: int | None = None,
    ) -> tuple[Message, ...]:
        """What a session after ``last_session`` is told of what was said until then."""
        if last_session < 1 or conversation.turn_count < 2:
            return ()
        window = self._settings.context
        window = window.remembered(conversation.window, content) if characters is None else window.narrowed(characters)
        limit = window.max_messages + 1
        told = await self._told(conversation, 1, last_session, limit)
        while len(told) >= limit > 2 and not has_beginning(told):
            limit *= 4  # a turn that is larger than the window is told from its beginning (G22)
            told = await self._told(conversation, 1, last_session, limit)
        messages: Sequence[Message] = await self._with_results(told, conversation, content, 1, last_session, limit)
        if len(told) >= limit:  # and nothing from before what was read, so that there is no gap
            messages = from_beginning([message for message in messages if message.number >= told[0].number])
        return rebuild(messages, window, content)

    async def _told(self, conversation: Conversation, first: int, last: int, limit: int | None) -> Sequence[Message]:
        """The messages of succeeded turns of these sessions."""
        return await self._driver.ask(
            conversation.key,
            self._driver.store.context,
            conversation,
            first_session=first,
            last_session=last,
            limit=limit,
        )

    async def _with_results(
        self,
        told: Sequence[Message],
        conversation: Conversation,
        content: Sequence[Block],
        first: int,
        last: int,
        limit: int | None,
    ) -> tuple[Message, ...]:
        """The same, and the tool results of other turns of these sessions (G23)."""
        unheard = await self._driver.ask(
            conversation.key,
            self._driver.store.unheard,
            conversation,
            first_session=first,
            last_session=last,
            limit=limit,
        )
        return with_results(told, unheard, content)
