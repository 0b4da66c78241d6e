"""The Messages API as a provider: the SDK as it is, against a server of the tests' own on loopback."""

from __future__ import annotations

import itertools
import json
import os
import queue
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import aclosing, closing
from copy import deepcopy
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import anthropic
import anyio
import pytest
from attrs import frozen

from fsm._core.table import Trigger
from fsm.content import as_blocks
from fsm.errors import InvalidContent, InvalidInput, ProviderError
from fsm.events import Event, Result, TextDelta, ToolUse
from fsm.provider import AsyncProvider, Provider, Request
from fsm.providers.anthropic_messages import AnthropicMessages
from fsm.records import Message
from fsm.testing import check_provider
from tests.providers.messages_server import (
    Answer,
    MessagesServer,
    begun,
    error,
    error_event,
    message,
    streamed,
    text,
    tool_use,
)

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(60)]

# The SDK leaves its generators to the loop when a stream is not read to its end; trio finishes them, and warns.
sdk_leaves_generators = pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")

THOUGHT = {"type": "thinking", "thinking": "Let me see.", "signature": "signed:1"}
SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "parcels"}}
FOUND = {
    "type": "web_search_tool_result",
    "tool_use_id": "srvtoolu_1",
    "content": [
        {"type": "web_search_result", "title": "T", "url": "https://x.org", "encrypted_content": "e", "page_age": None}
    ],
}
CITED = {"type": "web_search_result_location", "cited_text": "c", "encrypted_index": "i", "url": "https://x.org"}


def said(role: str, *blocks: dict[str, Any], container: str | None = None) -> Message:
    """A stored message."""
    data = {"container": container} if container else None
    return Message(number=1, turn=1, role=role, content=blocks, created_at=datetime.now(UTC), provider_data=data)  # type: ignore[arg-type]


def request(content: Any = "hello", *history: Message, session: str | None = None) -> Request:
    return Request(key="k", turn=1, session_number=1, content=as_blocks(content), session_id=session, history=history)


def resumed(content: Any = "again", *history: Message) -> Request:
    return request(
        content, *(history or (said("user", text("hello")), said("assistant", text("Hi.")))), session="msg_0"
    )


@frozen
class Way:
    """One way to ask: synchronous, or asynchronous on one of two event loops."""

    name: str
    server: MessagesServer

    def ask(self, *requests: Request, events: int | None = None, **arguments: Any) -> list[list[Event]]:
        """The events of each request.

        With ``events`` the stream is closed after so many, and must have let its connection go before the client is
        closed.
        """
        arguments = {"model": "m", **arguments}
        if self.name == "sync":
            return self._ask(requests, events, arguments)
        return anyio.run(self._ask_async, requests, events, arguments, backend=self.name)

    def result(self, asked: Request, **arguments: Any) -> Result:
        """The result of one request."""
        result = self.ask(asked, **arguments)[0][-1]
        assert isinstance(result, Result)
        return result

    def _ask(self, requests: tuple[Request, ...], events: int | None, arguments: dict[str, Any]) -> list[list[Event]]:
        http = anthropic.DefaultHttpxClient(trust_env=False)
        with anthropic.Anthropic(base_url=self.server.url, api_key="test", max_retries=0, http_client=http) as client:
            provider = AnthropicMessages(client=client, **arguments)
            asked = []
            for one in requests:
                with closing(provider.stream(one)) as stream:
                    asked.append(list(islice(stream, events)))
                assert events is None or self.server.left.wait(10), "the connection is still open"
            return asked

    async def _ask_async(
        self, requests: tuple[Request, ...], events: int | None, arguments: dict[str, Any]
    ) -> list[list[Event]]:
        http = anthropic.DefaultAsyncHttpxClient(trust_env=False)
        async with anthropic.AsyncAnthropic(
            base_url=self.server.url, api_key="test", max_retries=0, http_client=http
        ) as client:
            provider = AnthropicMessages(async_client=client, **arguments)
            asked: list[list[Event]] = []
            for one in requests:
                asked.append([])
                async with aclosing(provider.astream(one)) as stream:
                    async for event in stream:
                        asked[-1].append(event)
                        if len(asked[-1]) == events:
                            break
                if events is not None:
                    assert await anyio.to_thread.run_sync(self.server.left.wait, 10), "the connection is still open"
            return asked


