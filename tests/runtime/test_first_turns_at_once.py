"""A server that has just started gets its first messages at the same moment: one manager, several threads."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fsm import FSMError, SessionManager, TurnStatus
from fsm.providers import DemoProvider
from fsm.testing import ReferenceStore
from persistence import SQLStore

pytestmark = pytest.mark.timeout(120)

STARTS, THREADS = 40, 8


@pytest.fixture(params=["sqlite", "postgresql", "reference"])
def store(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A real store on each kind of database, and the reference store."""
    if request.param == "reference":
        yield ReferenceStore()
        return
    with SQLStore(request.getfixturevalue(f"{request.param}_url")) as store:
        yield store


def at_once(job: Callable[[int], object]) -> list[object]:
    """Do a job in eight threads at the same moment; what each returned or raised."""
    outcomes: list[object] = []
    gate = threading.Barrier(THREADS)

    def run(number: int) -> None:
        gate.wait()
        try:
            outcomes.append(job(number))
        except FSMError as error:
            outcomes.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def test_the_first_turns_of_a_manager_are_all_answered_though_they_come_at_once(store: Any) -> None:
    told: Counter[object] = Counter()
    for start in range(STARTS):
        sessions = SessionManager(store, DemoProvider())
        told.update(at_once(lambda number, s=sessions, start=start: s.send(f"{start} {number}", "hello").status))
    assert told == {TurnStatus.SUCCEEDED: STARTS * THREADS}
    assert store.running() == []
    assert len(store.conversations()) == STARTS * THREADS


def test_the_first_turns_of_a_manager_in_one_conversation_wait_for_each_other(store: Any) -> None:
    told: Counter[object] = Counter()
    for start in range(STARTS // 8):
        sessions = SessionManager(store, DemoProvider(), on_busy="wait", busy_timeout=60)
        told.update(at_once(lambda number, s=sessions, start=start: s.send(f"{start}", f"hello {number}").status))
    assert told == {TurnStatus.SUCCEEDED: STARTS // 8 * THREADS}
    assert store.running() == []


def test_the_first_turns_and_the_first_recover_of_a_manager_come_at_once(store: Any) -> None:
    told: Counter[object] = Counter()
    for start in range(STARTS):
        sessions = SessionManager(store, DemoProvider())

        def job(number: int, sessions: SessionManager = sessions, start: int = start) -> object:
            if number % 4 == 3:
                return tuple(conversation.key for conversation in sessions.recover())
            return sessions.send(f"{start} {number}", "hello").status

        told.update(at_once(job))
    assert told == {TurnStatus.SUCCEEDED: STARTS * THREADS * 3 // 4, (): STARTS * THREADS // 4}
