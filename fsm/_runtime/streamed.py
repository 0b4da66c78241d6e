"""What the reader of a turn sees of it while it runs, whichever way it reads."""

from __future__ import annotations

from fsm._runtime.turn_runner import DrivenTurn
from fsm.reply import ReplayedTurn, Reply

__all__ = ["Streamed"]


class Streamed:
    """A running turn, as its reader sees it. One thread or task at a time reads it.

    Attributes:
        key: the conversation.
        number: the number of the turn.
    """

    def __init__(self, turn: DrivenTurn | ReplayedTurn) -> None:
        self._turn = turn
        self.key = turn.key
        self.number = turn.number

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.number} of {self.key!r}>"

    @property
    def text(self) -> str:
        """The text so far."""
        return self._turn.text

    @property
    def healed(self) -> bool:
        """Whether a dead session was replaced within the turn, so far."""
        return self._turn.healed

    @property
    def reply(self) -> Reply:
        """The reply, once the turn has ended.

        Raises:
            RuntimeError: it has not ended; read its events to the end first.
        """
        return self._turn.reply
