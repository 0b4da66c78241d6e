"""What a caller gets for a message: the reply, as it was given or as it was stored."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from attrs import field, frozen

from fsm._core.table import State
from fsm.content import Block, text_of
from fsm.errors import TurnFailed
from fsm.events import Event, Result, TextDelta, ToolResult, ToolUse
from fsm.records import Conversation, Message, Turn, TurnStatus

__all__ = ["ReplayedTurn", "Reply", "stored_events", "stored_reply"]


@frozen
class Reply:
    """What a caller gets for a message.

    Attributes:
        key: the conversation.
        turn: the number of the turn.
        text: the AI's text; of a failed turn, what it said before it failed. Never an error's text.
        state: the conversation's state after the turn.
        status: how the turn ended.
        result: what the AI reported; None if the turn was cut off.
        healed: whether a dead session was replaced within the turn.
        replayed: whether this was stored before and is returned for its idempotency key (G13).
        content: all blocks that the AI said, as they are stored: text, tool calls, what the provider adds.
    """

    key: str
    turn: int
    text: str
    state: State
    status: TurnStatus
    result: Result | None = None
    healed: bool = False
    replayed: bool = False
    content: tuple[Block, ...] = field(default=(), hash=False)

    @property
    def tool_calls(self) -> tuple[ToolUse, ...]:
        """The calls of tools among the content, in order."""
        return tuple(_tool_use(block) for block in self.content if block["type"] == "tool_use")

    @property
    def summary(self) -> str:
        """One plain sentence about how it went, for the person at the other end."""
        if self.result is None:
            return "The answer was cut off; please send your message again."
        return self.result.summary

    def raise_for_error(self) -> Reply:
        """Return the reply itself if its turn succeeded.

        Raises:
            TurnFailed: it did not; ``error.reply`` is this reply.
        """
        if self.status is TurnStatus.SUCCEEDED:
            return self
        how = f"{self.status.value}" if self.result is None else f"{self.status.value} ({self.result.reason})"
        raise TurnFailed(
            f"turn {self.turn} {how}; the conversation is {self.state.value} and takes the next message"
            + (", with another idempotency key" if self.replayed else ""),
            self.key,
            self,
        )


class ReplayedTurn:
    """A turn that was ended before: it hands out its stored events, and has its stored reply (G13).

    Args:
        reply: the stored reply.
        messages: the messages of the turn.
    """

    def __init__(self, reply: Reply, messages: Sequence[Message]) -> None:
        self.key = reply.key
        self.number = reply.turn
        self.text = reply.text
        self.healed = reply.healed
        self.reply = reply
        self._events = deque(stored_events(messages, reply.result))

    async def pull(self) -> Event | None:
        """The next event, or None at the end."""
        return self._events.popleft() if self._events else None

    async def close(self) -> None:
        """Nothing is open."""


def stored_reply(conversation: Conversation, turn: Turn, messages: Sequence[Message]) -> Reply:
    """The reply of a stored turn, as its caller got it.

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
    """The events of a stored turn, with adjacent pieces of text joined.

    Args:
        messages: all of its messages, oldest first; the first is the user's own.
        result: its result; None if it was cut off.
    """
    events: list[Event] = [
        event for message in messages[1:] for block in message.content if (event := _event(block)) is not None
    ]
    return [*events, result] if result is not None else events


def _event(block: Block) -> Event | None:
    """The event that a stored block was; None for one that no event tells, such as a thought."""
    match block["type"]:
        case "text":
            return TextDelta(text_of([block]))
        case "tool_use":
            return _tool_use(block)
        case "tool_result":
            return ToolResult(block["tool_use_id"], block.get("content", ""), bool(block.get("is_error")))
    return None


def _tool_use(block: Block) -> ToolUse:
    return ToolUse(block["id"], block["name"], block["input"])
