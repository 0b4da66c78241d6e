"""The exploration of the real decisions, deeper than the other tests go; see tests/testing/test_explore.py.

``make verify`` runs this at full size and prints what was explored.
"""

import os
import time

import pytest

from fsm.testing import explore
from persistence import SQLStore

FULL = bool(os.environ.get("CONVERSATION_FSM_VERIFY"))


@pytest.mark.parametrize(("workers", "depth"), [(1, 100), (2, 8), (2, 11), (3, 6)] if FULL else [(1, 100), (3, 4)])
def test_every_behaviour_up_to_a_depth(workers: int, depth: int) -> None:
    """G1, G2, G4, G5, G6, G7, G9, G10 and G11 in every state that is reached."""
    started = time.monotonic()
    explored = explore(depth=depth, workers=workers)
    print(f"\nexplore, {workers} workers and crashes, {time.monotonic() - started:.1f} s: {explored}", end="")
    assert explored.complete or explored.depth == depth
    assert workers != 2 or not explored.unreached


def test_every_behaviour_on_a_database() -> None:
    """G12: every path is replayed on SQLite, and leads to the states that the core means."""
    depth = 5 if FULL else 3
    stored = explore(depth=depth, make_store=lambda: SQLStore("sqlite:///:memory:"), eventually={})
    print(f"\nexplore on SQLite, 2 workers and crashes: {str(stored).partition(chr(10))[0]}", end="")
    assert stored == explore(depth=depth, eventually={})