@pytest.fixture
def server() -> Iterator[MessagesServer]:
    with MessagesServer() as server:
        yield server
        assert server.answers.empty(), "not all that was scripted was asked for"


@pytest.fixture(params=["sync", "asyncio", "trio"])
def way(request: pytest.FixtureRequest, server: MessagesServer) -> Way:
    return Way(request.param, server)


# An answer


def test_an_answer_streams_its_text_and_names_the_session_by_its_first_reply(way: Way) -> None:
    way.server.will(message(text("Hello there."), id="msg_A"))
    *deltas, result = way.ask(request("hello"), system="Be kind.", options={"top_p": 0.5})[0]
    assert all(isinstance(delta, TextDelta) for delta in deltas)
    assert len(deltas) == 2
    assert "".join(delta.text for delta in deltas) == "Hello there."
    assert result.trigger is Trigger.SUCCEEDED
    assert (result.session_id, result.stop_reason) == ("msg_A", "end_turn")
    assert result.content == (text("Hello there."),)
    assert result.usage == {"input_tokens": 10, "output_tokens": 5}
    assert result.provider_data is None
    assert result.raw["id"] == "msg_A"
    assert way.server.received == [
        {
            "model": "m",
            "max_tokens": 4096,
            "system": "Be kind.",
            "top_p": 0.5,
            "stream": True,
            "messages": [{"role": "user", "content": [text("hello")]}],
        }
    ]


def test_a_resumed_session_sends_what_the_api_signed_unchanged_and_keeps_its_name(way: Way) -> None:
    first = (THOUGHT, SEARCH, FOUND, text("Found it.", citations=[{**CITED, "title": None}]))
    way.server.will(message(*first, id="msg_A"))
    result = way.result(request("where?"))
    assert result.content == first
    way.server.will(message(text("Yes."), id="msg_B"))
    history = (said("user", text("where?")), said("assistant", *result.content))
    again = way.result(request("sure?", *history, session="msg_A"))
    assert again.session_id == "msg_A"
    assert [sent["role"] for sent in way.server.received[1]["messages"]] == ["user", "assistant", "user"]
    assert way.server.received[1]["messages"][1]["content"] == list(first)


def test_an_empty_answer_is_a_success_without_content(way: Way) -> None:
    way.server.will(message(id="msg_A"))
    events = way.ask(request())[0]
    assert [event.content for event in events] == [()]


def test_an_answer_cut_off_by_max_tokens_is_a_success_that_says_so(way: Way) -> None:
    way.server.will(message(text("Once upon"), stop="max_tokens"))
    result = way.result(request())
    assert (result.trigger, result.stop_reason) == (Trigger.SUCCEEDED, "max_tokens")
    assert result.content == (text("Once upon"),)


def test_thoughts_that_max_tokens_left_without_an_answer_do_not_spoil_the_session(way: Way) -> None:
    way.server.will(message(THOUGHT, stop="max_tokens"), message(text("Well.")))
    result = way.result(request())
    history = (said("user", text("hello")), said("assistant", *result.content))
    assert way.result(request("go on", *history, session="msg_1")).trigger is Trigger.SUCCEEDED


# Tools


def test_a_tool_call_is_handed_out_and_its_answer_sent_first(way: Way) -> None:
    way.server.will(message(text("I add."), tool_use("t1", a=1, b=[2]), stop="tool_use"), message(text("3")))
    tools = [{"name": "add", "input_schema": {"type": "object"}}]
    events = way.ask(request("1+2?"), tools=tools)[0]
    assert ToolUse("t1", "add", {"a": 1, "b": [2]}) in events
    result = events[-1]
    assert (result.stop_reason, result.content[1]) == ("tool_use", tool_use("t1", a=1, b=[2]))
    answer = {"type": "tool_result", "tool_use_id": "t1", "content": "3"}
    history = (said("user", text("1+2?")), said("assistant", *result.content))
    final = way.result(request([text("here:"), answer], *history, session="msg_1"), tools=tools)
    assert final.trigger is Trigger.SUCCEEDED
    assert way.server.received[1]["messages"][2]["content"] == [answer, text("here:")]
    assert way.server.received[1]["tools"] == tools


