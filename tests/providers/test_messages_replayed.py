"""An answer of the Messages API that is replayed is whole: its tool calls, and its blocks with thinking."""

from collections.abc import Iterator
from typing import Any

import anthropic
import anyio
import pytest

from fsm import AsyncSessionManager, Result, SessionManager, ToolUse
from fsm.providers import AnthropicMessages
from fsm.testing import ReferenceStore
from tests.providers.messages_server import MessagesServer, message, text, tool_use
from tests.runtime.test_replay_whole import merged, whole

pytestmark = pytest.mark.timeout(60)

THOUGHT = {"type": "thinking", "thinking": "Let me see.", "signature": "signed:1"}
TOOLS: list[Any] = [{"name": "add", "input_schema": {"type": "object"}}]
ANSWERS = {
    "thinking and a call": message(THOUGHT, text("I add."), tool_use("t1", a=1), stop="tool_use"),
    "two calls": message(text("Both."), tool_use("t1", a=1), tool_use("t2", b=2), stop="tool_use"),
    "a call alone": message(tool_use("t1"), stop="tool_use"),
    "thinking and a text": message(THOUGHT, text("It is 3.")),
    "two texts": message(text("It is "), text("3.")),
}


@pytest.fixture
def server() -> Iterator[MessagesServer]:
    """The API on loopback."""
    with MessagesServer() as server:
        server.keeps_alive = False
        yield server


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_a_replayed_answer_of_the_messages_api_is_whole(server: MessagesServer, answer: Any) -> None:
    client = anthropic.Anthropic(api_key="k", base_url=server.url, max_retries=0)
    sessions = SessionManager(ReferenceStore(), AnthropicMessages(model="m", client=client, tools=TOOLS))
    server.will(answer)
    with sessions.stream("k", "hello", idempotency_key="once") as turn:
        events = list(turn)
    with sessions.stream("k", "hello", idempotency_key="once") as again:
        replayed = list(again)
    assert len(server.received) == 1
    assert merged(replayed) == merged(events)
    assert whole(again.reply) == whole(turn.reply)
    assert again.reply.tool_calls == tuple(event for event in events if isinstance(event, ToolUse))
    assert again.reply.content == sessions.conversations.messages("k")[-1].content
    assert isinstance(events[-1], Result)
    assert again.reply.content == events[-1].content
    client.close()


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_an_async_manager_replays_the_answer_whole(server: MessagesServer, answer: Any) -> None:
    async def talk() -> None:
        async with anthropic.AsyncAnthropic(api_key="k", base_url=server.url, max_retries=0) as client:
            provider = AnthropicMessages(model="m", async_client=client, tools=TOOLS)
            sessions = AsyncSessionManager(ReferenceStore(), provider)
            server.will(answer)
            first = await sessions.send("k", "hello", idempotency_key="once")
            again = await sessions.send("k", "hello", idempotency_key="once")
            assert whole(again) == whole(first)
            assert len(server.received) == 1

    anyio.run(talk)
