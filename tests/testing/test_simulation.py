"""Deterministic simulation: whole worlds under a seed, and the faults of ours that they would find."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from fsm._core.effects import Step
from fsm._runtime import engine, turn_runner
from fsm.provider import Request
from fsm.store import Store
from fsm.testing import reference, simulated
from fsm.testing.__main__ import main
from fsm.testing.mutants import MUTANTS, Mutant
from fsm.testing.reference import ReferenceStore
from fsm.testing.simulated import Faults
from fsm.testing.simulation import SimulationError, simulate
from persistence import SQLStore

pytestmark = pytest.mark.thorough

FOUND = [
    "loses the last message",
    "lets the last writer win",
    "forgets dead ids",
    "forgets tool results",
    "stores the id from the error",
    "clears without logging",
    "reads newest first",
    "orders by the clock",
    "lets pages overlap",
    "tells failed turns",
    "shares idempotency keys",
    "crashes on conflict",
]
"""The wrong stores that a simulated world can tell; the others are wrong in what only threads, a second opening or
unusual content show, and :func:`fsm.testing.check_store` finds them."""


@pytest.mark.parametrize("seed", range(12))
def test_every_guarantee_holds_in_a_simulated_world_and_it_answers_in_the_end(seed: int) -> None:
    """G1-G11, G13, G15, G16 and G23, with everything failing at once; liveness once nothing fails any more."""
    done = simulate(seed, turns=400, conversations=8)
    assert done.tally.turns >= 400
    assert done.acknowledged > 300
    assert min(done.healed, *attrs.astuple(attrs.evolve(done.tally, forgotten=1))) > 0


def test_a_database_that_forgets_often_loses_nothing_acknowledged() -> None:
    """G8: a server that crashes forgets what it was not told to sync, and the workers live on."""
    forgotten = 0
    for seed in range(12):
        forgotten += simulate(seed, turns=150, conversations=4, faults=Faults(forgets=0.2)).tally.forgotten
    assert forgotten > 100


def test_a_guard_without_the_time_of_the_commit_lets_two_turns_be_mixed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulation would have found this fault: a forgotten turn ends the one in its place."""
    monkeypatch.setattr(reference, "_commit_of", lambda conversation: conversation.id)
    with pytest.raises(SimulationError, match="G4: turn"):
        for seed in range(60):
            simulate(seed, turns=400, conversations=4, faults=Faults(forgets=0.1))


def test_an_end_that_is_not_synced_and_told_to_a_caller_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulation has found this fault: beginning a turn ends an abandoned one, whose reply is then repeated."""
    monkeypatch.setattr(Step, "must_be_durable", property(lambda step: step.after.running is None))
    with pytest.raises(SimulationError, match="G8: turn"):
        for seed in range(60):
            simulate(seed, turns=300, conversations=4, faults=Faults(forgets=0.2, dies=0.1, hangs=0.2))


def test_a_real_database_behaves_as_the_reference_store(url: str) -> None:
    """G12: the same seed, the same world."""
    done = simulate(5, turns=60, conversations=4, make_store=lambda: SQLStore(url), faults=Faults(forgets=0.0))
    same = simulate(5, turns=60, conversations=4, faults=Faults(forgets=0.0))
    assert attrs.evolve(done, digest="") == attrs.evolve(same, digest="")
    assert done.digest == same.digest


@pytest.mark.parametrize(
    "mutant", [mutant for mutant in MUTANTS if mutant.name in FOUND], ids=lambda mutant: mutant.name
)
def test_a_wrong_store_is_found(mutant: Mutant) -> None:
    """Within a few seeds; what is told makes the same world again."""
    with pytest.raises(SimulationError) as caught:
        for seed in range(5):
            simulate(seed, turns=300, conversations=4, make_store=mutant.make)
    error = caught.value
    with pytest.raises(SimulationError) as again:
        simulate(error.seed, turns=300, conversations=4, make_store=mutant.make)
    assert str(again.value) == str(error)
    assert error.trace
    assert f"--seed {error.seed} --turns 300" in str(error)


def _forgets_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "stored_reply", lambda *_: {}["lost"])


class _Unstored:
    """A store that takes what begins a turn and does not keep it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def commit(self, step: Step) -> None:
        if step.after.running is None:
            self._store.commit(step)


def _asks_before_it_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    real = simulated.refused
    monkeypatch.setattr(simulated, "refused", lambda store, step: real(_Unstored(store), step))


def _asks_wrongly(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    def make(**fields: Any) -> Request:
        return Request(**fields if fields["session_id"] else {**fields, **changes})

    monkeypatch.setattr(turn_runner, "Request", make)


def _resumes_the_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    _asks_wrongly(monkeypatch, session_id="first-1")


def _tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    _asks_wrongly(monkeypatch, history=())


def _drops_tool_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsm._runtime.requests.with_results", lambda told, *_: tuple(told))


@pytest.mark.parametrize(
    ("wrong", "claim"),
    [
        (_forgets_to_look, "which is no error of this library"),
        (_asks_before_it_stores, "G8"),
        (_resumes_the_dead, "G2"),
        (_tells_nothing, "G3"),
        (_drops_tool_results, "G23"),
    ],
)
def test_a_wrong_engine_is_found(
    monkeypatch: pytest.MonkeyPatch, wrong: Callable[[pytest.MonkeyPatch], None], claim: str
) -> None:
    wrong(monkeypatch)
    with pytest.raises(SimulationError, match=claim):
        simulate(1, turns=300, conversations=4)


def test_the_same_seed_makes_the_same_world_in_any_process() -> None:
    """Whatever order its sets have."""
    lines = set()
    arguments = ["simulate", "--seed", "9", "--turns", "300", "--conversations", "20"]
    for order in ("1", "2"):
        command = [sys.executable, "-m", "fsm.testing", *arguments]
        environment = {**os.environ, "PYTHONHASHSEED": order}
        said = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True).stdout
        lines.add(said.splitlines()[0])
    assert lines == {str(simulate(9, turns=300))}


def test_the_command_says_what_happened_and_how_fast(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--turns", "50", "--conversations", "2"]) == 0
    assert "turns a minute" in capsys.readouterr().out


def test_the_command_fails_and_tells_the_seed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the world can be made again."""
    monkeypatch.setattr(ReferenceStore, "dead", lambda *_: frozenset())
    assert main(["simulate", "--seed", "3", "--turns", "100", "--conversations", "2"]) == 1
    assert "python -m fsm.testing simulate --seed 3 --turns 100" in capsys.readouterr().out
