"""A worker: one manager in one process, with its name and the turns that it runs."""

from __future__ import annotations

from typing import Protocol
from weakref import WeakValueDictionary

from fsm._runtime.owner import is_gone, name_owner
from fsm.fork import renew_in_child
from fsm.records import Conversation

__all__ = ["Worker"]


class _Turn(Protocol):
    key: str
    number: int

    def leave_to_parent(self) -> None: ...


class Worker:
    """One manager in this process. A forked child has another name, and does not run the turns of its parent.

    A turn that its reader has dropped does not count as running, although it never ended.

    Args:
        name: the name, or None for one that tells the process.

    Attributes:
        name: the name under which turns are run.
    """

    def __init__(self, name: str | None = None) -> None:
        self._given = name
        self._turns: WeakValueDictionary[tuple[str, int], _Turn] = WeakValueDictionary()
        self.renew()
        renew_in_child(self)

    def renew(self) -> None:
        """Take a new name and forget all turns, as in a forked child: those turns belong to the parent."""
        self.name = self._given or name_owner()
        for turn in list(self._turns.values()):
            turn.leave_to_parent()
        self._turns.clear()

    def add(self, turn: _Turn) -> None:
        """Register a turn. Do it before the turn is stored, or other callers may take it for an abandoned one."""
        self._turns[turn.key, turn.number] = turn

    def remove(self, turn: _Turn) -> None:
        """Unregister a turn; a no-op if it is not registered."""
        if self._turns.get((turn.key, turn.number)) is turn:
            del self._turns[turn.key, turn.number]

    def has_abandoned(self, conversation: Conversation) -> bool | None:
        """Return whether the running turn's owner is known to have given it up: this worker, or one that is gone.

        False if this worker is at work on it, whatever its lease says. None if nothing is known.
        """
        running = conversation.running
        if running is None:
            return None
        if running.owner == self.name:
            return (conversation.key, running.turn) not in self._turns
        return True if is_gone(running.owner) else None
