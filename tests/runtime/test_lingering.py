"""A stored answer is handed out at once, whatever its provider does after its result; the provider is closed later."""

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import anyio.to_thread
import pytest

from fsm import AsyncSessionManager, Reply, Request, Result, SessionManager, TextDelta, TurnStatus
from fsm.testing import ReferenceStore
from persistence import SQLStore
from tests.outside import outside

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(120)]

PATIENCE = 20.0
"""For how many seconds a test waits for what must not have to wait; not a limit of speed."""


class Lingers:
    """Stays open after its result until it is released; its stream notes that it was closed.

    Args:
        where: after the result, or in the stream's own clean-up.
    """

    name = "lingers"

    def __init__(self, where: str = "after its result") -> None:
        self.where = where
        self.asked = 0
        self.release = threading.Event()
        self.closed = threading.Semaphore(0)

    def stream(self, request: Request) -> Iterator[Any]:
        self.asked += 1
        try:
            yield TextDelta("hello")
            yield Result(session_id="s-1")
            if self.where == "after its result":
                self.release.wait()
        finally:
            if self.where == "in its clean-up":
                self.release.wait()
            self.closed.release()


class AsyncLingers(Lingers):
    """The same, on an event loop."""

    def __init__(self, where: str = "after its result") -> None:
        super().__init__(where)
        self.freed = anyio.Event()

    async def astream(self, request: Request) -> AsyncIterator[Any]:
        self.asked += 1
        try:
            yield TextDelta("hello")
            yield Result(session_id="s-1")
            if self.where == "after its result":
                await self.freed.wait()
        finally:
            if self.where == "in its clean-up":
                with anyio.CancelScope(shield=True):
                    await self.freed.wait()
            self.closed.release()


@pytest.fixture(params=["after its result", "in its clean-up"])
def where(request: pytest.FixtureRequest) -> str:
    """Where the provider stays."""
    return request.param


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Each event loop in turn."""
    return request.param


@pytest.fixture(params=["sqlite", "reference"])
def store(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A real store, and the reference store."""
    if request.param == "reference":
        yield ReferenceStore()
        return
    with SQLStore(request.getfixturevalue("sqlite_url")) as store:
        yield store