def test_a_call_that_nobody_answered_is_answered_by_an_error(way: Way) -> None:
    way.server.will(message(text("Never mind.")))
    history = (said("user", text("1+2?")), said("assistant", tool_use("t1"), tool_use("t2")))
    answer = {"type": "tool_result", "tool_use_id": "t2", "content": "3"}
    assert way.result(resumed([text("forget it"), answer], *history)).trigger is Trigger.SUCCEEDED
    first, second, third = way.server.received[0]["messages"][2]["content"]
    assert (first["tool_use_id"], first["is_error"]) == ("t1", True)
    assert first["content"] == "no result was recorded; it may have run"
    assert (second, third) == (answer, text("forget it"))


def test_an_answer_to_a_call_that_is_not_there_is_told_as_text(way: Way) -> None:
    way.server.will(message(text("Thanks.")))
    answer = {"type": "tool_result", "tool_use_id": "t1", "content": "3"}
    history = (said("user", text("1+2?")), said("assistant", text("[called the tool add]")))
    assert way.result(request([answer], *history)).trigger is Trigger.SUCCEEDED
    assert way.server.received[0]["messages"][2]["content"] == [text("[the tool answered: 3]")]


@pytest.mark.parametrize("arguments", ['{"a": 1, "b', '{"a": NaN}', "[1]"])
def test_a_call_whose_arguments_are_not_whole_is_no_call(way: Way, arguments: str) -> None:
    cut_off = {**tool_use("t1"), "input": arguments}
    way.server.will(message(text("I add."), cut_off, stop="max_tokens"))
    events = way.ask(request())[0]
    assert not any(isinstance(event, ToolUse) for event in events)
    assert events[-1].content == (text("I add."),)


def test_a_call_without_arguments_is_a_call(way: Way) -> None:
    way.server.will(message({**tool_use("t1"), "input": ""}, stop="tool_use"))
    assert way.ask(request())[0][0] == ToolUse("t1", "add", {})


def test_a_server_tool_that_was_cut_off_is_left_out_of_the_session(way: Way) -> None:
    way.server.will(message(text("I search."), SEARCH, stop="max_tokens"))
    assert way.result(request()).content == (text("I search."),)


def test_two_calls_in_one_answer_have_each_its_own_arguments(way: Way) -> None:
    way.server.will(message(tool_use("t1", a=1), tool_use("t2", "sub", b=2), stop="tool_use"))
    assert way.ask(request())[0][:2] == [ToolUse("t1", "add", {"a": 1}), ToolUse("t2", "sub", {"b": 2})]


def test_a_stream_that_ends_without_its_message_is_a_connection_error() -> None:
    from fsm.providers.anthropic_messages.exchange import END, Exchange

    exchange = Exchange(resumed(), {})
    assert exchange.feed(END) == ()
    assert exchange.result == Result(
        subtype="error_connection",
        is_error=True,
        session_id="msg_0",
        errors=("the stream ended before the message was complete",),
    )


def test_what_is_kept_of_the_api_is_json(way: Way) -> None:
    way.server.will(message(text("a"), container="c1"))
    raw = way.result(request()).raw
    assert json.loads(json.dumps(raw)) == raw


@pytest.mark.parametrize(
    ("total", "more", "summed"),
    [
        ({"a": 1}, {"a": 2, "b": 3}, {"a": 3, "b": 3}),
        ({"a": {"n": 1}}, {"a": {"n": 2, "m": 1}}, {"a": {"n": 3, "m": 1}}),
        ({"a": None}, {"a": {"n": 2}}, {"a": {"n": 2}}),
        ({"a": "old"}, {"a": "new"}, {"a": "new"}),
        ({"a": "old"}, {"a": None}, {"a": "old"}),
        ({}, {"a": None}, {"a": None}),
        ({"a": None}, {"a": 1.5}, {"a": 1.5}),
    ],
)
def test_token_counts_of_a_paused_answer_are_added_up(total: Any, more: Any, summed: Any) -> None:
    from fsm.providers.anthropic_messages.exchange import _sum

    before = deepcopy(total)
    assert _sum(total, more) == summed
    assert total == before


@sdk_leaves_generators
def test_an_answer_with_broken_arguments_is_an_error_of_the_answer(way: Way) -> None:
    way.server.will(message({**tool_use("t1"), "input": '{"secret": nonsense}'}, stop="tool_use"))
    result = way.result(resumed())
    assert (result.subtype, result.trigger, result.session_id) == ("error_response", Trigger.FAILED, "msg_0")
    assert "secret" not in str(result.errors)


