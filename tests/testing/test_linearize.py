"""Wing and Gong's algorithm, against every order tried out one by one."""

from itertools import permutations
from typing import Any

from hypothesis import given, note
from hypothesis import strategies as st

from fsm.testing.linearize import UNKNOWN, Operation, linearize, shortest


def register(state: int, operation: Operation) -> int | None:
    """A register with compare-and-swap; an argument is what is expected and what is written."""
    if operation.name == "read":
        return state if operation.outcome in (UNKNOWN, state) else None
    expected, new = operation.argument
    if state == expected:
        return new if operation.outcome in (UNKNOWN, True) else None
    return state if operation.outcome is False else None


@st.composite
def histories(draw: st.DrawFn) -> list[Operation]:
    """A few overlapping operations of three workers on a register of 0, 1 and 2; their outcomes are anything."""
    moments = draw(st.permutations(range(1, 2 * draw(st.integers(1, 5)) + 1)))
    operations = []
    for first, second in zip(moments[::2], moments[1::2], strict=True):
        invoked, returned = sorted((first, second))
        values = st.integers(0, 2)
        reads = draw(st.booleans())
        outcome: Any = draw(values if reads else st.sampled_from([True, False, UNKNOWN]))
        argument = None if reads else (draw(values), draw(values))
        ends = None if outcome is UNKNOWN and draw(st.booleans()) else returned
        operations.append(
            Operation(
                worker=1,
                name="read" if reads else "swap",
                key="x",
                argument=argument,
                invoked=invoked,
                returned=ends,
                outcome=outcome,
            )
        )
    return operations


def by_trying(operations: list[Operation]) -> bool:
    """Whether any order of any choice that has all known operations in it is one that may have been."""
    for size in range(len(operations) + 1):
        for order in permutations(operations, size):
            left_out = [one for one in operations if one not in order]
            if any(one.outcome is not UNKNOWN for one in left_out):
                continue
            in_time = all(
                later.deadline > earlier.invoked for place, earlier in enumerate(order) for later in order[place + 1 :]
            )
            if in_time and _is_possible(list(order)):
                return True
    return False


def _is_possible(order: list[Operation]) -> bool:
    state: int | None = 0
    for operation in order:
        state = register(state, operation) if state is not None else None
    return state is not None


@given(histories())
def test_an_order_is_found_exactly_if_there_is_one(operations: list[Operation]) -> None:
    """And it is one: every known operation is in it, between its invocation and its return."""
    order = linearize(operations, 0, register)
    note(f"{order}")
    assert (order is not None) == by_trying(operations)
    if order is not None:
        assert _is_possible(order)
        assert {one for one in operations if one.outcome is not UNKNOWN} <= set(order)
        assert all(
            later.deadline > earlier.invoked for place, earlier in enumerate(order) for later in order[place + 1 :]
        )


@given(histories())
def test_the_shortest_beginning_without_an_order_has_one_without_its_last_return(operations: list[Operation]) -> None:
    found = shortest(operations, 0, register)
    assert (found is None) == (linearize(operations, 0, register) is not None)
    if found is not None:
        assert linearize(found, 0, register) is None
        last = max(found, key=lambda one: one.returned or 0)
        last.returned, last.outcome = None, UNKNOWN
        assert linearize(found, 0, register) is not None


def test_an_operation_of_unknown_outcome_may_take_effect_long_after_it_failed() -> None:
    """As a commit whose connection was lost."""
    lost = Operation(worker=1, name="swap", key="x", argument=(0, 1), invoked=1, returned=2)
    reads = [
        Operation(worker=2, name="read", key="x", argument=None, invoked=3, returned=4, outcome=0),
        Operation(worker=2, name="read", key="x", argument=None, invoked=5, returned=6, outcome=1),
    ]
    order = linearize([lost, *reads], 0, register)
    assert order == [reads[0], lost, reads[1]]


def test_a_long_history_of_two_workers_is_checked_quickly() -> None:
    """Without the memory of tried states this would not end in time."""
    operations = []
    for number in range(60):
        swap = Operation(
            worker=1,
            name="swap",
            key="x",
            argument=(number, number + 1),
            invoked=4 * number + 1,
            returned=4 * number + 4,
            outcome=True,
        )
        read = Operation(
            worker=2,
            name="read",
            key="x",
            argument=None,
            invoked=4 * number + 2,
            returned=4 * number + 3,
            outcome=number + number % 2,
        )
        operations += [swap, read]
    order = linearize(operations, 0, register)
    assert order is not None
    assert len(order) == 120
    operations[-1].outcome = 7
    assert linearize(operations, 0, register) is None
