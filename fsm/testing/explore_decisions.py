"""Which decisions are explored: those of the library, or wrong ones, to see that they are found."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from fsm import conversation as core
from fsm.effects import Step
from fsm.turn import RunningTurn

__all__ = ["REAL", "Decisions"]


def _should_heal(turn: RunningTurn) -> bool:
    return turn.should_heal


@frozen
class Decisions:
    """The decisions that are explored: those of ``fsm.conversation``, or some of your own in their place.

    Attributes:
        begin, extend, heal, finish, interrupt, lapse, late, reset: see ``fsm.conversation``.
        should_heal: whether a turn that has its result wants to heal.

    >>> from fsm import conversation
    >>> Decisions().begin is conversation.begin
    True
    """

    begin: Callable[..., Step] = core.begin
    extend: Callable[..., Step] = core.extend
    heal: Callable[..., Step] = core.heal
    finish: Callable[..., Step] = core.finish
    interrupt: Callable[..., Step] = core.interrupt
    lapse: Callable[..., Step | None] = core.lapse
    late: Callable[..., Step | None] = core.late
    reset: Callable[..., Step] = core.reset
    should_heal: Callable[[RunningTurn], bool] = _should_heal


REAL = Decisions()
"""The decisions of the library."""