# The transcript


def test_a_history_is_made_sound_before_it_is_sent(way: Way) -> None:
    way.server.will(message(text("Ok.")))
    history = (
        said("assistant", text("I came first.")),
        said("user", text("a")),
        said("assistant", text("  "), THOUGHT),
        said("user", text("b")),
        said("assistant", text("B. ")),
        said("assistant", text("More. ")),
    )
    assert way.result(request("c", *history)).trigger is Trigger.SUCCEEDED
    assert way.server.received[0]["messages"][1:] == [
        {"role": "assistant", "content": [text("I came first.")]},
        {"role": "user", "content": [text("a"), text("b")]},
        {"role": "assistant", "content": [text("B. "), text("More. ")]},
        {"role": "user", "content": [text("c")]},
    ]


# Pauses and containers


def test_a_paused_answer_is_continued_within_the_turn(way: Way) -> None:
    way.server.will(
        message(text("I search. "), SEARCH, id="msg_A", stop="pause_turn"),
        message(FOUND, text("Still "), id="msg_B", stop="pause_turn"),
        message(text("found."), id="msg_C"),
    )
    *deltas, result = way.ask(request("where?"))[0]
    assert "".join(delta.text for delta in deltas) == "I search. Still found."
    assert (result.session_id, result.stop_reason) == ("msg_A", "end_turn")
    assert result.content == (text("I search. "), SEARCH, FOUND, text("Still "), text("found."))
    assert result.usage == {"input_tokens": 30, "output_tokens": 15}
    assert way.server.received[1]["messages"][1]["content"] == [text("I search. "), SEARCH]
    assert way.server.received[2]["messages"][1]["content"][-1] == text("Still")


def test_a_paused_answer_is_continued_after_a_long_transcript(way: Way) -> None:
    way.server.will(message(text("Still "), stop="pause_turn"), message(text("here.")))
    assert way.result(resumed()).content == (text("Still "), text("here."))
    assert way.server.received[1]["messages"][-1] == {"role": "assistant", "content": [text("Still")]}


def test_a_server_tool_that_runs_beside_a_call_of_the_clients_is_kept(way: Way) -> None:
    way.server.will(message(SEARCH, tool_use("t1"), stop="tool_use"))
    assert way.result(request()).content == (SEARCH, tool_use("t1"))


def test_an_answer_that_pauses_for_ever_ends_after_eight_continuations(way: Way) -> None:
    way.server.will(*(message(text("Hm."), SEARCH, stop="pause_turn") for _ in range(9)))
    result = way.result(request())
    assert (result.trigger, result.stop_reason) == (Trigger.SUCCEEDED, "pause_turn")
    assert result.content == (text("Hm."),) * 9


def test_a_pause_with_nothing_to_continue_ends_the_turn(way: Way) -> None:
    way.server.will(message(stop="pause_turn"))
    assert way.result(request()).stop_reason == "pause_turn"


def test_a_refused_continuation_does_not_end_the_session_whose_transcript_was_accepted(way: Way) -> None:
    way.server.will(message(text("Hm."), stop="pause_turn"), error(400, "invalid_request_error"))
    result = way.result(resumed())
    assert (result.subtype, result.session_id) == ("error_api", "msg_0")
    assert result.usage == {"input_tokens": 10, "output_tokens": 5}


def test_a_container_is_kept_with_the_answer_and_asked_for_again_while_the_session_lasts(way: Way) -> None:
    way.server.will(message(text("a"), container="c1"), *(message(text("b")) for _ in range(4)))
    assert way.result(request()).provider_data == {"container": "c1"}
    old, new = said("assistant", text("a"), container="c0"), said("assistant", text("b"), container="c1")
    history = (said("user", text("x")), old, said("user", text("y")), new)
    assert way.result(resumed("z", *history)).provider_data == {"container": "c1"}
    way.result(request("z", *history))
    way.result(resumed("z", *history), options={"container": {"skills": []}})
    way.result(resumed("z", *history), options={"container": "mine"})
    asked = [received.get("container") for received in way.server.received]
    assert asked == [None, "c1", None, {"skills": [], "id": "c1"}, "mine"]


# Endings that are no answer


