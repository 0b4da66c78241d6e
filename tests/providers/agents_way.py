"""How the tests ask a Managed Agent: synchronously, and asynchronously on both event loops, with the SDK as it is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, closing, contextmanager
from itertools import islice
from typing import Any

import anthropic
import anyio
from attrs import frozen

from fsm.content import as_blocks
from fsm.events import Event, Result, TextDelta
from fsm.provider import Request
from fsm.providers import AnthropicAgents
from fsm.records import Message
from tests.providers.agents_server import AgentsServer

NAMED: dict[str, Any] = {"agent": "agent_1", "environment": "env_1"}


def request(content: Any = "hello", *history: Message, session: str | None = None, **more: Any) -> Request:
    return Request(
        key="k", turn=1, session_number=1, content=as_blocks(content), session_id=session, history=history, **more
    )


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


@contextmanager
def client(server: AgentsServer, retries: int = 0) -> Iterator[anthropic.Anthropic]:
    http = anthropic.DefaultHttpxClient(trust_env=False)
    with anthropic.Anthropic(base_url=server.url, api_key="key", max_retries=retries, http_client=http) as made:
        yield made


@asynccontextmanager
async def async_client(server: AgentsServer, retries: int = 0) -> AsyncIterator[anthropic.AsyncAnthropic]:
    http = anthropic.DefaultAsyncHttpxClient(trust_env=False)
    async with anthropic.AsyncAnthropic(
        base_url=server.url, api_key="key", max_retries=retries, http_client=http
    ) as made:
        yield made


@frozen
class Way:
    """One way to ask: synchronous, or asynchronous on one of two event loops."""

    name: str
    server: AgentsServer

    def ask(self, *requests: Request, events: int | None = None, retries: int = 0, **given: Any) -> list[list[Event]]:
        """The events of each request; with ``events`` its stream is closed after so many."""
        arguments = {**NAMED, **given}
        if self.name == "sync":
            return self._ask(requests, events, retries, arguments)
        return anyio.run(self._ask_async, requests, events, retries, arguments, backend=self.name)

    def one(self, asked: Request, **given: Any) -> tuple[list[Event], Result]:
        """The events of one request before its result, and that."""
        *events, result = self.ask(asked, **given)[0]
        assert isinstance(result, Result)
        return events, result

    def result(self, asked: Request, **given: Any) -> Result:
        """The result of one request."""
        return self.one(asked, **given)[1]

    def _ask(
        self, requests: tuple[Request, ...], events: int | None, retries: int, arguments: dict[str, Any]
    ) -> list[list[Event]]:
        with client(self.server, retries) as made:
            provider = AnthropicAgents(client=made, **arguments)
            asked = []
            for one in requests:
                with closing(provider.stream(one)) as stream:
                    asked.append(list(islice(stream, events)))
                assert self.server.wait_until_left(), "the connection is still open"
            return asked

    async def _ask_async(
        self, requests: tuple[Request, ...], events: int | None, retries: int, arguments: dict[str, Any]
    ) -> list[list[Event]]:
        async with async_client(self.server, retries) as made:
            provider = AnthropicAgents(async_client=made, **arguments)
            asked: list[list[Event]] = []
            for one in requests:
                asked.append([])
                async with aclosing(provider.astream(one)) as stream:
                    async for event in stream:
                        asked[-1].append(event)
                        if len(asked[-1]) == events:
                            break
                assert await anyio.to_thread.run_sync(self.server.wait_until_left), "the connection is still open"
            return asked
