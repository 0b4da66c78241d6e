"""Each way to ask the Messages API on loopback: synchronous, and asynchronous on one of two event loops."""

from __future__ import annotations

from contextlib import aclosing, closing
from datetime import UTC, datetime
from typing import Any

import anthropic
import anyio
from attrs import frozen

from fsm.content import as_blocks
from fsm.events import Event, Result
from fsm.provider import Request
from fsm.providers.anthropic_messages import AnthropicMessages
from fsm.records import Message
from tests.providers.messages_server import MessagesServer, text

WAYS = ("sync", "asyncio", "trio")


def stored(role: str, *blocks: dict[str, Any], container: str | None = None) -> Message:
    """A stored message."""
    data = {"container": container} if container else None
    return Message(number=1, turn=1, role=role, content=blocks, created_at=datetime.now(UTC), provider_data=data)  # type: ignore[arg-type]


PAST = (stored("user", text("hello")), stored("assistant", text("Hi.")))


def asked(content: Any = "again", *history: Message, session: str | None = "msg_0", **more: Any) -> Request:
    """A request that resumes a session of two messages, unless another one or none is given."""
    return Request(
        key="k",
        turn=1,
        session_number=1,
        content=as_blocks(content),
        session_id=session,
        history=history or (PAST if session else ()),
        **more,
    )


@frozen
class Asking:
    """One way to ask; each call has a new client, whose connections are closed in the end."""

    name: str
    server: MessagesServer

    def events(self, request: Request, **arguments: Any) -> list[Event]:
        """All events of a request."""
        return self.all_events(request, **arguments)[0]

    def result(self, request: Request, **arguments: Any) -> Result:
        """The result of a request."""
        result = self.events(request, **arguments)[-1]
        assert isinstance(result, Result)
        return result

    def all_events(self, *requests: Request, retries: int = 0, **arguments: Any) -> list[list[Event]]:
        """All events of each request, in one client."""
        made = {"base_url": self.server.url, "api_key": "test", "max_retries": retries}
        arguments = {"model": "m", **arguments}
        if self.name != "sync":
            return anyio.run(self._all_events, requests, made, arguments, backend=self.name)
        http = anthropic.DefaultHttpxClient(trust_env=False)
        with anthropic.Anthropic(**made, http_client=http) as client:
            provider = AnthropicMessages(client=client, **arguments)
            heard = []
            for request in requests:
                with closing(provider.stream(request)) as stream:
                    heard.append(list(stream))
            return heard

    async def _all_events(
        self, requests: tuple[Request, ...], made: dict[str, Any], arguments: dict[str, Any]
    ) -> list[list[Event]]:
        http = anthropic.DefaultAsyncHttpxClient(trust_env=False)
        async with anthropic.AsyncAnthropic(**made, http_client=http) as client:
            provider = AnthropicMessages(async_client=client, **arguments)
            heard = []
            for request in requests:
                async with aclosing(provider.astream(request)) as stream:
                    heard.append([event async for event in stream])
            return heard
