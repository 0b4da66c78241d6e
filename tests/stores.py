"""Stores that stand in front of a real one, so that a test can act at the moment of a commit."""

from collections.abc import Callable
from typing import Any

from fsm._core.effects import Step


class Passing:
    """A store in front of another: it passes on everything, and calls ``around`` in place of each commit.

    Args:
        store: the real store.
        around: is given the step, and a function that commits it.
    """

    def __init__(self, store: Any, around: Callable[[Step, Callable[[], None]], None] | None = None) -> None:
        self.store = store
        self.around = around

    def commit(self, step: Step) -> None:
        if self.around is None:
            self.store.commit(step)
        else:
            self.around(step, lambda: self.store.commit(step))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


def begins(step: Step) -> bool:
    """Whether a step begins a turn."""
    return step.after.turn_count > step.before.turn_count


def ends(step: Step) -> bool:
    """Whether a step leaves no turn running."""
    return step.after.running is None


def heals(step: Step) -> bool:
    """Whether a step replaces the session of a turn that goes on."""
    return step.after.running is not None and step.after.transition_count > step.before.transition_count


def extends(step: Step) -> bool:
    """Whether a step only lengthens a lease."""
    return not step.effects


class Refusing(Passing):
    """Raises an error in place of the commits that it is told to refuse.

    Args:
        store: the real store.
        refused: whether a step is refused.
        error: what is raised.
    """

    def __init__(self, store: Any, refused: Callable[[Step], bool], error: Exception) -> None:
        super().__init__(store, self._refuse)
        self.refused: Callable[[Step], bool] | None = refused
        self.error = error

    def _refuse(self, step: Step, commit: Callable[[], None]) -> None:
        if self.refused is not None and self.refused(step):
            raise self.error
        commit()

    def relent(self) -> None:
        """Refuse nothing any more."""
        self.refused = None
