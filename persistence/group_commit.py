"""Group commit: steps that are committed at the same time share one transaction, and one sync.

A database with one writer at a time makes the others wait while it syncs. The first of them to get its turn commits
the steps of all who wait. A commit never waits for others to join: a lone caller commits at once. Each caller is
answered only after its own step is durable. A step that is refused, or a transaction that fails, costs no other caller
its step.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from attrs import define

from fsm._core.effects import Step
from fsm._runtime.log import LOGGER

__all__ = ["Group"]

MOST = 64
"""How many steps share a transaction at most."""


class Alone(Protocol):
    """Commits one step."""

    def __call__(self, step: Step, *, lost: bool = False) -> None: ...


@define(eq=False)
class _Entry:
    """A step that waits, and what came of it.

    Attributes:
        step: the step.
        is_settled: whether anything came of it.
        is_stored: whether it is stored; settled and not stored, it is for its own caller to commit.
        error: why it was refused.
    """

    step: Step
    is_settled: bool = False
    is_stored: bool = False
    error: Exception | None = None


class Group:
    """Commits the steps of many threads.

    Threads append to ``_waiting`` without a lock; only the one that holds ``_leading`` takes from it.

    Args:
        alone: commits one step, in a transaction of its own; told whether a transaction that it shared was cut off, so
            that the step may be stored already.
        together: commits steps in one transaction, and returns for each why it was refused, or None.
    """

    def __init__(self, alone: Alone, together: Callable[[Sequence[Step]], Sequence[Exception | None]]) -> None:
        self._alone = alone
        self._together = together
        self.renew()

    def renew(self) -> None:
        """Begin with nobody waiting and nobody leading, as in a child: those who did are threads of the parent."""
        self._leading = threading.Lock()
        self._waiting: deque[_Entry] = deque()

    def commit(self, step: Step) -> None:
        """Commit a step; raises what ``alone`` raises, or the reason for which it was refused."""
        if not self._waiting and not self._leading.locked():
            with self._leading:
                self._alone(step)
            return
        (error,) = self.commit_many([step])
        if error is not None:
            raise error

    def commit_many(self, steps: Sequence[Step]) -> list[Exception | None]:
        """Commit steps; for each, what :meth:`commit` would have raised."""
        entries = [_Entry(step) for step in steps]
        self._waiting.extend(entries)
        with self._leading:
            while not all(entry.is_settled for entry in entries):
                self._lead()
        for entry in entries:
            if entry.error is None and not entry.is_stored:
                self._lead_one(entry, lost=True)
        return [entry.error for entry in entries]

    def _lead(self) -> None:
        """Commit those who wait."""
        batch = [self._waiting.popleft() for _ in range(min(MOST, len(self._waiting)))]
        try:
            if len(batch) == 1:
                self._lead_one(batch[0])
                return
            for entry, error in zip(batch, self._together([entry.step for entry in batch]), strict=True):
                entry.error, entry.is_stored = error, error is None
        except Exception as error:  # noqa: BLE001  # each caller tries alone, and gets its own
            LOGGER.warning("store.group_failed", extra={"steps": len(batch), "error": type(error).__name__})
        finally:
            for entry in batch:
                entry.is_settled = True

    def _lead_one(self, entry: _Entry, *, lost: bool = False) -> None:
        try:
            self._alone(entry.step, lost=lost)
        except Exception as error:  # noqa: BLE001  # for its own caller, who is waiting for it
            entry.error = error
        else:
            entry.is_stored = True
