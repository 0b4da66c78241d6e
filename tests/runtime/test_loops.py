"""One asynchronous manager in several event loops, at once and one after the other: each turn is answered."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest

from fsm import AsyncSessionManager, Request, Result, TextDelta
from fsm.providers import DemoProvider
from fsm.testing import check_database
from persistence import SQLStore
from tests.outside import outside

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(300)]

LOOPS, TURNS = 4, 5


class Synchronous:
    """A provider that has no ``astream``."""

    name = "synchronous"

    def stream(self, request: Request) -> Iterator[Any]:
        yield TextDelta("yes")
        yield Result(session_id=request.session_id or f"{request.key} {request.session_number}")


PROVIDERS: dict[str, Callable[[], Any]] = {"demo": DemoProvider, "synchronous": Synchronous}


def manager(store: SQLStore, provider: str, **options: Any) -> AsyncSessionManager:
    """A manager that lets others wait, and lets few in at once."""
    options = {"on_busy": "wait", "busy_timeout": 60, "max_turns": 2, "threads": 2, **options}
    return AsyncSessionManager(store, PROVIDERS[provider](), **options)


async def talk(sessions: AsyncSessionManager, loop: int, answered: list[str]) -> None:
    """Talk in a conversation that only this task uses, and in a shared one."""

    async def send(key: str, text: str) -> None:
        await sessions.send(key, text)
        answered.append(text)

    async with anyio.create_task_group() as tasks:
        for turn in range(TURNS):
            tasks.start_soon(send, f"k{loop}", f"{loop} {turn}")
            tasks.start_soon(send, "shared", f"shared {loop} {turn}")
    await sessions.conversations.messages("shared")
    await sessions.recover()


def run_in_threads(jobs: list[Callable[[], object]]) -> list[str]:
    """Run jobs at once, each in a thread; what they raised."""
    raised: list[str] = []
    gate = threading.Barrier(len(jobs))

    def run(job: Callable[[], object]) -> None:
        gate.wait()
        try:
            job()
        except BaseException as error:  # noqa: BLE001  # a cancellation too
            raised.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def summary(store: SQLStore, answered: list[str], raised: list[str]) -> dict[str, Any]:
    """The report of the run."""
    check_database(store)
    said = [
        message.text
        for conversation in store.conversations()
        for message in store.messages(conversation)
        if message.role == "user"
    ]
    return {
        "raised": raised,
        "answered": len(answered),
        "stored": sorted(answered) == sorted(said),
        "running": len(store.running()),
    }


def loops_at_once(url: str, provider: str, backends: list[str]) -> dict[str, Any]:
    """A loop in each of several threads."""
    answered: list[str] = []
    with SQLStore(url) as store:
        sessions = manager(store, provider)
        jobs = [
            lambda number=number, backend=backend: anyio.run(talk, sessions, number, answered, backend=backend)
            for number, backend in enumerate(backends)
        ]
        return summary(store, answered, run_in_threads(jobs))


def loops_in_turn(url: str, provider: str, backends: list[str]) -> dict[str, Any]:
    """A loop after the other in one thread."""
    answered: list[str] = []
    with SQLStore(url) as store:
        sessions = manager(store, provider)
        for number, backend in enumerate(backends):
            anyio.run(talk, sessions, number, answered, backend=backend)
        return summary(store, answered, [])


def loops_that_are_left(url: str, provider: str, backends: list[str]) -> dict[str, Any]:
    """Each loop ends while turns run and wait in it, and the next one begins."""
    answered: list[str] = []

    async def leave(sessions: AsyncSessionManager, number: int) -> None:
        async with anyio.create_task_group() as tasks:
            for turn in range(6):
                tasks.start_soon(sessions.send, f"left {number} {turn % 2}", "hello")
            await anyio.sleep(0.001 * number)
            tasks.cancel_scope.cancel()

    with SQLStore(url) as store:
        sessions = manager(store, provider, max_turns=1)
        for number, backend in enumerate(backends):
            anyio.run(leave, sessions, number, backend=backend)
        running = len(store.running())
        for number, backend in enumerate(backends):
            anyio.run(talk, sessions, number, answered, backend=backend)
        check_database(store)
        return {"running": running, "answered": len(answered)}


def a_loop_that_is_closed_on_its_turns(url: str, provider: str) -> str:
    """A loop is stopped and closed; nobody tells the tasks in it. Another conversation is free."""

    async def hold(sessions: AsyncSessionManager, reached: asyncio.Event) -> None:
        async with sessions.stream("held", "hello") as turn:
            await anext(turn)
            reached.set()
            await asyncio.sleep(3600)

    async def until_held(sessions: AsyncSessionManager) -> None:
        reached = asyncio.Event()
        kept.append(asyncio.ensure_future(hold(sessions, reached)))
        await reached.wait()

    kept: list[Any] = []
    with SQLStore(url) as store:
        sessions = manager(store, provider, max_turns=1)
        loop = asyncio.new_event_loop()
        loop.run_until_complete(until_held(sessions))
        loop.close()
        return asyncio.run(sessions.send("other", "hello")).status.value


GOOD = {"raised": [], "answered": 2 * LOOPS * TURNS, "stored": True, "running": 0}
BACKENDS = {
    "asyncio": ["asyncio"] * LOOPS,
    "trio": ["trio"] * LOOPS,
    "both": ["asyncio", "trio"] * (LOOPS // 2),
}


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("backends", BACKENDS.values(), ids=BACKENDS)
def test_several_loops_at_once_share_a_manager(url: str, provider: str, backends: list[str]) -> None:
    assert outside(loops_at_once, url, provider, backends) == GOOD


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("backends", BACKENDS.values(), ids=BACKENDS)
def test_loops_one_after_the_other_share_a_manager(url: str, provider: str, backends: list[str]) -> None:
    assert outside(loops_in_turn, url, provider, backends) == GOOD


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("backends", BACKENDS.values(), ids=BACKENDS)
def test_loops_that_end_while_turns_run_and_wait_leave_nothing_behind(
    url: str, provider: str, backends: list[str]
) -> None:
    assert outside(loops_that_are_left, url, provider, backends) == {
        "running": 0,
        "answered": 2 * LOOPS * TURNS,
    }


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_loop_that_is_closed_on_its_turns_keeps_no_place_from_others(sqlite_url: str, provider: str) -> None:
    assert outside(a_loop_that_is_closed_on_its_turns, sqlite_url, provider) == "succeeded"
