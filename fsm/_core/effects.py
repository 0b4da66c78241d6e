"""What a decision wants written: effects, and the step that carries them.

A decision changes nothing. It returns a :class:`Step`: the snapshot it was made from, the snapshot it leads to, and
the effects, each the writing of one row. A store writes a step whole, in one transaction, or not at all.
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


@frozen
class EndTurn:
    """Give a running turn its end.

    Attributes:
        number: the turn.
        session_number: the session it ended in.
        status: any but ``running``.
        state: the state that the conversation is in afterwards.
        last_message: the number of its last message; None: nothing was said since it began, so it stays what it is.
        at: when.
        result: its result, if it had one.
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
    """A turn that has already ended got one more message, which came late (G10)."""

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
    """Close a session; it is never written again."""

    number: int
    reason: str
    at: datetime


@frozen
class MarkSessionDead:
    """Remember that a provider session id is dead, for ever (G2)."""

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
"""The effects that a caller may be told of while another turn runs."""


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
        """The moves it makes, in order."""
        return tuple(effect.transition for effect in self.effects if isinstance(effect, LogTransition))

    @property
    def must_be_durable(self) -> bool:
        """Whether a caller is told of it: every step but those that only let a turn begin or go on (G8).

        A turn that begins may have to end one that was left behind. The end of that may be told at once, as the stored
        reply of its idempotency key; so may a text that came late.
        """
        return self.after.running is None or not TOLD.isdisjoint(map(type, self.effects))
