"""Calls that come at the same time go to a thread together, and each caller gets what is its own."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from fsm import StoreError
from fsm._runtime import bundles
from fsm._runtime.bundles import Bundles

pytestmark = pytest.mark.anyio

TIMEOUT = 30.0


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Each event loop in turn."""
    return request.param


class Gate:
    """Doubles numbers, refuses odd ones, and lets a bundle go on when it is told to."""

    def __init__(self) -> None:
        self.bundles: list[list[int]] = []
        self._may_go = threading.Semaphore(0)
        self._has_come = threading.Semaphore(0)

    def perform(self, numbers: Sequence[int]) -> Sequence[int | Exception]:
        self.bundles.append(list(numbers))
        self._has_come.release()
        assert self._may_go.acquire(timeout=TIMEOUT)
        return [2 * number if number % 2 == 0 else ValueError(number) for number in numbers]

    def let(self, bundles: int = 1) -> None:
        for _ in range(bundles):
            self._may_go.release()

    async def has_come(self) -> None:
        """Until the next bundle has."""
        assert await anyio.to_thread.run_sync(lambda: self._has_come.acquire(timeout=TIMEOUT))


class Callers:
    """Tasks that call, and what came of each."""

    def __init__(self, calls: Bundles[int, int], tasks: Any) -> None:
        self.outcomes: dict[int, Any] = {}
        self.scopes: dict[int, anyio.CancelScope] = {}
        self._calls = calls
        self._tasks = tasks

    async def start(self, *numbers: int) -> None:
        """Each waits, in this order, or is under way."""
        for number in numbers:
            self._tasks.start_soon(self._call, number)
            await anyio.wait_all_tasks_blocked()

    async def _call(self, number: int) -> None:
        with anyio.CancelScope() as self.scopes[number]:
            try:
                self.outcomes[number] = await self._calls.call(number)
            except ValueError as error:
                self.outcomes[number] = error
            await anyio.lowlevel.checkpoint()
            return
        self.outcomes[number] = (self.outcomes.get(number), "cancelled")


@asynccontextmanager
async def calling(gate: Gate) -> AsyncIterator[Callers]:
    """Callers, all of which have got something at the end."""
    with anyio.fail_after(TIMEOUT):
        async with anyio.create_task_group() as tasks:
            yield Callers(Bundles(gate.perform), tasks)


async def test_a_lone_call_goes_at_once() -> None:
    """It waits for nobody."""
    gate = Gate()
    gate.let(2)
    calls = Bundles(gate.perform)
    assert await calls.call(2) == 4
    with pytest.raises(ValueError, match="3"):
        await calls.call(3)
    assert gate.bundles == [[2], [3]]


async def test_calls_that_come_while_one_is_under_way_go_together() -> None:
    """One that is refused costs its neighbours nothing."""
    gate = Gate()
    async with calling(gate) as callers:
        await callers.start(2, 4, 5, 6)
        gate.let(2)
    assert gate.bundles == [[2], [4, 5, 6]]
    assert isinstance(callers.outcomes.pop(5), ValueError)
    assert callers.outcomes == {2: 4, 4: 8, 6: 12}


async def test_those_who_come_later_go_with_the_next() -> None:
    """There is always one that leads, and no bundle is under way beside another."""
    gate = Gate()
    async with calling(gate) as callers:
        await callers.start(2, 4)
        await gate.has_come()
        gate.let()
        await gate.has_come()
        await callers.start(6, 8)
        assert callers.outcomes == {2: 4}
        gate.let(2)
    assert gate.bundles == [[2], [4], [6, 8]]
    assert callers.outcomes == {2: 4, 4: 8, 6: 12, 8: 16}


