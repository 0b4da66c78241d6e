"""A caller that is cancelled between two events: its turn ends as interrupted before the cancellation goes on."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from fsm import AsyncSessionManager, Request, Result, TextDelta, TurnStatus
from fsm.testing import ReferenceStore, check_database
from persistence import SQLStore

pytestmark = [pytest.mark.thorough, pytest.mark.anyio, pytest.mark.timeout(120)]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Each event loop in turn."""
    return request.param


@pytest.fixture(params=["sqlite", "sqlite alone", "postgresql", "reference"])
def store(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Stores whose steps share a transaction, and stores whose steps don't."""
    kind, _, alone = request.param.partition(" ")
    if kind == "reference":
        yield ReferenceStore()
        return
    with SQLStore(request.getfixturevalue(f"{kind}_url"), group_commit=not alone) as store:
        yield store


class Watched:
    """Two words and a result; its stream notes that it was closed."""

    name = "watched"

    def __init__(self) -> None:
        self.closed = threading.Event()

    async def astream(self, request: Request) -> AsyncIterator[Any]:
        try:
            for event in (TextDelta("one "), TextDelta("two"), Result(session_id="s-1")):
                await anyio.lowlevel.checkpoint()
                yield event
        finally:
            self.closed.set()


class Threaded:
    """The same, with a synchronous stream."""

    name = "watched"

    def __init__(self) -> None:
        self.closed = threading.Event()

    def stream(self, request: Request) -> Iterator[Any]:
        try:
            yield from (TextDelta("one "), TextDelta("two"), Result(session_id="s-1"))
        finally:
            self.closed.set()


async def check_cut_off(store: Any, said: list[str]) -> None:
    """The turn was interrupted, what it had said is stored, and the next turn begins at once."""
    manager = AsyncSessionManager(store, Watched())
    assert (await manager.conversations.get("k")).running is None
    assert [turn.status for turn in await manager.conversations.turns("k")] == [TurnStatus.INTERRUPTED]
    assert [message.text for message in await manager.conversations.messages("k")] == ["hello", *said]
    assert (await manager.send("k", "and now")).status is TurnStatus.SUCCEEDED
    check_database(store)


async def cancelled(manager: AsyncSessionManager, *, times: int) -> None:
    """Read one event in a task, and let asyncio cancel it."""
    reading = asyncio.Event()

    async def read() -> None:
        async with manager.stream("k", "hello") as turn:
            await anext(turn)
            reading.set()
            await asyncio.sleep(3600)

    task = asyncio.ensure_future(read())
    await reading.wait()
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    await asyncio.wait([task])
    assert task.cancelled()


@pytest.mark.parametrize("make", [Watched, Threaded])
@pytest.mark.parametrize("events", [0, 1, 2])
async def test_a_caller_whose_scope_is_cancelled_between_two_events_leaves_no_running_turn(
    store: Any, make: Callable[[], Any], events: int
) -> None:
    provider = make()
    manager = AsyncSessionManager(store, provider)
    with anyio.fail_after(60):
        with anyio.CancelScope() as scope:
            async with manager.stream("k", "hello") as turn:
                for _ in range(events):
                    await anext(turn)
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        await check_cut_off(store, ["", "one ", "one two"][events : events + 1] if events else [])
        if events:
            assert await anyio.to_thread.run_sync(provider.closed.wait, 30)


async def test_a_caller_whose_time_is_over_between_two_events_leaves_no_running_turn(store: Any) -> None:
    manager = AsyncSessionManager(store, Watched())
    with anyio.fail_after(60):
        with anyio.move_on_after(0.05) as scope:
            async with manager.stream("k", "hello") as turn:
                await anext(turn)
                await anyio.sleep_forever()
        if scope.cancelled_caught and await manager.conversations.turns("k"):
            assert (await manager.conversations.turns("k"))[0].status is TurnStatus.INTERRUPTED
        assert store.running() == []


async def test_many_callers_of_a_group_that_fails_leave_no_running_turns(store: Any) -> None:
    manager = AsyncSessionManager(store, Watched())
    reading = 0

    async def read(key: str) -> None:
        nonlocal reading
        async with manager.stream(key, "hello") as turn:
            await anext(turn)
            reading += 1
            await anyio.sleep_forever()

    async def fail() -> None:
        while reading < 10:
            await anyio.sleep(0.01)
        raise ZeroDivisionError

    with anyio.fail_after(60):
        with pytest.raises(ExceptionGroup) as caught:
            async with anyio.create_task_group() as tasks:
                for number in range(10):
                    tasks.start_soon(read, f"k{number}")
                tasks.start_soon(fail)
        assert caught.group_contains(ZeroDivisionError)
        assert store.running() == []
        conversations = await manager.conversations.list()
        assert len(conversations) == 10
        for conversation in conversations:
            (turn,) = await manager.conversations.turns(conversation.key)
            assert turn.status is TurnStatus.INTERRUPTED


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_that_asyncio_cancels_between_two_events_leaves_no_running_turn(store: Any) -> None:
    manager = AsyncSessionManager(store, Watched())
    async with asyncio.timeout(60):
        await cancelled(manager, times=1)
        await check_cut_off(store, ["one "])
