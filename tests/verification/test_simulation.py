"""Simulated worlds with seeds that nobody has chosen; see tests/testing/test_simulation.py.

``make verify`` runs one of ten thousand turns and prints its seed and how fast it was.
"""

import os

import pytest

from fsm.testing.__main__ import main

TURNS = 10_000 if os.environ.get("CONVERSATION_FSM_VERIFY") else 500


def test_a_world_that_nobody_has_seen(capsys: pytest.CaptureFixture[str]) -> None:
    """Everything fails, and in the end every conversation answers."""
    failed = main(["simulate", "--turns", str(TURNS)])
    told = capsys.readouterr().out
    with capsys.disabled():
        print(f"\nsimulate: {told}", end="")
    assert not failed, told
