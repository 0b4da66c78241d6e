"""Group commit: steps that are committed at the same time share one transaction, and one sync.

A database with one writer at a time makes the others wait while it syncs. The first of them to get its turn commits
the steps of all who wait. A commit never waits for others to join: a lone caller commits at once. Each caller is
answered only after its own step is durable. If a step is refused, or a transaction fails, no other caller loses its
step.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from attrs import define

from fsm.store import Step

__all__ = ["GroupCommit"]

LOGGER = logging.getLogger("fsm")

MOST = 64
"""The most steps in one transaction."""


class Alone(Protocol):
    """Commits one step in one transaction."""

    def __call__(self, step: Step, *, lost: bool = False) -> None: ...


@define(eq=False, kw_only=True)
class _Entry:
    """A step that waits, and its outcome.

    Attributes:
        step: the step.
        is_settled: whether the leader has dealt with it.
        is_stored: whether it is stored; if it is settled and not stored, its own caller commits it.
        error: the reason for which it was refused, or None.
    """

    step: Step
    is_settled: bool = False
    is_stored: bool = False
    error: Exception | None = None


class GroupCommit:
    """Commits the steps of many threads.

    Threads append to ``_waiting`` without a lock. Only the thread that holds ``leading`` takes from it.

    Args:
        alone: commits one step. It is told whether a transaction that the step shared was cut off, so that the step may
            be stored already.
        together: commits steps in one transaction, and returns for each the reason for which it was refused, or None.

    Attributes:
        leading: the lock of the thread that commits for the others.
    """

    def __init__(self, alone: Alone, together: Callable[[Sequence[Step]], Sequence[Exception | None]]) -> None:
        self._alone = alone
        self._together = together
        self.renew()

    def renew(self) -> None:
        """Start with an empty queue and a free lock, as in a forked child: the waiting threads belong to the parent."""
        self.leading = threading.Lock()
        self._waiting: deque[_Entry] = deque()

    @property
    def waiting(self) -> int:
        """The number of steps that wait."""
        return len(self._waiting)

    @property
    def is_idle(self) -> bool:
        """Whether no step is being committed and none waits."""
        return not self._waiting and not self.leading.locked()

    def commit(self, step: Step) -> None:
        """Commit a step; raise the reason for which it was refused, if it was."""
        if self.is_idle:
            with self.leading:
                self._alone(step)
            return
        (error,) = self.commit_many([step])
        if error is not None:
            raise error

    def commit_many(self, steps: Sequence[Step]) -> list[Exception | None]:
        """Commit steps; return for each what :meth:`commit` would have raised, or None."""
        entries = [_Entry(step=step) for step in steps]
        self._waiting.extend(entries)
        with self.leading:
            while not all(entry.is_settled for entry in entries):
                self._lead()
        for entry in entries:
            if entry.error is None and not entry.is_stored:
                self._lead_one(entry, lost=True)
        return [entry.error for entry in entries]

    def _lead(self) -> None:
        """Commit the steps that wait."""
        batch = [self._waiting.popleft() for _ in range(min(MOST, len(self._waiting)))]
        try:
            if len(batch) == 1:
                self._lead_one(batch[0])
                return
            for entry, error in zip(batch, self._together([entry.step for entry in batch]), strict=True):
                entry.error, entry.is_stored = error, error is None
        except Exception as error:  # noqa: BLE001  # each caller commits alone, and gets its own error
            LOGGER.warning("store.group_failed", extra={"steps": len(batch), "error": type(error).__name__})
        finally:
            for entry in batch:
                entry.is_settled = True

    def _lead_one(self, entry: _Entry, *, lost: bool = False) -> None:
        try:
            self._alone(entry.step, lost=lost)
        except Exception as error:  # noqa: BLE001  # its own caller raises it
            entry.error = error
        else:
            entry.is_stored = True
