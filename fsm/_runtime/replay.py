"""The replay of a stored turn whose idempotency key is used again: the provider is not asked (G13)."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from fsm.content import Block, text_of
from fsm.events import Event, Result, TextDelta, ToolResult
from fsm.records import Conversation, Message, Turn
from fsm.reply import Reply, tool_use_of

__all__ = ["ReplayedTurn", "stored_events", "stored_reply"]


class ReplayedTurn:
    """A turn that had ended before, with its stored events and its stored reply (G13).

    Args:
        reply: the stored reply.
        messages: the messages of the turn.
    """

    def __init__(self, reply: Reply, messages: Sequence[Message]) -> None:
        self.key = reply.key
        self.number = reply.turn
        self.text = reply.text
        self.reply = reply
        self._events = deque(stored_events(messages, reply.result))

    def run(self) -> None:
        """Do nothing: the turn has ended."""

    async def pull(self, *, to_the_end: bool = False) -> Event | None:
        """Return the next event, or None at the end."""
        if to_the_end:
            self._events.clear()
        return self._events.popleft() if self._events else None

    async def close(self) -> None:
        """Do nothing: nothing is open."""


def stored_reply(conversation: Conversation, turn: Turn, messages: Sequence[Message]) -> Reply:
    """Return the reply of a stored turn, as its caller got it.

    Args:
        conversation: the conversation.
        turn: the turn, which has ended.
        messages: all of its messages, oldest first.
    """
    answers = [message for message in messages if message.role == "assistant"]
    result = None
    if turn.subtype is not None:
        result = Result(
            subtype=turn.subtype,
            is_error=turn.is_error,
            session_id=turn.session_id,
            errors=turn.errors,
            stop_reason=turn.stop_reason,
            usage=turn.usage,
            cost_usd=turn.cost_usd,
            http_status=turn.http_status,
            provider_data=answers[-1].provider_data if answers else None,
        )
    return Reply(
        key=conversation.key,
        turn=turn.number,
        text="".join(message.text for message in answers),
        state=turn.state or conversation.state,
        status=turn.status,
        result=result,
        healed=turn.healed,
        replayed=True,
        content=tuple(block for message in answers for block in message.content),
    )


def stored_events(messages: Sequence[Message], result: Result | None) -> list[Event]:
    """Return the events of a stored turn, with adjacent pieces of text joined.

    Args:
        messages: all of its messages, oldest first; the first is the user's own.
        result: its result, or None if it was cut off.
    """
    events: list[Event] = [
        event for message in messages[1:] for block in message.content if (event := _event(block)) is not None
    ]
    return [*events, result] if result is not None else events


def _event(block: Block) -> Event | None:
    """Return the event of a stored block, or None for a block without one, such as a thought."""
    match block["type"]:
        case "text":
            return TextDelta(text_of([block]))
        case "tool_use":
            return tool_use_of(block)
        case "tool_result":
            return ToolResult(block["tool_use_id"], block.get("content", ""), bool(block.get("is_error")))
    return None
