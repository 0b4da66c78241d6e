"""The reply to a message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from fsm._core.table import State
from fsm.content import Block
from fsm.errors import TurnFailed
from fsm.events import Result, ToolUse
from fsm.records import Record, TurnStatus

__all__ = ["Reply", "tool_use_of"]


@frozen(kw_only=True)
class Reply(Record):
    """The reply to a message.

    Attributes:
        key: the conversation.
        turn: the number of the turn.
        text: the AI's text; of a failed turn, the text before the failure. Never an error's text.
        state: the conversation's state after the turn.
        status: the status of the turn.
        result: the AI's report, or None if the turn was cut off.
        healed: whether a dead session was replaced within the turn.
        replayed: whether the reply was stored before and is returned for its idempotency key (G13).
        content: all blocks of the answer, as they are stored: text, tool calls, blocks of the provider.
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

    def to_dict(self) -> dict[str, Any]:
        """Return the reply as an object that can be written as JSON, with its :attr:`summary`."""
        return {**super().to_dict(), "summary": self.summary}

    @property
    def tool_calls(self) -> tuple[ToolUse, ...]:
        """The calls of tools among the content, in order."""
        return tuple(tool_use_of(block) for block in self.content if block["type"] == "tool_use")

    @property
    def usage(self) -> Mapping[str, Any] | None:
        """The token counts, as the provider gives them; None if it gave none or the turn was cut off."""
        return None if self.result is None else self.result.usage

    @property
    def session_id(self) -> str | None:
        """The provider session id that the result names, or None."""
        return None if self.result is None else self.result.session_id

    @property
    def summary(self) -> str:
        """One plain sentence about the outcome, for the person at the other end."""
        if self.result is None:
            return "The answer was cut off; please send your message again."
        return self.result.summary

    def raise_for_error(self) -> Reply:
        """Return this reply if its turn succeeded.

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


def tool_use_of(block: Block) -> ToolUse:
    """Return the event that a stored block of type ``tool_use`` was."""
    return ToolUse(block["id"], block["name"], block["input"])
