"""Effects, each the writing of one row, and the step of a decision that carries them.

A decision changes nothing. It returns a :class:`Step`: the snapshot before, the snapshot after, and the effects. A
store writes a step whole, in one transaction, or not at all.
"""

from __future__ import annotations

from datetime import datetime
from typing import TypeAlias

from attrs import frozen

from fsm._core.table import State
from fsm.events import Result
from fsm.records import Conversation, Message, Session, Transition, Turn, TurnStatus

__all__ = [
    "AddMessage",
    "BindSession",
    "CloseSession",
    "Effect",
    "EndTurn",
    "ExtendTurn",
    "LogTransition",
    "MarkSessionDead",
    "OpenSession",
    "StartTurn",
    "Step",
]


@frozen
class StartTurn:
    """Insert a running turn."""

    turn: Turn


@frozen(kw_only=True)
class EndTurn:
    """End a running turn.

    Attributes:
        number: the turn.
        session_number: the session it ended in.
        status: any but ``running``.
        state: the state that the conversation is in afterwards.
        last_message: the number of its last message, or None to leave it, if nothing was said since the turn began.
        at: the time of the end.
        result: its result, or None if it had none.
        healed: whether a dead session was replaced within it.
    """

    number: int
    session_number: int
    status: TurnStatus
    state: State
    last_message: int | None
    at: datetime
    result: Result | None = None
    healed: bool = False


@frozen
class ExtendTurn:
    """Set the number of the last message of a turn that has ended, after a late answer (G10)."""

    number: int
    last_message: int


@frozen
class AddMessage:
    """Append a message."""

    message: Message


@frozen
class OpenSession:
    """Insert an open session."""

    session: Session


@frozen
class BindSession:
    """Write the provider session id of the open session."""

    number: int
    session_id: str


@frozen
class CloseSession:
    """Close a session; its row is never changed again."""

    number: int
    reason: str
    at: datetime


@frozen
class MarkSessionDead:
    """Insert a provider session id that was reported dead; the row is never removed (G2)."""

    session_id: str
    session_number: int
    at: datetime


@frozen
class LogTransition:
    """Append a move to the log."""

    transition: Transition


Effect: TypeAlias = (
    StartTurn
    | EndTurn
    | ExtendTurn
    | AddMessage
    | OpenSession
    | BindSession
    | CloseSession
    | MarkSessionDead
    | LogTransition
)


TOLD = frozenset({EndTurn, ExtendTurn})
"""The effects that a caller may hear of while another turn runs."""


@frozen
class Step:
    """One decision, ready to be committed.

    Attributes:
        before: the snapshot it was decided from; its version is the guard of the commit.
        after: the snapshot that is stored if the commit succeeds.
        effects: the rows to write, in this order.
    """

    before: Conversation
    after: Conversation
    effects: tuple[Effect, ...]

    @property
    def transitions(self) -> tuple[Transition, ...]:
        """The moves of the machine in this step, in order."""
        return tuple(effect.transition for effect in self.effects if isinstance(effect, LogTransition))

    @property
    def must_be_durable(self) -> bool:
        """Whether this step must survive power loss (G8): True unless it only begins, heals or extends a turn.

        If beginning a turn also ends an abandoned one, the step counts as an end. A caller may get that end at
        once, as the stored reply of an idempotency key. The same is true of a late answer.
        """
        return self.after.running is None or not TOLD.isdisjoint(map(type, self.effects))