async def test_whoever_comes_between_two_bundles_does_not_lead_besides(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lead is passed on at once, and not only taken when its new owner runs."""
    led: list[tuple[bool, int]] = []

    def pass_on(calls: Bundles[int, int]) -> None:
        passed_on(calls)
        led.append((calls._is_led, len(calls._waiting)))

    passed_on = Bundles._pass_on
    monkeypatch.setattr(Bundles, "_pass_on", pass_on)
    gate = Gate()
    async with calling(gate) as callers:
        await callers.start(2, 4, 6)
        gate.let(2)
    assert led == [(True, 2), (False, 0)]


async def test_more_than_fit_into_one_bundle_take_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "MOST", 2)
    gate = Gate()
    async with calling(gate) as callers:
        await callers.start(2, 4, 6, 8)
        gate.let(3)
    assert gate.bundles == [[2], [4, 6], [8]]
    assert callers.outcomes == {2: 4, 4: 8, 6: 12, 8: 16}


async def test_what_fails_for_a_whole_bundle_is_told_to_all_in_it() -> None:
    """And to nobody else."""
    gate = Gate()

    class Broken(Gate):
        def perform(self, numbers: Sequence[int]) -> Sequence[int | Exception]:
            outcomes = super().perform(numbers)
            if len(numbers) > 1:
                raise ValueError("no thread")
            return outcomes

    gate = Broken()
    async with calling(gate) as callers:
        await callers.start(2, 4, 6)
        gate.let(2)
    assert [str(callers.outcomes.pop(number)) for number in (4, 6)] == ["no thread"] * 2
    assert callers.outcomes == {2: 4}
    gate.let()
    assert await Bundles(gate.perform).call(8) == 16


async def test_a_call_that_was_cancelled_before_does_not_set_out() -> None:
    gate = Gate()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await Bundles(gate.perform).call(2)
    assert scope.cancelled_caught
    assert gate.bundles == []


@pytest.mark.parametrize("cancelled", [2, 4, 6])
async def test_a_caller_whose_scope_is_cancelled_gets_what_is_its_own_first(cancelled: int) -> None:
    """Whether it leads or not: what has set out, or will, is waited for, and the neighbours get theirs."""
    gate = Gate()
    async with calling(gate) as callers:
        await callers.start(2, 4, 6)
        callers.scopes[cancelled].cancel()
        await anyio.wait_all_tasks_blocked()
        assert callers.outcomes == {}
        gate.let(2)
    assert gate.bundles == [[2], [4, 6]]
    assert callers.outcomes.pop(cancelled) == (2 * cancelled, "cancelled")
    assert callers.outcomes == {number: 2 * number for number in (2, 4, 6) if number != cancelled}


# asyncio's own cancellation goes through every shield.


@asynccontextmanager
async def tasks_calling(
    gate: Gate, *numbers: int, calls: Bundles[int, int] | None = None
) -> AsyncIterator[list[asyncio.Task[int]]]:
    """The first is under way, the others wait."""
    calls = calls or Bundles(gate.perform)
    tasks = []
    async with asyncio.timeout(TIMEOUT):
        for number in numbers:
            tasks.append(asyncio.ensure_future(calls.call(number)))
            await anyio.wait_all_tasks_blocked()
        yield tasks
        await asyncio.wait(tasks)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_leader_that_is_cancelled_brings_its_bundle_home() -> None:
    """However often, the neighbours get theirs and somebody else leads on."""
    gate = Gate()
    async with tasks_calling(gate, 2, 4, 6) as tasks:
        await gate.has_come()
        gate.let()
        await gate.has_come()
        for _ in range(3):
            tasks[1].cancel()
            await asyncio.sleep(0)
        assert not tasks[1].done()
        gate.let()
    assert tasks[1].cancelled()
    assert [tasks[0].result(), tasks[2].result()] == [4, 12]
    assert gate.bundles == [[2], [4, 6]]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_caller_that_is_cancelled_while_it_waits_is_taken_back() -> None:
    """Nothing was done for it."""
    gate = Gate()
    async with tasks_calling(gate, 2, 4, 6) as tasks:
        tasks[1].cancel()
        await asyncio.wait([tasks[1]])
        gate.let(2)
    assert tasks[1].cancelled()
    assert gate.bundles == [[2], [6]]
    assert [tasks[0].result(), tasks[2].result()] == [4, 12]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_caller_that_is_cancelled_when_it_is_to_lead_lets_the_next_one_lead() -> None:
    """It was woken for that, and the cancellation comes before it runs."""
    gate = Gate()
    calls = Bundles(gate.perform)
    pass_on = calls._pass_on

    def pass_on_and_cancel() -> None:
        calls._pass_on = pass_on  # type: ignore[method-assign]
        pass_on()
        tasks[1].cancel()

    calls._pass_on = pass_on_and_cancel  # type: ignore[method-assign]
    async with tasks_calling(gate, 2, 4, 6, calls=calls) as tasks:
        gate.let(2)
    assert tasks[1].cancelled()
    assert gate.bundles == [[2], [6]]
    assert [tasks[0].result(), tasks[2].result()] == [4, 12]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_leader_that_is_cancelled_before_its_bundle_has_set_out_takes_it_all_the_same() -> None:
    """For its neighbours it is too late to find another."""
    gate = Gate()
    calls = Bundles(gate.perform)
    there_and_back = calls._there_and_back

    async def cancelled(bundle: Any) -> None:
        if len(bundle) > 1:
            tasks[1].cancel()
        await there_and_back(bundle)

    calls._there_and_back = cancelled  # type: ignore[method-assign]
    async with tasks_calling(gate, 2, 4, 6, calls=calls) as tasks:
        gate.let(2)
    assert tasks[1].cancelled()
    assert gate.bundles == [[2], [4, 6]]
    assert tasks[2].result() == 12


async def test_a_thread_that_can_not_be_had_is_told_to_all_who_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    async with calling(gate) as callers:
        await callers.start(2, 4, 6)

        async def no_thread(*_: Any, **__: Any) -> None:
            raise ValueError("can't start new thread")

        monkeypatch.setattr(anyio.to_thread, "run_sync", no_thread)
        gate.let()
    assert callers.outcomes.pop(2) == 4
    assert [str(error) for error in callers.outcomes.values()] == ["can't start new thread"] * 2


def test_an_event_loop_that_ends_cancels_all_and_the_next_one_begins_anew() -> None:
    """`asyncio.run` cancels every task, also those that no caller knows of."""
    gate = Gate()
    calls = Bundles(gate.perform)
    tasks: list[asyncio.Task[int]] = []

    async def leave() -> None:
        tasks.extend(asyncio.ensure_future(calls.call(number)) for number in (2, 4, 6))
        await gate.has_come()
        gate.let()
        await gate.has_come()

    async def begin_anew() -> int:
        return await calls.call(8)

    asyncio.run(leave())
    assert [task.cancelled() for task in tasks] == [False, True, True]
    gate.let(2)
    assert asyncio.run(begin_anew()) == 16
    assert gate.bundles == [[2], [4, 6], [8]]


def test_a_bundle_of_which_nobody_knows_what_became_says_so() -> None:
    """Whoever caught its own cancellation must not believe that it was answered."""
    gate = Gate()
    calls = Bundles(gate.perform)

    async def stubborn(number: int) -> Any:
        try:
            return await calls.call(number)
        except asyncio.CancelledError:
            return "cancelled"
        except StoreError as error:
            return str(error)

    async def leave() -> list[Any]:
        tasks = [asyncio.ensure_future(stubborn(number)) for number in (2, 4, 6)]
        await gate.has_come()
        gate.let()
        await gate.has_come()
        (unknown,) = asyncio.all_tasks() - {asyncio.current_task(), *tasks}
        unknown.cancel()
        return await asyncio.gather(*tasks)

    outcomes = asyncio.run(leave())
    assert outcomes[0] == 4
    assert "the event loop was ended" in str(outcomes[2])
    gate.let()
