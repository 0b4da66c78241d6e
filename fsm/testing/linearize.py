"""Linearizability: overlapping operations must have the outcomes of some sequential order.

:func:`linearize` is the algorithm of Wing and Gong ("Testing and verifying concurrent objects", 1993) with the memory
of Lowe ("Testing for linearizability", 2017). It looks for an order of the operations that a sequential object can have
had, and that keeps each operation between its invocation and its return. It finds one if there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

from attrs import define

__all__ = ["UNKNOWN", "Operation", "linearize", "shortest"]

S = TypeVar("S", bound=Hashable)

UNKNOWN = "unknown"
"""The outcome of an operation of which nobody knows whether it took effect, or will."""


@define(eq=False, kw_only=True)
class Operation:
    """One call, from its invocation to its return.

    Attributes:
        worker: who called.
        name: what.
        key: on what.
        argument: with what.
        invoked: when; a number that counts invocations and returns together.
        returned: when it returned; None if it never did.
        outcome: what came of it; ``UNKNOWN`` if nobody knows.
    """

    worker: int
    name: str
    key: str
    argument: Any
    invoked: int
    returned: int | None = None
    outcome: Any = UNKNOWN

    @property
    def deadline(self) -> float:
        """When it must have taken effect."""
        return float("inf") if self.returned is None or self.outcome is UNKNOWN else self.returned


def linearize(
    operations: Sequence[Operation], initial: S, apply: Callable[[S, Operation], S | None]
) -> list[Operation] | None:
    """Return an order in which the operations can have taken effect, one after the other.

    Args:
        operations: all of one object.
        initial: the state of the object before.
        apply: the sequential object: the state after an operation, or None if it can't have its outcome in that state.

    Returns:
        The order; those whose outcome is unknown are in it only as far as they took effect. None if there is none.

    >>> def register(state, operation):
    ...     if operation.name == "write":
    ...         return operation.argument
    ...     return state if operation.outcome == state else None
    >>> write = Operation(worker=1, name="write", key="x", argument=5, invoked=1, returned=4, outcome="done")
    >>> read = Operation(worker=2, name="read", key="x", argument=None, invoked=2, returned=3, outcome=5)
    >>> [operation.name for operation in linearize([write, read], 0, register)]
    ['write', 'read']
    >>> late = Operation(worker=2, name="read", key="x", argument=None, invoked=5, returned=6, outcome=0)
    >>> linearize([write, late], 0, register) is None
    True
    """
    ordered = sorted(operations, key=lambda operation: operation.invoked)
    known = sum(1 << place for place, operation in enumerate(ordered) if operation.outcome is not UNKNOWN)
    seen: set[tuple[int, S]] = set()
    path: list[tuple[int, S, int]] = []
    done, start = 0, 0
    state: S = initial
    while done & known != known:
        found = _next(ordered, done, state, apply, start)
        if found is None and not path:
            return None
        if found is None:
            done, state, place = path.pop()
            start = place + 1
            continue
        place, after = found
        start = place + 1
        if (done | 1 << place, after) not in seen:
            seen.add((done | 1 << place, after))
            path.append((done, state, place))
            done, state, start = done | 1 << place, after, 0
    return [ordered[place] for _, _, place in path]


def _next(
    ordered: Sequence[Operation], done: int, state: S, apply: Callable[[S, Operation], S | None], start: int
) -> tuple[int, S] | None:
    """Return the first operation from ``start`` on that can be the next to take effect, and the state after it."""
    waiting = [(place, operation) for place, operation in enumerate(ordered) if not done >> place & 1]
    deadline = min((operation.deadline for _, operation in waiting), default=0.0)
    for place, operation in waiting:
        if place >= start and operation.invoked < deadline:
            after = apply(state, operation)
            if after is not None:
                return place, after
    return None


def shortest(
    operations: Sequence[Operation], initial: S, apply: Callable[[S, Operation], S | None]
) -> list[Operation] | None:
    """Return the shortest beginning of a history that has no order; None if the whole of it has one.

    Operations that had not returned count as unknown.
    """
    if linearize(operations, initial, apply) is not None:
        return None
    ends = sorted(operation.returned for operation in operations if operation.returned is not None)
    low, high = 0, len(ends) - 1
    while low < high:
        middle = (low + high) // 2
        if linearize(_until(operations, ends[middle]), initial, apply) is None:
            high = middle
        else:
            low = middle + 1
    return _until(operations, ends[high])


def _until(operations: Sequence[Operation], end: int) -> list[Operation]:
    begun = [operation for operation in operations if operation.invoked <= end]
    return [
        operation
        if operation.returned is not None and operation.returned <= end
        else Operation(
            worker=operation.worker,
            name=operation.name,
            key=operation.key,
            argument=operation.argument,
            invoked=operation.invoked,
        )
        for operation in begun
    ]
