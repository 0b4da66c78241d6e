"""A worker: the turns that it runs are not abandoned, and all others in its name are."""

import attrs

from fsm import Conversation
from fsm._runtime.worker import Worker
from fsm.records import Running
from tests.begun import LEASE, dead_owner
from tests.core.test_table import NOW

IDLE = Conversation(key="k", id=1, created_at=NOW, updated_at=NOW, turn_count=1)


class Turn:
    def __init__(self, number: int) -> None:
        self.key = "k"
        self.number = number

    def leave_to_parent(self) -> None:
        raise AssertionError("nothing has forked")


def running(owner: str) -> Conversation:
    return attrs.evolve(IDLE, running=Running(1, owner, NOW + LEASE))


def test_a_turn_is_abandoned_unless_the_worker_that_it_names_runs_it() -> None:
    worker, turn = Worker(), Turn(1)
    assert worker.has_abandoned(running(worker.name)) is True
    worker.add(turn)
    assert worker.has_abandoned(running(worker.name)) is False
    worker.remove(turn)
    assert worker.has_abandoned(running(worker.name)) is True


def test_a_turn_that_its_reader_dropped_is_abandoned() -> None:
    worker, turn = Worker(), Turn(1)
    worker.add(turn)
    del turn
    assert worker.has_abandoned(running(worker.name)) is True


def test_another_turn_of_the_same_number_is_not_removed() -> None:
    worker, turn = Worker(), Turn(1)
    worker.add(turn)
    worker.remove(Turn(1))
    assert worker.has_abandoned(running(worker.name)) is False


def test_nothing_is_known_of_a_worker_elsewhere_and_of_one_that_is_gone_all() -> None:
    worker = Worker()
    assert worker.has_abandoned(IDLE) is None
    assert worker.has_abandoned(running("elsewhere")) is None
    assert worker.has_abandoned(running(Worker().name)) is None
    assert worker.has_abandoned(running(dead_owner())) is True
