"""Scripts: what the engine does with the store, written once for one caller and for many at once.

A script is a generator. It reads the store, decides, and yields each step that is to be committed. It goes on once the
step is stored; if the store has refused the step, the reason is raised at the ``yield``. So a script does not know
whether its steps share a transaction with those of other scripts.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

from fsm._core.effects import Step
from fsm._runtime.store_errors import as_store_error
from fsm.errors import Conflict
from fsm.store import BatchingStore, Store

__all__ = ["Run", "Script", "refused", "retried", "run_alone", "run_together"]

R = TypeVar("R")

Script: TypeAlias = Generator[Step, None, R]
"""A generator that yields the steps to commit, and returns an outcome."""

TRIES = 1000
"""How often a decision is made again because another writer was first; each time another writer got on."""


def retried(attempt: Callable[[int], Script[R]]) -> Script[R]:
    """Run a script; if another writer was first, run it again from its beginning.

    Args:
        attempt: makes the script, given how often it was run before.

    Raises:
        Conflict: another writer was first each time.
    """
    for number in range(TRIES):
        try:
            return (yield from attempt(number))
        except Conflict as error:
            conflict = error
    raise conflict


class Run(Generic[R]):
    """A script under way.

    Args:
        script: the script.

    Attributes:
        is_over: whether the script has returned or raised.
    """

    def __init__(self, script: Script[R]) -> None:
        self.is_over = False
        self._script = script
        self._value: Any = None
        self._error: BaseException | None = None

    def advance(self, refusal: BaseException | None = None) -> Step | None:
        """Let the script go on; return the next step to commit, or None once it is over.

        Args:
            refusal: the reason for which its last step is not stored, or None.
        """
        try:
            return next(self._script) if refusal is None else self._script.throw(refusal)
        except StopIteration as stop:
            self._value = stop.value
        except BaseException as error:  # noqa: BLE001  # `outcome` raises it
            self._error = error
        self.is_over = True
        return None

    def outcome(self) -> R:
        """Return what the script has returned, or raise what it has raised."""
        if self._error is not None:
            raise self._error
        value: R = self._value
        return value


def run_alone(store: Store, script: Script[R]) -> R:
    """Run one script in the calling thread; return or raise its outcome."""
    refusal: BaseException | None = None
    while True:
        try:
            step = next(script) if refusal is None else script.throw(refusal)
        except StopIteration as stop:
            value: R = stop.value
            return value
        refusal = refused(store, step)


def refused(store: Store, step: Step) -> BaseException | None:
    """Commit a step; return the reason for which the store has refused it, or None."""
    try:
        store.commit(step)
    except Exception as error:  # noqa: BLE001  # the script raises it
        return as_store_error(error, step.before.key, step)
    except BaseException as error:  # noqa: BLE001  # likewise
        return error
    return None


def run_together(store: BatchingStore, runs: Sequence[Run[Any]]) -> None:
    """Run many scripts in the calling thread, so that steps that are due at the same time share a transaction."""
    due = [(run, step) for run in runs if (step := run.advance()) is not None]
    while due:
        outcomes = _commit_many(store, [step for _, step in due])
        due = [
            (run, step)
            for (run, _), error in zip(due, outcomes, strict=True)
            if (step := run.advance(error)) is not None
        ]


def _commit_many(store: BatchingStore, steps: Sequence[Step]) -> Sequence[Exception | None]:
    try:
        outcomes: Sequence[Exception | None] = store.commit_many(steps)
    except Exception as error:  # noqa: BLE001  # each script raises it
        outcomes = [error] * len(steps)
    return [
        None if error is None else as_store_error(error, step.before.key, step)
        for step, error in zip(steps, outcomes, strict=True)
    ]
