"""A manager whose places are all taken obeys `on_busy` and `busy_timeout` as a busy conversation does."""

from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from fsm import AsyncSessionManager, ConversationBusy, Request, Result, TextDelta, TurnStatus
from fsm.testing import ReferenceStore

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Each event loop in turn."""
    return request.param


class Polite:
    """Answers with a word."""

    name = "polite"

    async def astream(self, request: Request) -> AsyncIterator[Any]:
        yield TextDelta("yes")
        await anyio.lowlevel.checkpoint()
        yield Result(session_id="s-1")


def manager(**options: Any) -> AsyncSessionManager:
    """A manager with one place."""
    return AsyncSessionManager(ReferenceStore(), Polite(), **{"max_turns": 1, **options})


async def test_a_manager_that_is_full_is_busy_at_once(anyio_backend: str) -> None:
    sessions = manager(on_busy="raise", busy_timeout=3600)
    with anyio.fail_after(30):
        async with sessions.stream("first", "hello") as turn:
            with pytest.raises(ConversationBusy, match="other"):
                await sessions.send("other", "hello")
            async for _ in turn:
                pass
        assert (await sessions.send("other", "hello")).status is TurnStatus.SUCCEEDED


async def test_a_manager_that_is_full_lets_others_wait_as_long_as_it_was_told(anyio_backend: str) -> None:
    sessions = manager(on_busy="wait", busy_timeout=0.3)
    with anyio.fail_after(30):
        async with sessions.stream("first", "hello") as turn:
            with pytest.raises(ConversationBusy, match="other"):
                await sessions.send("other", "hello")
            async for _ in turn:
                pass
        assert (await sessions.send("other", "hello")).status is TurnStatus.SUCCEEDED


async def test_those_who_wait_for_a_place_are_answered_in_their_order(anyio_backend: str) -> None:
    sessions = manager(on_busy="wait", busy_timeout=30)
    answered: list[str] = []

    async def send(key: str) -> None:
        await sessions.send(key, "hello")
        answered.append(key)

    keys = [f"k{number}" for number in range(6)]
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks, sessions.stream("first", "hello") as turn:
            for key in keys:
                tasks.start_soon(send, key)
                await anyio.wait_all_tasks_blocked()
            async for _ in turn:
                pass
    assert answered == keys


async def test_a_place_is_given_back_by_whoever_gives_up_waiting(anyio_backend: str) -> None:
    sessions = manager(on_busy="wait", busy_timeout=30)
    with anyio.fail_after(30):
        async with sessions.stream("first", "hello") as turn:
            with anyio.move_on_after(0.05):
                await sessions.send("other", "hello")
            async for _ in turn:
                pass
        assert (await sessions.send("third", "hello")).status is TurnStatus.SUCCEEDED