@pytest.mark.parametrize(("asked", "session"), [(request(), None), (resumed(), "msg_0")])
def test_a_refusal_is_an_error_that_leaves_the_session_as_it_was(way: Way, asked: Request, session: str | None) -> None:
    details = {"type": "refusal", "category": "cyber", "explanation": None}
    way.server.will(message(text("I"), stop="refusal", stop_details=details))
    result = way.result(asked)
    assert (result.subtype, result.trigger, result.session_id) == ("error_refusal", Trigger.FAILED, session)
    assert (result.content, result.errors, result.stop_reason) == (None, ("cyber",), "refusal")
    assert result.is_error
    assert result.usage == {"input_tokens": 10, "output_tokens": 5}
    assert result.raw is not None
    assert result.raw["stop_details"] == details


@pytest.mark.parametrize(
    ("details", "why"),
    [
        ({"type": "refusal", "category": "cyber", "explanation": "It could do harm."}, "It could do harm."),
        ({"type": "refusal", "category": None, "explanation": None}, "the model refused"),
        (None, "the model refused"),
    ],
)
def test_a_refusal_is_told_as_well_as_the_model_has_explained_it(way: Way, details: Any, why: str) -> None:
    way.server.will(message(text("I"), stop="refusal", stop_details=details))
    assert way.result(request()).errors == (why,)


def test_a_full_context_window_ends_a_resumed_session_and_fails_a_new_one(way: Way) -> None:
    way.server.will(*(message(text("I"), stop="model_context_window_exceeded") for _ in range(2)))
    dead = way.result(resumed())
    assert (dead.trigger, dead.stop_reason) == (Trigger.EXPIRED, "model_context_window_exceeded")
    fresh = way.result(request())
    assert (fresh.subtype, fresh.trigger, fresh.session_id) == ("error_context_window", Trigger.FAILED, None)
    assert "context window" in fresh.errors[0]


TOO_LARGE = [error(413, "request_too_large"), Answer(413, "<html>too large</html>", html=True)]


@pytest.mark.parametrize("answer", TOO_LARGE, ids=["API", "gateway"])
def test_a_new_transcript_that_is_too_large_fails_as_such_and_names_no_session(way: Way, answer: Answer) -> None:
    way.server.will(answer)
    result = way.result(request())
    assert (result.subtype, result.session_id, result.http_status) == ("error_context_window", None, 413)
    assert "html" not in result.errors[0]
    assert not answer.html or result.errors[0].startswith("HTTP status 413 ")
    assert "req_1" in result.errors[0]


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (error(400, "invalid_request_error", "Your credit balance is too low to access the API."), 402),
        (error(400, "billing_error"), 402),
        (error(400, "invalid_request_error", "You have reached your specified API usage limits."), 402),
        (error(429, "rate_limit_error", code="enforced_spend_limit_reached"), 402),
        (error(400, "invalid_request_error", code="organization_on_hold"), 400),
        (Answer(400, "<html>bad request</html>", html=True), 400),
        (error(401, "authentication_error"), 401),
        (error(403, "permission_error"), 403),
        (error(429, "rate_limit_error"), 429),
        (error(500, "api_error"), 500),
        (error(529, "overloaded_error"), 529),
    ],
)
def test_any_other_error_of_the_api_leaves_the_session_resumable(way: Way, answer: Answer, status: int) -> None:
    way.server.will(answer)
    result = way.result(resumed())
    assert (result.subtype, result.trigger) == ("error_api", Trigger.FAILED)
    assert (result.session_id, result.http_status) == ("msg_0", status)
    assert "told" not in result.summary


@sdk_leaves_generators
@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("overloaded_error", 529),
        ("rate_limit_error", 429),
        ("api_error", 500),
        ("some_new_error", 500),
        ("invalid_request_error", 400),
    ],
)
def test_an_error_in_the_middle_of_a_stream_is_told_by_its_type(way: Way, kind: str, status: int) -> None:
    half = streamed(text("Hello"))[:2]
    way.server.will(Answer(events=(*begun(), *half, error_event(kind))))
    *deltas, result = way.ask(resumed())[0]
    assert deltas == [TextDelta("He")]
    assert (result.http_status, result.trigger, result.session_id) == (status, Trigger.FAILED, "msg_0")
    assert result.errors == (f"{kind}: told in the stream",)


