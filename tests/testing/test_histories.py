"""Concurrent histories of real stores, and of stores whose compare-and-swap is broken."""

import time

import attrs
import pytest

from fsm import Conflict
from fsm._core.effects import Step
from fsm.testing import LinearizabilityError, ReferenceStore, check_linearizable
from fsm.testing.mutants import MUTANTS
from persistence import SQLStore

pytestmark = pytest.mark.thorough


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("workers", [2, 4])
def test_a_real_database_is_as_good_as_one_call_at_a_time(url: str, seed: int, workers: int) -> None:
    """G5, G10: two or four workers, each with its own store; commits meet, and some have unknown outcomes."""
    history = check_linearizable(lambda: SQLStore(url), workers=workers, calls=25, seed=seed)
    assert history.commits > 20
    assert history.overlapping > 0


def test_the_reference_store_is_too() -> None:
    store = ReferenceStore()
    assert check_linearizable(store.reopened, calls=100).commits > 50


class Unguarded(SQLStore):
    """Each step is written over whatever is there: no compare-and-swap at all."""

    def commit(self, step: Step) -> None:
        found = self.load(step.before.key)
        time.sleep(0.002)  # so that threads meet
        super().commit(step if found is None else attrs.evolve(step, before=found))


class LooksFirst(Unguarded):
    """It looks first and takes its time to write; of two at once both have looked."""

    def commit(self, step: Step) -> None:
        found = self.load(step.before.key)
        if found is not None and found != step.before:
            raise Conflict("somebody was first", step.before.key)
        time.sleep(0.005)
        super().commit(step)


@pytest.mark.parametrize("broken", [Unguarded, LooksFirst])
def test_a_real_database_with_a_broken_compare_and_swap_is_caught(url: str, broken: type[SQLStore]) -> None:
    """Threads meet by chance, so it may take some tries."""
    with pytest.raises(LinearizabilityError, match="there is no order") as caught:
        for seed in range(60):
            check_linearizable(lambda: broken(url, durability="relaxed"), seed=seed)
    assert caught.value.operations


@pytest.mark.parametrize("name", ["lets the last writer win", "checks before it locks", "reads newest first"])
def test_a_wrong_store_is_caught_with_the_shortest_beginning_of_its_history(name: str) -> None:
    mutant = next(mutant for mutant in MUTANTS if mutant.name == name)
    with pytest.raises(LinearizabilityError, match=r"worker [12] commits") as caught:
        for seed in range(60):
            check_linearizable(mutant.make().reopened, seed=seed)
    ends = [operation.returned for operation in caught.value.operations if operation.returned]
    assert len(ends) <= 120
