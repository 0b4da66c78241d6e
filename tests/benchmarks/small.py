"""The small things: one transition of the machine, and the import."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from statistics import median

from statemachine import State as OtherState
from statemachine import StateMachine
from transitions import Machine

from fsm._core.builder import Builder
from fsm._core.table import State, Trigger
from fsm.records import Conversation
from tests.benchmarks.measuring import Row, compare, timed

__all__ = ["imports", "transitions"]

NOW = datetime(2026, 1, 1, tzinfo=UTC)
IMPORT = "import time; t = time.perf_counter(); import fsm, persistence; "
OPEN = "persistence.SQLStore('sqlite:///:memory:'); "
TELL = "print(time.perf_counter() - t)"


class Other(StateMachine):
    """The machine without its effects, as python-statemachine has it."""

    fresh = OtherState(initial=True)
    active = OtherState()
    stale = OtherState()
    succeeded = fresh.to(active) | active.to.itself()
    expired = active.to(stale)
    reset = stale.to(fresh)


def transitions(*, count: int = 5000, rounds: int = 9) -> Iterator[Row]:
    """One move that binds nothing: ours, `transitions` used plainly, python-statemachine, and a bare table."""

    class Model:
        pass

    model = Model()
    Machine(
        model,
        states=["fresh", "active", "stale"],
        initial="active",
        transitions=[["succeeded", "active", "active"]],
        auto_transitions=False,
    )
    other = Other()
    other.send("succeeded")
    table = {("active", "succeeded"): "active"}

    def bare() -> None:
        state = "active"
        for _ in range(count):
            state = table[state, "succeeded"]

    def plain() -> None:
        for _ in range(count):
            model.succeeded()

    def others() -> None:
        for _ in range(count):
            other.succeeded()

    snapshot = Conversation(
        key="k",
        id=1,
        created_at=NOW,
        updated_at=NOW,
        state=State.ACTIVE,
        version=1,
        provider="p",
        session_number=1,
        session_id="s-1",
    )

    def ours() -> None:
        for _ in range(count):
            Builder(snapshot, NOW).move(Trigger.SUCCEEDED, "success", named="s-1")

    variants = {"bare": bare, "plain": plain, "others": others, "ours": ours}
    found = compare({name: lambda _, one=one: timed(one, count) for name, one in variants.items()}, rounds)
    base = found["plain"].median
    group = "One transition of the machine"
    yield Row(group, "a bare table", found["bare"].median * 1e6, "µs", found["bare"].median / base)
    yield Row(group, "transitions, used plainly", base * 1e6, "µs")
    yield Row(group, "python-statemachine", found["others"].median * 1e6, "µs", found["others"].median / base)
    yield Row(
        group, "ours, with a new builder and its effects", found["ours"].median * 1e6, "µs", found["ours"].median / base
    )


def imports(*, rounds: int = 11) -> Iterator[Row]:
    """In new processes: the import, and with the first store opened; peewee loads psycopg, where it is installed."""
    hidden = "import sys; sys.modules['psycopg'] = None; "
    for group, script, reach in (
        ("import fsm, persistence", IMPORT + TELL, 120.0),
        ("The same, and a first store opened on SQLite", IMPORT + OPEN + TELL, None),
    ):
        for name, before in (("without the extra postgres", hidden), ("with it", "")):
            taken = [
                float(subprocess.run([sys.executable, "-c", before + script], capture_output=True, check=True).stdout)
                for _ in range(rounds)
            ]
            yield Row(group, name, median(taken) * 1e3, "ms", None, reach)
