"""Clients of the SDK: one for each process and event loop, from the environment or from the caller."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import anyio
import pytest

from fsm.errors import InvalidInput, ProviderError
from fsm.providers._anthropic.client import Clients
from fsm.providers._anthropic.watch import watched
from tests.providers.messages_server import Answer, MessagesServer, message, text

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[MessagesServer]:
    with MessagesServer() as server:
        server.otherwise = lambda request: message(text("Hi."))
        server.daemon_threads, server.block_on_close = True, False  # kept connections are what is tried here
        for name in [name for name in os.environ if name.startswith("ANTHROPIC_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "test")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server


ASKED: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}


async def ask(client: Any) -> None:
    async with client.messages.stream(**ASKED) as stream:
        assert await stream.get_final_text() == "Hi."


def given(**more: Any) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(**more)


@pytest.mark.parametrize("retries", [0, 2])
@pytest.mark.parametrize("make", [None, given, lambda: given], ids=["environment", "client", "function"])
def test_loops_one_after_the_other_have_each_a_client_of_their_own(
    server: MessagesServer, make: Callable[..., Any] | None, retries: int
) -> None:
    own = make and (make(max_retries=retries) if make is given else make())
    clients = Clients(None, own)
    used = []

    async def talk() -> None:
        for _ in range(2):
            used.append(await clients.asynchronous("k"))
            await ask(used[-1])
        if used[-1] is own:
            await own.close()

    for backend in ("asyncio", "asyncio", "trio", "asyncio"):
        anyio.run(talk, backend=backend)
    assert [a is b for a, b in zip(used[::2], used[1::2], strict=True)] == [True] * 4
    assert len({id(client) for client in used}) == 4


def test_loops_in_two_threads_at_once_have_each_a_client_of_their_own(server: MessagesServer) -> None:
    clients = Clients()
    failed: list[BaseException] = []
    together = threading.Barrier(2)

    async def talk() -> None:
        for _ in range(5):
            await ask(await clients.asynchronous("k"))
            await asyncio.to_thread(together.wait, 10)

    def work() -> None:
        try:
            asyncio.run(talk())
        except BaseException as error:  # noqa: BLE001  # it is asserted on below
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_a_client_is_closed_with_the_loop_it_was_made_for_and_the_callers_own_is_not(server: MessagesServer) -> None:
    server.keeps_alive = False  # nothing is left open in a loop that is gone
    own = given()
    clients = Clients(None, own)
    used = []

    async def talk() -> None:
        used.append(await clients.asynchronous("k"))
        await ask(used[-1])

    asyncio.run(talk())
    asyncio.run(talk())
    assert used[0] is own
    assert [client.is_closed() for client in used] == [False, True]


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_loop_that_is_gone_is_forgotten(server: MessagesServer) -> None:
    clients = Clients()

    async def talk() -> weakref.ref[Any]:
        await ask(await clients.asynchronous("k"))
        return weakref.ref(asyncio.get_running_loop())

    tidy = asyncio.run(talk())
    gc.collect()
    assert tidy() is None
    untidy = _run_without_shutting_down(talk)
    asyncio.run(talk())
    gc.collect()
    assert untidy() is None


def _run_without_shutting_down(talk: Callable[[], Any]) -> Any:
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(talk())
    finally:
        loop.close()


def test_a_client_with_a_transport_of_the_callers_is_refused_in_a_second_loop(server: MessagesServer) -> None:
    server.keeps_alive = False
    clients = Clients(None, given(http_client=anthropic.DefaultAsyncHttpxClient(trust_env=False)))

    async def talk() -> None:
        await ask(await clients.asynchronous("k"))

    asyncio.run(talk())
    with pytest.raises(ProviderError, match="conversation 'k': the async_client belongs to another event loop"):
        asyncio.run(talk())


def _in_child(work: Callable[[], object]) -> str:
    """Return the report of a forked child."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = str(work())
        except BaseException as error:  # noqa: BLE001  # the child tells the parent
            said = f"{type(error).__name__}: {error}"
        os.write(into, said.encode())
        os._exit(0)
    os.close(into)
    with os.fdopen(out) as told:
        said = told.read()
    os.waitpid(child, 0)
    return said


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize(
    "make",
    [lambda: None, anthropic.Anthropic, lambda: lambda: anthropic.Anthropic()],  # noqa: PLW0108  # a class is refused
    ids=["environment", "client", "function"],
)
def test_a_forked_child_opens_connections_of_its_own(server: MessagesServer, make: Callable[[], Any]) -> None:
    clients = Clients(make())
    first = clients.sync("k")
    answer = first.messages.create(**ASKED, stream=True)
    list(answer)

    def work() -> object:
        again = clients.sync("k")
        list(again.messages.create(**ASKED, stream=True))
        return again is first, first.is_closed()

    assert _in_child(work) == "(False, False)"
    list(clients.sync("k").messages.create(**ASKED, stream=True))
    assert clients.sync("k") is first


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_transport_of_the_callers_is_used_in_a_forked_child_only_if_it_was_not_used_before(
    server: MessagesServer,
) -> None:
    def clients() -> Clients:
        return Clients(anthropic.Anthropic(http_client=anthropic.DefaultHttpxClient(trust_env=False)))

    fresh, used = clients(), clients()
    used.sync("k")
    assert _in_child(lambda: list(fresh.sync("k").messages.create(**ASKED, stream=True)) != []) == "True"
    told = _in_child(lambda: used.sync("k"))
    assert told.startswith("ProviderError: conversation 'k': the client was used before this process was forked")
    assert "pass a function that returns a client" in told


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Clients(anthropic.Anthropic), "client is the class Anthropic; pass an instance of it"),
        (lambda: Clients(None, anthropic.AsyncAnthropic), "async_client is the class AsyncAnthropic"),
        (lambda: Clients(None, anthropic.Anthropic(api_key="k")), "type Anthropic; pass it as client"),
        (lambda: Clients(anthropic.AsyncAnthropic(api_key="k")), "type AsyncAnthropic; pass it as async_client"),
        (lambda: Clients("sk-ant-secret"), "client is of type str; pass a client of the Anthropic SDK"),
    ],
)
def test_what_is_not_a_client_is_refused_when_the_provider_is_made(make: Callable[[], Any], why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        make()


@pytest.mark.parametrize("returned", [None, "sk-ant-secret", anthropic.Anthropic], ids=str)
def test_a_function_that_returns_no_client_is_told(returned: Any) -> None:
    clients = Clients(lambda: returned)
    with pytest.raises(ProviderError, match="conversation 'k': the function passed as client returned no client"):
        clients.sync("k")


@pytest.mark.parametrize(
    ("timeout", "silence"),
    [(20.0, 60.0), (anthropic.Timeout(5.0, read=30.0), 90.0), (anthropic.Timeout(None), None), (None, None)],
)
def test_the_longest_silence_is_the_read_timeout_times_the_attempts(timeout: Any, silence: float | None) -> None:
    with anthropic.Anthropic(api_key="k", timeout=timeout, max_retries=2) as client:
        assert Clients(client).longest_silence() == silence
        assert Clients(client).longest_silence(7) == 21
        assert Clients(client).longest_silence(None) is None


def test_the_longest_silence_is_that_of_the_slower_client() -> None:
    with anthropic.Anthropic(api_key="k", timeout=5, max_retries=0) as client:
        asynchronous = anthropic.AsyncAnthropic(api_key="k", timeout=60, max_retries=1)
        assert Clients(client, asynchronous).longest_silence() == 120
    assert Clients(lambda: client).longest_silence() is None


@pytest.mark.parametrize("backend", ["sync", "asyncio", "trio"])
def test_attempts_headers_and_pings_are_signs_of_life(server: MessagesServer, backend: str) -> None:
    signs: list[int] = []
    # The answer consists of pings alone, each in a piece of its own.
    server.will(Answer(529, {}), Answer(events=({"type": "ping"},) * 5))

    def alive() -> None:
        signs.append(len(server.received))

    def ask_sync() -> None:
        with anthropic.Anthropic(max_retries=1) as client:
            assert list(watched(client, alive).messages.create(**ASKED, stream=True)) == []

    async def ask_async() -> None:
        async with given(max_retries=1) as client:
            stream = await watched(client, alive).messages.create(**ASKED, stream=True)
            assert [event async for event in stream] == []

    ask_sync() if backend == "sync" else anyio.run(ask_async, backend=backend)
    assert signs[:2] == [0, 1], "the first attempt, and its headers"
    assert len(signs) >= 4 + 5
