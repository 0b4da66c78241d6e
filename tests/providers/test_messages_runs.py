"""How the provider runs: signs of life, event loops, forks, options, and a stream that does not end."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import aclosing, closing
from typing import Any

import anthropic
import anyio
import pytest

from fsm._core.table import Trigger
from fsm.errors import InvalidInput, ProviderError
from fsm.events import Result, TextDelta
from fsm.providers.anthropic_messages import AnthropicMessages
from tests.providers.messages_server import Answer, MessagesServer, begun, error, finished, message, streamed, text
from tests.providers.messages_way import WAYS, Asking, asked

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.timeout(60),
    pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning"),
]

PING = {"type": "ping"}


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


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, server: MessagesServer) -> Asking:
    return Asking(request.param, server)


# Signs of life


def test_a_service_that_only_thinks_or_pings_is_alive(way: Asking) -> None:
    signs: list[int] = []
    thinking = {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}}
    thought = {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm "}}
    way.server.will(Answer(events=(*begun(), thinking, *(thought,) * 5, *(PING,) * 5, *finished())))
    result = way.result(asked(alive=lambda: signs.append(1)))
    assert result.trigger is Trigger.SUCCEEDED
    assert len(signs) >= 2 + 5 + 5


def test_each_attempt_of_the_sdk_is_a_sign_of_life(way: Asking) -> None:
    signs: list[int] = []
    way.server.will(Answer(529, {}, headers={}), Answer(529, {}))
    assert way.result(asked(alive=lambda: signs.append(len(way.server.received))), retries=2).content == (text("Hi."),)
    assert signs[:6] == [0, 1, 1, 2, 2, 3]


def test_the_longest_silence_is_read_from_the_clients_and_the_options() -> None:
    with anthropic.Anthropic(api_key="k", timeout=20, max_retries=2) as client:
        assert AnthropicMessages(model="m", client=client).longest_silence == 60
        assert AnthropicMessages(model="m", client=client, options={"timeout": 5}).longest_silence == 15
        assert AnthropicMessages(model="m", client=client, options={"timeout": None}).longest_silence is None


# Event loops and threads


# The connection that the first loop leaves open is what is tried.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("retries", [0, 2])
@pytest.mark.parametrize("is_function", [False, True], ids=["client", "function"])
def test_one_provider_serves_one_loop_after_another(server: MessagesServer, retries: int, is_function: bool) -> None:
    def make() -> anthropic.AsyncAnthropic:
        return anthropic.AsyncAnthropic(max_retries=retries)

    provider = AnthropicMessages(model="m", async_client=make if is_function else make())

    async def talk() -> list[Any]:
        if retries:
            server.will(error(529, "overloaded_error"), error(529, "overloaded_error"))
        return [[event async for event in provider.astream(asked())][-1] for _ in range(2)]

    for backend in ("asyncio", "asyncio", "trio", "asyncio"):
        assert [result.subtype for result in anyio.run(talk, backend=backend)] == ["success"] * 2
    gc.collect()


def test_one_provider_serves_two_loops_in_two_threads_at_once(server: MessagesServer) -> None:
    provider = AnthropicMessages(model="m")
    ended: list[Any] = []
    together = threading.Barrier(2)

    async def talk() -> None:
        for _ in range(5):
            ended.append([event async for event in provider.astream(asked())][-1])
            await asyncio.to_thread(together.wait, 10)

    threads = [threading.Thread(target=asyncio.run, args=(talk(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.subtype for result in ended] == ["success"] * 10


# Forks


def _in_child(work: Callable[[], object]) -> str:
    """Return the report of a forked child."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = str(work())
        except BaseException as raised:  # noqa: BLE001  # the child tells the parent
            said = f"{type(raised).__name__}: {raised}"
        os.write(into, said.encode())
        os._exit(0)
    os.close(into)
    with os.fdopen(out) as told:
        said = told.read()
    os.waitpid(child, 0)
    return said


def remembered(clients: list[anthropic.Anthropic]) -> Callable[[], anthropic.Anthropic]:
    """Return a function that makes a client, and adds it to a list."""

    def make() -> anthropic.Anthropic:
        clients.append(anthropic.Anthropic())
        return clients[-1]

    return make


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_stream_that_a_forked_child_inherits_goes_on_in_the_parent(server: MessagesServer) -> None:
    server.will(Answer(events=(*begun(), *streamed(text("Hello there.")), *finished())))
    clients: list[anthropic.Anthropic] = []
    provider = AnthropicMessages(model="m", client=remembered(clients))
    with closing(provider.stream(asked())) as stream:
        first = next(stream)

        def close() -> str:
            stream.close()
            gc.collect()
            return "closed"

        assert _in_child(lambda: next(stream)).startswith("ProviderError: conversation 'k': this answer is read by")
        assert _in_child(close) == "closed"
        rest = list(stream)
    assert [first, *rest[:-1]] == [TextDelta("Hello "), TextDelta("there.")]
    assert isinstance(rest[-1], Result)
    assert rest[-1].trigger is Trigger.SUCCEEDED
    assert list(provider.stream(asked()))[-1].subtype == "success"
    for client in clients:
        client.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_talks_over_connections_of_its_own(server: MessagesServer) -> None:
    clients: list[anthropic.Anthropic] = []
    provider = AnthropicMessages(model="m", client=remembered(clients))
    list(provider.stream(asked()))
    assert _in_child(lambda: list(provider.stream(asked()))[-1].subtype) == "success"
    assert list(provider.stream(asked()))[-1].subtype == "success"
    for client in clients:
        client.close()


