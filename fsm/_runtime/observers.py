"""Observers: functions of the application, called with each transition after it was committed."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeAlias

from fsm._core.effects import Step
from fsm._runtime.log import LOGGER
from fsm.records import Transition

__all__ = ["Observer", "tell_observers"]

Observer: TypeAlias = Callable[[Transition], object]
"""Called with each transition after it was committed."""


def tell_observers(observers: Collection[Observer], step: Step) -> None:
    """Call each observer with each transition of a committed step; log what an observer raises."""
    for transition in step.transitions:
        for observer in observers:
            try:
                observer(transition)
            except Exception:  # noqa: BLE001  # an observer is somebody else's code and must do no harm
                fields = {"conversation": transition.key, "transition": transition.number}
                LOGGER.exception("observer.call_failed", extra=fields)
