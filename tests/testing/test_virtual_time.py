"""Virtual time: a loop that a seed decides, where tasks are cancelled as by anyio and killed as by the kernel."""

import random

import pytest

from fsm.testing.virtual_time import Cancelled, Killed, Loop, Task


def played(seed: int) -> list[str]:
    loop, heard = Loop(random.Random(seed)), []

    async def work(name: str) -> None:
        for _ in range(5):
            await loop.pause(1)
            heard.append(name)

    for name in "abc":
        loop.spawn(work(name), group=None)
    loop.run()
    return heard


def test_one_seed_one_order_and_another_seed_another() -> None:
    """Chance decides who is first among those whose time has come at once."""
    assert played(1) == played(1)
    assert len({tuple(played(seed)) for seed in range(10)}) > 1


def test_an_outcome_and_an_error_are_told() -> None:
    """The loop goes on whatever a task raises."""
    loop, over = Loop(random.Random(0)), list[Task]()

    async def succeed() -> int:
        await loop.pause(2)
        return 7

    async def fail() -> None:
        await loop.pause(1)
        raise ValueError("no")

    for coroutine in (succeed(), fail()):
        loop.spawn(coroutine, None, over.append)
    loop.run()
    assert [(task.outcome, type(task.error)) for task in over] == [(None, ValueError), (7, type(None))]


def test_a_cancelled_task_hears_of_it_at_every_wait_outside_a_shield() -> None:
    """As with anyio: swallowing it once does not help, and inside a shield nothing is heard of it."""
    loop, heard = Loop(random.Random(0)), list[str]()

    async def work() -> None:
        try:
            with loop.shield():
                await loop.pause(10)
                heard.append(f"shielded until {loop.now:.0f}")
            await loop.pause(10)
        except Cancelled:
            heard.append(f"cancelled at {loop.now:.0f}")
        await loop.pause(10)

    task = loop.spawn(work(), None)
    loop.call_in(5, lambda: loop.cancel(task))
    loop.run()
    assert heard == ["shielded until 10", "cancelled at 10"]
    assert isinstance(task.error, Cancelled)
    loop.cancel(task)
    loop.run()


def test_a_waiting_task_is_cancelled_at_once() -> None:
    loop = Loop(random.Random(0))
    task = loop.spawn(loop.pause(1000), None)
    loop.call_in(5, lambda: loop.cancel(task))
    loop.run()
    assert isinstance(task.error, Cancelled)
    assert loop.now == 5


def test_nothing_that_a_killed_task_awaits_happens() -> None:
    """Neither in its clean-up nor behind a shield; and only its own group dies."""
    loop, heard = Loop(random.Random(0)), list[str]()

    async def work(name: str) -> None:
        try:
            await loop.pause(10)
            heard.append(name)
        finally:
            with loop.shield():
                await loop.pause(0)
            heard.append(f"{name} cleaned up")

    dead = loop.spawn(work("dead"), "one")
    loop.spawn(work("alive"), "other")
    loop.call_in(5, lambda: loop.kill("one"))
    loop.run()
    assert isinstance(dead.error, Killed)
    assert heard == ["alive", "alive cleaned up"]


def test_what_is_abandoned_ends_and_is_told_to_nobody() -> None:
    loop, over = Loop(random.Random(0)), list[Task]()
    task = loop.spawn(loop.pause(10), None, over.append)
    loop.abandon()
    loop.run()
    assert (task.is_over, over) == (True, [])


def test_only_a_task_of_the_loop_can_wait() -> None:
    loop = Loop(random.Random(0))
    with pytest.raises(RuntimeError, match="only a task of this loop"):
        loop.pause(1).send(None)
