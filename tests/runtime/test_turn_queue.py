"""Waiting for a conversation: how often it is looked at, and when that ends."""

import random
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest

from fsm import Conflict, ConversationBusy
from fsm._runtime.settings import Settings
from fsm._runtime.turn_queue import LONGEST_PAUSE, SHORTEST_PAUSE, Queues, Waiting
from fsm.manager import _run


class Ports:
    """Ports whose time passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.chance = random.Random(1)
        self.now = 0.0
        self.slept: list[float] = []

    def elapsed(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    async def call(self, *_: Any) -> Any:
        raise NotImplementedError

    def events(self, _: Any) -> Any:
        raise NotImplementedError

    def shield(self) -> AbstractContextManager[object]:
        return nullcontext()


@pytest.fixture
def ports() -> Ports:
    """A time of its own."""
    return Ports()


def waiting(ports: Ports, **options: Any) -> Waiting:
    """Waiting as it was told."""
    return Waiting(Settings(provider="demo", on_busy="wait", **options), ports)


async def busy() -> None:
    """An attempt that never gets anywhere."""
    raise ConversationBusy("busy", "k")


def test_pauses_grow_from_the_shortest_to_the_longest_each_by_a_half_with_jitter(ports: Ports) -> None:
    """So that a short turn is not kept waiting, and a long one is not looked at all the time."""
    with pytest.raises(ConversationBusy):
        _run(waiting(ports, busy_timeout=3.0).until_free("k", busy))
    longest = SHORTEST_PAUSE
    for slept in ports.slept:
        assert longest / 2 <= slept <= longest
        longest = min(longest * 1.5, LONGEST_PAUSE)
    assert longest == LONGEST_PAUSE
    assert max(ports.slept) > LONGEST_PAUSE * 0.6
    assert len({slept / LONGEST_PAUSE for slept in ports.slept}) == len(ports.slept)


def test_waiting_ends_when_its_time_is_over_and_not_before(ports: Ports) -> None:
    """With the error that the last look has found."""
    with pytest.raises(ConversationBusy, match="conversation 'k': busy"):
        _run(waiting(ports, busy_timeout=3.0).until_free("k", busy))
    assert 3.0 <= ports.now <= 3.0 + LONGEST_PAUSE
    assert ports.now - ports.slept[-1] < 3.0


def test_a_wait_of_the_very_length_of_the_timeout_is_over(ports: Ports) -> None:
    """And not one look longer."""
    looks = 0

    async def look() -> None:
        nonlocal looks
        looks += 1
        ports.now = 3.0 if looks == 1 else 4.0
        raise ConversationBusy("busy", "k")

    with pytest.raises(ConversationBusy):
        _run(waiting(ports, busy_timeout=3.0).until_free("k", look))
    assert looks == 1


def test_who_never_was_the_first_hears_which_conversation_it_was(ports: Ports) -> None:
    """And for how long others have waited."""
    patient = waiting(ports, busy_timeout=0.5)
    with patient._queues.ticket("k"), pytest.raises(ConversationBusy, match=r"conversation 'k': others .* 0\.5 s"):
        _run(patient.until_free("k", busy))
    with patient._queues.ticket("other"), pytest.raises(ConversationBusy, match="busy"):
        _run(patient.until_free("k", busy))


def test_nothing_is_left_of_a_queue_that_nobody_waits_in(ports: Ports) -> None:
    """One entry a conversation would be kept for ever."""
    queues = Queues()
    with queues.ticket("k"), queues.ticket("k"), queues.ticket("other"):
        assert set(queues._waiting) == {"k", "other"}
    assert queues._waiting == {}


def test_the_last_conflict_is_raised_when_somebody_else_is_always_first(
    ports: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After as many tries as there are."""
    monkeypatch.setattr("fsm._runtime.turn_queue.TRIES", 3)
    tries = 0

    async def conflict() -> None:
        nonlocal tries
        tries += 1
        raise Conflict(f"try {tries}", "k")

    with pytest.raises(Conflict, match="try 3"):
        _run(waiting(ports).until_free("k", conflict))
    assert (tries, ports.slept) == (3, [])
