"""Messages that wait for a conversation: one that gives up costs no other its place."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from fsm import AsyncSessionManager, Request, Result, TextDelta
from persistence import SQLStore

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Each event loop in turn."""
    return request.param


@pytest.fixture
def store(sqlite_url: str) -> Iterator[SQLStore]:
    """A store on a file."""
    with SQLStore(sqlite_url) as store:
        yield store


class Polite:
    """Answers each message with a word."""

    name = "polite"

    async def astream(self, request: Request) -> AsyncIterator[Any]:
        yield TextDelta("yes")
        await anyio.lowlevel.checkpoint()
        yield Result(session_id="s-1")


@pytest.mark.parametrize("leaves", [0, 1, 2, 3])
async def test_a_message_that_gives_up_waiting_costs_no_other_its_place(store: SQLStore, leaves: int) -> None:
    manager = AsyncSessionManager(store, Polite(), on_busy="wait", busy_timeout=30)
    scopes = [anyio.CancelScope() for _ in range(4)]

    async def wait(number: int) -> None:
        with scopes[number]:
            await manager.send("k", f"waiting {number}")

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks, manager.stream("k", "the first") as turn:
            for number in range(4):
                tasks.start_soon(wait, number)
                await anyio.wait_all_tasks_blocked()
            scopes[leaves].cancel()
            await anyio.wait_all_tasks_blocked()
            async for _ in turn:
                pass
        said = [message.text for message in await manager.conversations.messages("k") if message.role == "user"]
        assert said == ["the first", *(f"waiting {number}" for number in range(4) if number != leaves)]


async def test_two_messages_that_give_up_waiting_cost_no_other_its_place(store: SQLStore) -> None:
    manager = AsyncSessionManager(store, Polite(), on_busy="wait", busy_timeout=30)
    scopes = [anyio.CancelScope() for _ in range(5)]

    async def wait(number: int) -> None:
        with scopes[number]:
            await manager.send("k", f"waiting {number}")

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks, manager.stream("k", "the first") as turn:
            for number in range(5):
                tasks.start_soon(wait, number)
                await anyio.wait_all_tasks_blocked()
            for number in (3, 1):
                scopes[number].cancel()
                await anyio.wait_all_tasks_blocked()
            async for _ in turn:
                pass
        said = [message.text for message in await manager.conversations.messages("k") if message.role == "user"]
        assert said == ["the first", "waiting 0", "waiting 2", "waiting 4"]