def in_time(provider: Lingers, job: Callable[[], Any]) -> Any:
    """Return the result of a job while the provider lingers, and release the provider afterwards."""
    returned: list[Any] = []
    thread = threading.Thread(target=lambda: returned.append(job()), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    provider.release.set()
    thread.join()
    assert provider.asked, "the provider was not asked"
    return returned[0]


def before_release(provider: Lingers, job: Callable[[], Any]) -> Any:
    """The same, and the test fails if the job was not done before the release."""
    early: list[bool] = []

    def noting() -> Any:
        found = job()
        early.append(not provider.release.is_set())
        return found

    found = in_time(provider, noting)
    assert early == [True], "the answer had to wait for the provider"
    return found


def check(reply: Reply) -> None:
    """It is the whole answer."""
    assert (reply.text, reply.status) == ("hello", TurnStatus.SUCCEEDED)


def test_send_returns_a_stored_answer_though_the_provider_stays(store: Any, where: str) -> None:
    provider = Lingers(where)
    check(before_release(provider, lambda: SessionManager(store, provider).send("k", "hello")))
    assert provider.closed.acquire(timeout=PATIENCE)


def test_a_stream_hands_out_its_result_and_ends_though_the_provider_stays(store: Any, where: str) -> None:
    provider = Lingers(where)

    def read() -> tuple[list[Any], Reply]:
        with SessionManager(store, provider).stream("k", "hello") as turn:
            events = list(turn)
        return events, turn.reply

    events, reply = before_release(provider, read)
    assert events == [TextDelta("hello"), Result(session_id="s-1")]
    check(reply)
    assert provider.closed.acquire(timeout=PATIENCE)


def test_a_stream_that_is_left_at_its_result_has_its_reply_though_the_provider_stays(store: Any, where: str) -> None:
    provider = Lingers(where)

    def read() -> Reply:
        with SessionManager(store, provider).stream("k", "hello") as turn:
            for event in turn:
                if isinstance(event, Result):
                    break
        return turn.reply

    check(before_release(provider, read))
    assert provider.closed.acquire(timeout=PATIENCE)


def test_the_next_turn_of_the_conversation_need_not_wait_for_a_provider_that_stays(store: Any, where: str) -> None:
    provider = Lingers(where)
    sessions = SessionManager(store, provider)

    def twice() -> list[Reply]:
        return [sessions.send("k", "hello"), sessions.send("k", "again")]

    for reply in before_release(provider, twice):
        check(reply)
    assert provider.closed.acquire(timeout=PATIENCE)
    assert provider.closed.acquire(timeout=PATIENCE)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", [Lingers, AsyncLingers])
@pytest.mark.parametrize("how", ["send", "stream"])
async def test_an_async_manager_hands_out_a_stored_answer_though_the_provider_stays(
    store: Any, where: str, kind: type[Lingers], how: str
) -> None:
    provider = kind(where)
    sessions = AsyncSessionManager(store, provider)
    replies: list[Reply] = []
    early: list[bool] = []

    async def ask() -> None:
        if how == "send":
            replies.append(await sessions.send("k", "hello"))
        else:
            async with sessions.stream("k", "hello") as turn:
                assert [event async for event in turn] == [TextDelta("hello"), Result(session_id="s-1")]
            replies.append(turn.reply)
        early.append(not provider.release.is_set())
        done.set()

    done = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        with anyio.move_on_after(PATIENCE):
            await done.wait()
        provider.release.set()
        if isinstance(provider, AsyncLingers):
            provider.freed.set()
    assert early == [True], "the answer had to wait for the provider"
    check(replies[0])
    assert await anyio.to_thread.run_sync(lambda: provider.closed.acquire(timeout=PATIENCE))


@pytest.mark.anyio
@pytest.mark.parametrize("kind", [Lingers, AsyncLingers])
async def test_many_providers_that_stay_take_no_place_and_no_thread_from_other_turns(
    store: Any, where: str, kind: type[Lingers]
) -> None:
    provider = kind(where)
    sessions = AsyncSessionManager(store, provider, max_turns=2, threads=2)
    early: list[bool] = []

    async def ask() -> None:
        for number in range(6):
            check(await sessions.send(f"k{number}", "hello"))
        early.append(not provider.release.is_set())
        done.set()

    done = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        with anyio.move_on_after(PATIENCE):
            await done.wait()
        provider.release.set()
        if isinstance(provider, AsyncLingers):
            provider.freed.set()
    assert early == [True], "the answers had to wait for the provider"


# The exit of a process


class Endless(Lingers):
    """Nobody releases it."""


class AsyncEndless(AsyncLingers):
    """Nobody releases it, but for the end of its loop."""

    async def astream(self, request: Request) -> AsyncIterator[Any]:
        yield TextDelta("hello")
        yield Result(session_id="s-1")
        await anyio.sleep_forever()


def ends_with_a_provider_that_never_ends(url: str, where: str) -> str:
    """A synchronous turn."""
    with SQLStore(url) as store:
        return SessionManager(store, Endless(where)).send("k", "hello").text


def ends_with_a_thread_that_never_ends(url: str, where: str, backend: str) -> str:
    """An asynchronous turn of a provider that is read in threads."""
    with SQLStore(url) as store:
        return anyio.run(AsyncSessionManager(store, Endless(where)).send, "k", "hello", backend=backend).text


def ends_with_a_task_that_never_ends(url: str, where: str, backend: str) -> str:
    """An asynchronous turn of an asynchronous provider."""
    with SQLStore(url) as store:
        return anyio.run(AsyncSessionManager(store, AsyncEndless(where)).send, "k", "hello", backend=backend).text


def test_a_process_ends_though_its_provider_never_does(sqlite_url: str, where: str) -> None:
    assert outside(ends_with_a_provider_that_never_ends, sqlite_url, where) == "hello"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_process_of_an_event_loop_ends_though_its_provider_never_does(
    sqlite_url: str, where: str, backend: str
) -> None:
    assert outside(ends_with_a_thread_that_never_ends, sqlite_url, where, backend) == "hello"
    assert outside(ends_with_a_task_that_never_ends, sqlite_url, where, backend) == "hello"
