"""A task that asyncio cancels again while its turn is being ended leaves no busy conversation."""

import asyncio
from typing import Any

import pytest

from fsm import AsyncSessionManager, TurnStatus
from fsm.testing import check_database
from tests.runtime.test_aio_cancelled import Threaded, Watched, cancelled, store

__all__ = ["store"]

pytestmark = [pytest.mark.thorough, pytest.mark.anyio, pytest.mark.timeout(120)]


@pytest.fixture
def anyio_backend() -> str:
    """`task.cancel()` goes through every shield; trio has nothing like it."""
    return "asyncio"


@pytest.mark.parametrize("times", [2, 3, 5])
@pytest.mark.parametrize("make", [Watched, Threaded])
async def test_a_task_that_is_cancelled_again_while_its_turn_is_ended_leaves_no_busy_conversation(
    store: Any, make: Any, times: int
) -> None:
    manager = AsyncSessionManager(store, make())
    async with asyncio.timeout(60):
        await cancelled(manager, times=times)
        assert (await manager.send("k", "and now")).status is TurnStatus.SUCCEEDED
        turns = [turn.status for turn in await manager.conversations.turns("k")]
    assert turns == [TurnStatus.INTERRUPTED, TurnStatus.SUCCEEDED]
    check_database(store)
