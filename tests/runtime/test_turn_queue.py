"""Waiting for a conversation: when it is looked at, in which order callers go on, and when waiting ends."""

import threading
from typing import Any

import pytest

from fsm import ConversationBusy, Result, TextDelta
from fsm._runtime.adapters import InlineAdapter
from fsm._runtime.engine import Engine
from fsm._runtime.inline import run
from fsm._runtime.scripts import Script
from fsm._runtime.settings import Settings
from fsm._runtime.turn_queue import LONGEST_PAUSE, SHORTEST_PAUSE, Queues, TurnQueue
from fsm.providers import DemoProvider
from fsm.testing import ReferenceStore
from persistence import SQLStore
from tests.eventually import eventually

ANSWER = [TextDelta("one "), TextDelta("two"), Result(session_id="s-1")]


class World(InlineAdapter):
    """A world whose time passes only while somebody sleeps."""

    def __init__(self) -> None:
        super().__init__(ReferenceStore(), DemoProvider())
        self.now = 0.0
        self.slept: list[float] = []

    def elapsed(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def world() -> World:
    return World()


def queue(world: World, **options: Any) -> TurnQueue:
    return TurnQueue(Settings(provider="demo", on_busy="wait", **options), world)


def engine(store: SQLStore, *script: Any, **options: Any) -> Engine:
    """Return the engine of a synchronous manager that waits."""
    provider = DemoProvider(script)
    settings = Settings.of(store, provider, ("stream",), on_busy="wait", **options)
    return Engine(store, InlineAdapter(store, provider), settings)


def send(waits: Engine, text: str) -> None:
    turn = run(waits.begin("k", text))
    while run(turn.pull()) is not None:
        pass


def busy() -> Script[None]:
    raise ConversationBusy("busy", "k")
    yield


def test_pauses_grow_from_the_shortest_to_the_longest_each_by_a_half_with_jitter(world: World) -> None:
    with pytest.raises(ConversationBusy):
        run(queue(world, busy_timeout=3.0).until_free("k", busy))
    longest = SHORTEST_PAUSE
    for slept in world.slept:
        assert longest / 2 <= slept <= longest
        longest = min(longest * 1.5, LONGEST_PAUSE)
    assert longest == LONGEST_PAUSE
    assert max(world.slept) > LONGEST_PAUSE * 0.6
    assert len({slept / LONGEST_PAUSE for slept in world.slept}) == len(world.slept)


def test_waiting_ends_when_its_time_is_over_and_not_before(world: World) -> None:
    with pytest.raises(ConversationBusy, match="conversation 'k': busy"):
        run(queue(world, busy_timeout=3.0).until_free("k", busy))
    assert 3.0 <= world.now <= 3.0 + LONGEST_PAUSE
    assert world.now - world.slept[-1] < 3.0


def test_a_wait_of_the_very_length_of_the_timeout_is_over(world: World) -> None:
    looks = 0

    def look() -> Script[None]:
        nonlocal looks
        looks += 1
        world.now = 3.0 if looks == 1 else 4.0
        return busy()

    with pytest.raises(ConversationBusy):
        run(queue(world, busy_timeout=3.0).until_free("k", look))
    assert looks == 1


def test_a_caller_that_never_was_the_first_hears_which_conversation_it_was(world: World) -> None:
    patient = queue(world, busy_timeout=0.5)
    with patient.queues.ticket("k"), pytest.raises(ConversationBusy, match=r"conversation 'k': others .* 0\.5 s"):
        run(patient.until_free("k", busy))
    with patient.queues.ticket("other"), pytest.raises(ConversationBusy, match="busy"):
        run(patient.until_free("k", busy))


def test_nothing_is_left_of_a_queue_that_nobody_waits_in() -> None:
    queues = Queues()
    with queues.ticket("k"), queues.ticket("k"), queues.ticket("other"):
        assert (queues.length("k"), queues.length("other")) == (2, 1)
    assert (queues.length("k"), queues.length("other")) == (0, 0)


def test_waiting_turns_are_answered_in_the_order_in_which_they_came(store: SQLStore) -> None:
    waits = engine(store, ANSWER, ANSWER, ANSWER, ANSWER)
    first = run(waits.begin("k", "first"))
    others = []
    for number in range(3):
        thread = threading.Thread(target=lambda text=f"waiting {number}": send(waits, text))
        thread.start()
        others.append(thread)
        eventually(lambda number=number: waits.queue.queues.length("k") > number)
    while run(first.pull()) is not None:
        pass
    for thread in others:
        thread.join(timeout=30)
    conversation = store.load("k")
    said = [message.text for message in store.messages(conversation) if message.role == "user"]
    assert said == ["first", "waiting 0", "waiting 1", "waiting 2"]
    assert waits.queue.queues.length("k") == 0


def test_a_message_that_waits_behind_others_for_too_long_is_refused(store: SQLStore) -> None:
    waits = engine(store, ANSWER, busy_timeout=0.05)
    with waits.queue.queues.ticket("k"), pytest.raises(ConversationBusy, match="'k': others have waited"):
        send(waits, "second")


def test_a_reset_waits_for_the_turn_of_its_own_conversation_and_for_no_other(store: SQLStore) -> None:
    waits = engine(store, busy_timeout=0.05)
    send(waits, "hello")
    with waits.queue.queues.ticket("k"), pytest.raises(ConversationBusy, match="others have waited"):
        run(waits.reset("k", reason="r", force=False))
    with waits.queue.queues.ticket("other"):
        assert run(waits.reset("k", reason="r", force=False)).session_number == 2
