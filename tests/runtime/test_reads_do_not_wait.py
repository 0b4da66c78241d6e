"""Reads of an asynchronous manager do not wait for the threads in which a synchronous provider is read."""

import threading
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from fsm import AsyncSessionManager, Request, Result, SessionManager, TextDelta, TurnStatus
from fsm.providers import DemoProvider
from fsm.testing import ReferenceStore
from persistence import SQLStore

pytestmark = [pytest.mark.thorough, pytest.mark.anyio, pytest.mark.timeout(120)]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Each event loop in turn."""
    return request.param


@pytest.fixture(params=["sqlite", "sqlite alone", "postgresql", "reference"])
def store(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Stores whose steps share a transaction, and stores whose steps don't; the conversation k is there."""
    kind, _, alone = request.param.partition(" ")
    made: Any = (
        ReferenceStore()
        if kind == "reference"
        else SQLStore(request.getfixturevalue(f"{kind}_url"), group_commit=not alone)
    )
    SessionManager(made, DemoProvider()).send("k", "hello")
    yield made
    made.close()


class Blocked:
    """Says nothing until it is released."""

    name = "blocked"

    def __init__(self) -> None:
        self.release = threading.Event()

    def stream(self, request: Request) -> Iterator[Any]:
        self.release.wait()
        yield TextDelta("yes")
        yield Result(session_id="s-1")


READS = ["get", "messages", "turns", "sessions", "transitions"]


@pytest.mark.parametrize("turns", [1, 3])
async def test_reads_go_on_while_every_thread_of_a_provider_is_blocked(store: Any, turns: int) -> None:
    provider = Blocked()
    sessions = AsyncSessionManager(store, provider, threads=1)
    replies: list[TurnStatus] = []
    done: list[str] = []

    async def send(number: int) -> None:
        replies.append((await sessions.send(f"blocked {number}", "hello")).status)

    async def read() -> None:
        for name in READS:
            await getattr(sessions.conversations, name)("k")
            done.append(name)
        await sessions.conversations.list()
        await sessions.recover()
        await sessions.reset("k")
        done.append("all")

    async with anyio.create_task_group() as tasks:
        for number in range(turns):
            tasks.start_soon(send, number)
        while len(store.running()) < turns:
            await anyio.sleep(0.01)
        with anyio.move_on_after(20):
            await read()
        provider.release.set()
    assert done == [*READS, "all"]
    assert replies == [TurnStatus.SUCCEEDED] * turns
