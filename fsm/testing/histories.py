"""Concurrent histories of real stores, checked against the sequential machine.

:func:`check_linearizable` lets real managers on threads talk in the same conversations, each with its own store on the
same database. It records for every call of the stores the time of the call, the time of its return, and its outcome. At
times the outcome of a commit is made unknown, as by a lost connection. The outcomes must be those of a store that is
called by one thread at a time (:func:`fsm.testing.linearize.linearize`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

from attrs import frozen

from fsm._core.effects import AddMessage, Step
from fsm._runtime.settings import utc_now
from fsm.errors import FSMError
from fsm.events import Result
from fsm.manager import SessionManager
from fsm.providers.demo import DemoProvider
from fsm.records import Conversation, Message
from fsm.store import Store
from fsm.testing.linearize import UNKNOWN, Operation, shortest
from fsm.testing.recorded_store import Meeting, RecordedStore, Recorder
from fsm.testing.subjects import close

__all__ = ["History", "LinearizabilityError", "check_linearizable"]

SHOWN = 30
"""How many operations of a history without an order are shown."""


class LinearizabilityError(AssertionError):
    """The calls of a store had outcomes that they can't have had one after the other.

    Attributes:
        operations: the shortest beginning of the history that shows it.
    """

    def __init__(self, operations: Sequence[Operation]) -> None:
        self.operations = tuple(operations)
        lines = "\n".join(f"    {_told(operation)}" for operation in operations[-SHOWN:])
        super().__init__(
            f"conversation {operations[0].key!r}: there is no order in which its calls can have had these outcomes; "
            f"the last that returned is the first that fits no more\n{lines}"
        )


@frozen(kw_only=True)
class History:
    """The recorded history.

    Attributes:
        operations: how many calls.
        commits: how many of them committed.
        conflicts: how many found that somebody else was first.
        unknown: of how many nobody knew what became of them.
        overlapping: how many overlapped with a call of another worker in the same conversation.
    """

    operations: int
    commits: int
    conflicts: int
    unknown: int
    overlapping: int


@frozen
class _Machine:
    """The sequential object: one conversation and its messages."""

    conversation: Conversation | None = None
    messages: tuple[Message, ...] = ()

    def after(self, operation: Operation) -> _Machine | None:
        """Return the state after an operation; None if the outcome is not possible."""
        match operation.name:
            case "commit":
                return self._committed(operation.argument, operation.outcome)
            case "load":
                return self if operation.outcome in (UNKNOWN, self.conversation) else None
            case _:
                return self if operation.outcome in (UNKNOWN, self.messages) else None

    def _committed(self, step: Step, outcome: object) -> _Machine | None:
        fits = self.conversation == step.before if self.conversation else step.before.version == 0
        if not fits:
            return self if outcome == "conflict" else None
        if outcome == "conflict":
            return None
        said = [effect.message for effect in step.effects if isinstance(effect, AddMessage)]
        return _Machine(step.after, (*self.messages, *said))


def check_linearizable(
    open_store: Callable[[], Store],
    *,
    workers: int = 2,
    calls: int = 40,
    conversations: int = 2,
    uncertain: float = 0.1,
    seed: int = 0,
) -> History:
    """Let workers talk in the same conversations at once, and check that their store is as good as one at a time.

    Args:
        open_store: opens the database; called once for each worker, and once more. Its content is not
            changed, except the conversations ``c0``, ``c1``, …, in which the workers talk.
        workers: how many threads talk.
        calls: how many messages, resets and looks each of them makes.
        conversations: how many conversations they share.
        uncertain: how likely it is, from 0 to 1, that a commit's outcome is unknown.
        seed: decides what they do; what comes of it depends on the threads as well.

    Returns:
        The recorded history.

    Raises:
        LinearizabilityError: there is no order in which the calls can have had their outcomes.

    >>> from fsm.testing import ReferenceStore
    >>> store = ReferenceStore()
    >>> check_linearizable(store.reopened, calls=10).operations > 20
    True
    """
    recorder, meeting = Recorder(), Meeting(workers)
    keys = [f"c{number}" for number in range(conversations)]
    before = _looked_at(open_store, keys)

    def work(worker: int) -> None:
        chance = random.Random(f"{seed} {worker}")  # noqa: S311  # it must be predictable
        store = open_store()
        try:
            recorded: Any = RecordedStore(store, worker, recorder, meeting, chance, uncertain)
            for _ in range(calls):
                _talk(recorded, chance, chance.choice(keys))
        finally:
            close(store)

    with ThreadPoolExecutor(workers) as pool:
        for done in [pool.submit(work, worker) for worker in range(1, workers + 1)]:
            done.result()
    for key in keys:
        beginning = shortest([one for one in recorder.operations if one.key == key], before[key], _Machine.after)
        if beginning is not None:
            raise LinearizabilityError(beginning)
    return _history(recorder.operations)


def _looked_at(open_store: Callable[[], Store], keys: Sequence[str]) -> dict[str, _Machine]:
    """Return the stored rows of conversations."""
    store = open_store()
    try:
        found = {key: store.load(key) for key in keys}
        return {
            key: _Machine(conversation, tuple(store.messages(conversation)) if conversation else ())
            for key, conversation in found.items()
        }
    finally:
        close(store)


def _talk(store: Store, chance: random.Random, key: str) -> None:
    """Do one thing in a conversation, as a caller of a manager; what it refuses is part of life."""
    ahead = timedelta(hours=chance.choice([0, 0, 1]))  # an hour ahead, a worker takes every turn for abandoned

    def clock() -> datetime:
        return utc_now() + ahead

    result = chance.choice([None, None, Result(subtype="error_api", is_error=True)])
    manager = SessionManager(store, DemoProvider([result]), clock=clock)
    try:
        match chance.choice(["send", "send", "send", "reset", "look"]):
            case "send":
                manager.send(key, "hello")
            case "reset":
                manager.reset(key, force=True)
            case _:
                manager.conversations.messages(key)
    except FSMError:
        return


def _history(operations: Sequence[Operation]) -> History:
    outcomes = [operation.outcome for operation in operations if operation.name == "commit"]
    overlapping = sum(
        any(_overlap(one, other) for other in operations[max(0, place - 20) : place + 20])
        for place, one in enumerate(operations)
    )
    unknown = sum(outcome is UNKNOWN for outcome in outcomes)
    return History(
        operations=len(operations),
        commits=outcomes.count("committed"),
        conflicts=outcomes.count("conflict"),
        unknown=unknown,
        overlapping=overlapping,
    )


def _overlap(one: Operation, other: Operation) -> bool:
    return (
        one.worker != other.worker
        and one.key == other.key
        and one.invoked < (other.returned or float("inf"))
        and other.invoked < (one.returned or float("inf"))
    )


def _told(operation: Operation) -> str:
    when = f"[{operation.invoked}, {operation.returned or '…'}]"
    outcome = operation.outcome
    if operation.name == "commit":
        step = operation.argument
        effects = ", ".join(type(effect).__name__ for effect in step.effects)
        versions = f"{step.before.version} → {step.after.version}"
        return f"{when} worker {operation.worker} commits {versions} ({effects}): {outcome}"
    if isinstance(outcome, tuple):
        return f"{when} worker {operation.worker} reads {len(outcome)} messages"
    found = f"version {outcome.version}" if isinstance(outcome, Conversation) else outcome
    return f"{when} worker {operation.worker} loads: {found}"
