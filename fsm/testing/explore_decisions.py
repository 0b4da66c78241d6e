"""Which decisions are explored: those of the library, or wrong ones, to see that they are found."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from fsm._core import decisions as core
from fsm._core.effects import Step
from fsm._core.turn import RunningTurn

__all__ = ["REAL", "Decisions"]


def _should_heal(turn: RunningTurn) -> bool:
    return turn.should_heal


@frozen
class Decisions:
    """The decisions that are explored: those of ``fsm._core.decisions``, or some of your own in their place.

    Attributes:
        begin, extend, heal, finish, interrupt, expire_lease, record_late_result, reset: see ``fsm._core.decisions``.
        should_heal: whether a turn that has its result wants to heal.

    >>> from fsm._core import decisions
    >>> Decisions().begin is decisions.begin
    True
    """

    begin: Callable[..., Step] = core.begin
    extend: Callable[..., Step] = core.extend
    heal: Callable[..., Step] = core.heal
    finish: Callable[..., Step] = core.finish
    interrupt: Callable[..., Step] = core.interrupt
    expire_lease: Callable[..., Step | None] = core.expire_lease
    record_late_result: Callable[..., Step | None] = core.record_late_result
    reset: Callable[..., Step] = core.reset
    should_heal: Callable[[RunningTurn], bool] = _should_heal


REAL = Decisions()
"""The decisions of the library."""