@pytest.mark.parametrize("then", ["cut", "end"])
def test_a_stream_that_is_cut_off_is_a_connection_error_and_keeps_the_session(way: Way, then: str) -> None:
    way.server.will(Answer(events=(*begun(), *streamed(text("Hello"))), then=then))
    *deltas, result = way.ask(resumed())[0]
    assert deltas == [TextDelta("He"), TextDelta("llo")]
    assert (result.subtype, result.trigger, result.session_id) == ("error_connection", Trigger.FAILED, "msg_0")
    assert (result.is_error, result.usage, result.raw) == (True, None, None)


def test_no_connection_at_all_is_a_connection_error_and_keeps_the_session(way: Way) -> None:
    nobody = MessagesServer()
    nobody.server_close()
    result = Way(way.name, nobody).result(resumed())
    assert (result.subtype, result.trigger, result.session_id) == ("error_connection", Trigger.FAILED, "msg_0")
    assert result.errors[0].startswith("APIConnectionError: ")


def test_a_timeout_is_a_connection_error_and_keeps_the_session(way: Way) -> None:
    way.server.will(Answer(events=begun(), then="wait"))
    result = way.result(resumed(), options={"timeout": 0.2})
    assert (result.subtype, result.session_id) == ("error_connection", "msg_0")
    assert way.server.left.wait(10)


def test_events_that_are_no_json_are_an_error_of_the_answer() -> None:
    result = _failure_of(ValueError("private text"))
    assert (result.subtype, result.errors) == ("error_response", ("the answer can't be read (ValueError)",))


def test_lost_credentials_are_told_as_such() -> None:
    result = _failure_of(anthropic.CredentialsError("/home/me/token is empty"))
    assert (result.http_status, result.trigger, result.session_id) == (401, Trigger.FAILED, "msg_0")
    assert (result.subtype, result.errors) == ("error_api", ("no credentials (CredentialsError)",))


def _failure_of(error: Exception) -> Result:
    from fsm.providers.anthropic_messages.exchange import Exchange

    exchange = Exchange(request(session="msg_0"), {})
    exchange.failed(error)
    assert exchange.result is not None
    return exchange.result


# Closing, constructing


@sdk_leaves_generators
def test_closing_a_stream_early_releases_its_connection(way: Way) -> None:
    way.server.will(Answer(events=(*begun(), *streamed(text("Hello"))), then="wait"))
    assert way.ask(request(), events=1)[0] == [TextDelta("He")]


