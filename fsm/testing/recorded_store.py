"""A store that records its calls, with the time of each call and of its return."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from attrs import Factory, define

from fsm._core.effects import Step
from fsm.errors import Conflict, StoreError
from fsm.records import Conversation, Message
from fsm.store import Store
from fsm.testing.linearize import Operation

__all__ = ["Meeting", "RecordedStore", "Recorder"]

MEETING = 0.005
"""The seconds for which a commit waits for another one."""


@define
class Recorder:
    """The calls of all stores, in the order of their times."""

    operations: list[Operation] = Factory(list)
    _moments: Iterator[int] = Factory(lambda: itertools.count(1))
    _lock: threading.Lock = Factory(threading.Lock)

    def invoked(self, worker: int, name: str, key: str, argument: Any = None) -> Operation:
        """Record a call."""
        with self._lock:
            operation = Operation(worker=worker, name=name, key=key, argument=argument, invoked=next(self._moments))
            self.operations.append(operation)
        return operation

    def returned(self, operation: Operation, outcome: Any) -> None:
        """Record the outcome of a call."""
        with self._lock:
            operation.returned = next(self._moments)
            operation.outcome = outcome


class Meeting:
    """A point where threads wait a moment for each other, so that their next calls overlap.

    Args:
        size: the number of threads.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._here = 0
        self._round = 0
        self._changed = threading.Condition()

    def wait(self) -> None:
        """Wait until all threads are here, or for :data:`MEETING` seconds."""
        with self._changed:
            self._here += 1
            mine = self._round
            if self._here == self._size:
                self._round += 1
                self._changed.notify_all()
            else:
                self._changed.wait_for(lambda: self._round != mine, timeout=MEETING)
            self._here -= 1


class RecordedStore:
    """A store whose calls are recorded.

    Args:
        store: the store.
        worker: the number of the worker that calls it.
        recorder: records the calls.
        meeting: lets commits of several workers overlap.
        chance: decides which commits get an unknown outcome.
        uncertain: the probability of that, from 0 to 1.
    """

    def __init__(
        self,
        store: Store,
        worker: int,
        recorder: Recorder,
        meeting: Meeting,
        chance: random.Random,
        uncertain: float,
    ) -> None:
        self._store = store
        self._worker = worker
        self._recorder = recorder
        self._meeting = meeting
        self._chance = chance
        self._uncertain = uncertain

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def load(self, key: str) -> Conversation | None:
        """Return the newest snapshot."""
        operation = self._recorder.invoked(self._worker, "load", key)
        found = self._store.load(key)
        self._recorder.returned(operation, found)
        return found

    def messages(self, conversation: Conversation, **bounds: Any) -> Sequence[Message]:
        """Return messages."""
        operation = self._recorder.invoked(self._worker, "messages", conversation.key)
        found = self._store.messages(conversation, **bounds)
        self._recorder.returned(operation, tuple(found))
        return found

    def commit(self, step: Step) -> None:
        """Write one step, or raise an error that leaves its outcome unknown."""
        key = step.after.key
        doubt = self._chance.random()
        self._meeting.wait()
        operation = self._recorder.invoked(self._worker, "commit", key, step)
        if doubt < self._uncertain / 2:
            raise StoreError("the connection was lost before the commit, with an unknown outcome", key)
        try:
            self._store.commit(step)
        except Conflict:
            self._recorder.returned(operation, "conflict")
            raise
        if doubt < self._uncertain:
            raise StoreError("the connection was lost after the commit, with an unknown outcome", key)
        self._recorder.returned(operation, "committed")