# A stream that does not end


def test_a_result_is_handed_out_though_the_stream_goes_on(way: Asking) -> None:
    way.server.will(Answer(events=message(text("Hi.")).events, then="wait"))
    arguments: dict[str, Any] = {"max_retries": 0, "timeout": 30}

    def ask_sync() -> list[Any]:
        with (
            anthropic.Anthropic(**arguments) as client,
            closing(AnthropicMessages(model="m", client=client).stream(asked())) as stream,
        ):
            return [next(stream) for _ in range(3)]

    async def ask_async() -> list[Any]:
        async with anthropic.AsyncAnthropic(**arguments) as client:
            provider = AnthropicMessages(model="m", async_client=client)
            async with aclosing(provider.astream(asked())) as stream:
                return [await anext(stream) for _ in range(3)]

    heard = ask_sync() if way.name == "sync" else anyio.run(ask_async, backend=way.name)
    assert heard[-1].trigger is Trigger.SUCCEEDED
    assert way.server.left.wait(10), "the connection is still open"


def test_a_connection_is_used_again_for_the_next_message(way: Asking) -> None:
    connections: set[int] = set()
    way.server.verify_request = lambda request, address: connections.add(address[1]) or True  # type: ignore[method-assign]
    way.all_events(*[asked()] * 3)
    assert len(connections) == 1


# Options


def test_betas_reach_the_api_beside_the_callers_own_headers(way: Asking) -> None:
    way.result(asked(), options={"betas": ["a-2025-01-01", "b-2025-01-01"], "extra_headers": {"x-own": "1"}})
    _, headers = way.server.asked[0]
    assert (headers["anthropic-beta"], headers["x-own"]) == ("a-2025-01-01,b-2025-01-01", "1")
    assert "betas" not in way.server.received[0]


def test_a_beta_in_the_callers_own_headers_is_sent_as_it_is(way: Asking) -> None:
    way.result(asked(), options={"extra_headers": {"anthropic-beta": "a-2025-01-01"}})
    assert way.server.asked[0][1]["anthropic-beta"] == "a-2025-01-01"


def test_an_option_that_only_the_beta_resource_knows_is_sent_with_it(way: Asking) -> None:
    servers = [{"type": "url", "url": "https://x.org", "name": "x"}]
    result = way.result(asked(), options={"mcp_servers": servers, "betas": ["mcp-client-2025-04-04"]})
    assert result.content == (text("Hi."),)
    assert way.server.received[0]["mcp_servers"] == servers


def test_a_doubt_is_asked_about_with_the_same_betas(way: Asking) -> None:
    way.server.will(error(400, "invalid_request_error", "Could not process image"))
    assert way.result(asked(), options={"betas": ["a-2025-01-01"]}).subtype == "error_message"
    path, headers = way.server.asked[1]
    assert path.startswith("/v1/messages/count_tokens")
    assert "a-2025-01-01" in headers["anthropic-beta"]


def test_what_older_models_take_is_sent_though_the_sdk_does_not_name_it(way: Asking) -> None:
    way.result(asked(), options={"temperature": 0.5, "extra_body": {"new": 1}})
    assert (way.server.received[0]["temperature"], way.server.received[0]["new"]) == (0.5, 1)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"options": {"some_new_option": 1}}, "options has some_new_option, which the SDK does not know"),
        ({"options": {"temprature": 1, "bets": []}}, "options has bets, temprature, which the SDK does not know"),
        ({"options": {"thread": {"type": "create"}}}, "options can't set thread; the API would keep the conversation"),
        ({"options": {"stream": False}}, "options can't set stream"),
        ({"options": {"extra_body": {"messages": []}}}, "options can't set messages"),
        ({"options": {"extra_headers": "x"}}, r"options\['extra_headers'\] must be a mapping"),
        ({"options": {"betas": "a-2025-01-01"}}, r"options\['betas'\] must be a list of the names of betas"),
        ({"options": ["betas"]}, "options must be a mapping"),
        ({"model": ""}, "model must be the name of a model"),
        ({"model": 5}, "model must be the name of a model"),
        ({"max_tokens": 0}, "max_tokens is 0; pass a whole number of tokens, 1 or more"),
        ({"max_tokens": True}, "max_tokens is True"),
        ({"max_tokens": "9"}, "max_tokens is '9'"),
        ({"system": 5}, "system must be text, a list of blocks, or None"),
        ({"tools": "add"}, "tools must be a list of tools"),
        ({"tools": [1]}, "tools must be a list of tools"),
        ({"client": anthropic.Anthropic}, "client is the class Anthropic; pass an instance of it"),
        ({"async_client": anthropic.Anthropic(api_key="k")}, "pass it as client"),
    ],
)
def test_an_argument_that_can_not_be_used_is_refused_when_the_provider_is_made(arguments: Any, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        AnthropicMessages(**{"model": "m", "client": None, **arguments})


def test_a_missing_client_is_told_with_the_conversation(server: MessagesServer) -> None:
    with pytest.raises(ProviderError, match="conversation 'k': only client was given"):
        anyio.run(AnthropicMessages(model="m", client=anthropic.Anthropic()).astream(asked()).__anext__)