@pytest.fixture
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for name in [name for name in os.environ if name.startswith("ANTHROPIC_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)


@pytest.mark.usefixtures("no_credentials")
@pytest.mark.parametrize(
    "given",
    [dict, lambda: {"client": anthropic.Anthropic()}, lambda: {"async_client": anthropic.AsyncAnthropic()}],
    ids=["environment", "client", "async_client"],
)
def test_a_missing_key_is_told_when_the_provider_is_constructed(given: Callable[[], dict[str, Any]]) -> None:
    with pytest.raises(ProviderError, match="ANTHROPIC_API_KEY"):
        AnthropicMessages(model="m", **given())


@pytest.mark.usefixtures("no_credentials")
def test_a_profile_that_is_not_there_is_told_when_the_provider_is_constructed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_PROFILE", "nobody")
    with pytest.raises(ProviderError, match="environment"):
        AnthropicMessages(model="m")


@pytest.mark.usefixtures("no_credentials")
def test_without_a_client_of_ones_own_both_are_made_from_the_environment(
    server: MessagesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "test")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server.will(message(text("Hi.")), message(text("Hi.")))
    provider = AnthropicMessages(model="m")
    assert list(provider.stream(request()))[-1].session_id == "msg_1"
    provider._clients.sync("k").close()

    async def ask() -> list[Event]:
        return [event async for event in provider.astream(request())]

    assert anyio.run(ask)[-1].session_id == "msg_1"  # type: ignore[union-attr]


def test_a_client_of_one_kind_is_never_replaced_by_one_from_the_environment() -> None:
    with (
        anthropic.Anthropic(api_key="test") as client,
        pytest.raises(ProviderError, match="conversation 'k': only client was given"),
    ):
        anyio.run(AnthropicMessages(model="m", client=client).astream(request()).__anext__)

    async def only_async() -> None:
        async with anthropic.AsyncAnthropic(api_key="test") as client:
            next(AnthropicMessages(model="m", async_client=client).stream(request()))

    with pytest.raises(ProviderError, match="conversation 'k': only async_client was given; pass client as well"):
        anyio.run(only_async)


def test_what_only_the_api_knows_is_sent_in_extra_body_as_it_is(way: Way) -> None:
    way.server.will(message(text("a")))
    way.result(request(), options={"extra_body": {"another": 2}})
    assert way.server.received[0]["another"] == 2


def test_options_can_not_set_what_has_a_place_of_its_own() -> None:
    with anthropic.Anthropic(api_key="test") as client, pytest.raises(InvalidInput, match="messages, model"):
        AnthropicMessages(model="m", client=client, options={"model": "n", "messages": []})


def test_it_is_a_provider_both_ways_and_wants_the_transcript() -> None:
    with anthropic.Anthropic(api_key="test") as client:
        provider = AnthropicMessages(model="m", client=client)
    assert isinstance(provider, Provider)
    assert isinstance(provider, AsyncProvider)
    assert provider.wants_transcript


class Closing(AnthropicMessages):
    """The provider, for a kit that closes what it makes."""

    def __init__(self, client: anthropic.Anthropic, async_client: anthropic.AsyncAnthropic) -> None:
        super().__init__(model="m", client=client, async_client=async_client)
        self._to_close = client, async_client

    def close(self) -> None:
        self._to_close[0].close()

    async def aclose(self) -> None:
        await self._to_close[1].close()


class Talkative(queue.SimpleQueue[Answer]):
    """Return an answer to each request, each with a new id."""

    def __init__(self) -> None:
        super().__init__()
        self._ids = itertools.count(1)

    def get_nowait(self) -> Answer:
        return message(text("Hello there."), id=f"msg_{next(self._ids)}")


# The asynchronous half of `closing` leaves a stream unread, and the SDK its generators to the loop.
@sdk_leaves_generators
def test_it_keeps_the_promises_of_a_provider() -> None:
    with MessagesServer() as server:
        server.answers = Talkative()
        server.keeps_alive = False  # the kit counts threads, and those of the server are in this process
        given: dict[str, Any] = {"base_url": server.url, "api_key": "test"}

        def make() -> Closing:
            http = anthropic.DefaultHttpxClient(trust_env=False)
            async_http = anthropic.DefaultAsyncHttpxClient(trust_env=False)
            return Closing(
                client=anthropic.Anthropic(**given, http_client=http),
                async_client=anthropic.AsyncAnthropic(**given, http_client=async_http),
            )

        report = check_provider(make)
    assert report.failed == ()
    assert [outcome.contract for outcome in report.skipped] == ["unknown ids", "new start"]


@pytest.mark.parametrize(
    "block",
    [
        {**text("hello"), "cache_control": {"type": "ephemeral"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
        {"type": "document", "source": {"type": "content", "content": "a"}, "citations": {"enabled": True}},
        {"type": "document", "source": {"type": "file", "file_id": "file_1"}},
        {"type": "search_result", "source": "s", "title": "t", "content": [text("a")]},
        {"type": "container_upload", "file_id": "file_1"},
        {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "tool_reference", "tool_name": "add"}]},
    ],
)
def test_content_that_the_api_takes_passes(block: dict[str, Any]) -> None:
    with anthropic.Anthropic(api_key="test") as client:
        AnthropicMessages(model="m", client=client).check_content(as_blocks([block]))


@pytest.mark.parametrize(
    ("block", "why"),
    [
        (tool_use("t1"), "block 0 is of type 'tool_use', which the Messages API does not take; send text, image"),
        ({"type": "thinking", "thinking": "a"}, "is of type 'thinking'"),
        ({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "?"}}, "is no base64"),
        (
            {"type": "document", "source": {"type": "base64", "media_type": "text/html", "data": "aGk="}},
            "must be application/pdf",
        ),
        ({"type": "tool_result", "content": "3"}, "must have a text 'tool_use_id'"),
    ],
)
def test_content_that_the_api_does_not_take_is_refused_by_its_position(block: dict[str, Any], why: str) -> None:
    with anthropic.Anthropic(api_key="test") as client, pytest.raises(InvalidContent, match=why):
        AnthropicMessages(model="m", client=client).check_content(as_blocks([block]))


def test_importing_the_module_does_not_import_the_sdk() -> None:
    code = "import sys, fsm.providers.anthropic_messages; print('anthropic' in sys.modules or 'httpx2' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert told.stdout.strip() == "False"
