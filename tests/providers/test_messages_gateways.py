"""Gateways that speak the Messages API nearly: a field is missing or null, a block or an event is unknown."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import anthropic
import pytest

from fsm._core.table import Trigger
from fsm.events import NAME_LENGTH, Result, TextDelta, ToolUse
from fsm.provider import Request
from fsm.providers.anthropic_messages.answer import Answer as Told
from fsm.providers.anthropic_messages.exchange import END, Exchange
from tests.providers.messages_server import Answer, MessagesServer, begun, finished, streamed, text, tool_use
from tests.providers.messages_way import WAYS, Asking, asked

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning"),
]

SAID = "the whole answer"
THOUGHT = {"type": "thinking", "thinking": "Let me see.", "signature": "signed:1"}


@pytest.fixture
def server() -> Iterator[MessagesServer]:
    with MessagesServer() as server:
        server.keeps_alive = False
        yield server


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, server: MessagesServer) -> Asking:
    return Asking(request.param, server)


def events(*blocks: dict[str, Any], start: Any = None, without: tuple[str, ...] = (), **delta: Any) -> list[Any]:
    """The events of an answer, with fields of its start changed or left out, and others added to its end."""
    made = deepcopy([*begun(), *streamed(*(blocks or (text(SAID),))), *finished(**delta)])
    made[0]["message"] |= start or {}
    for name in without:
        del made[0]["message"][name]
    return made


def _changed(number: int, **fields: Any) -> list[Any]:
    made = events()
    made[number] |= fields
    return made


WHOLE = {
    "as the API": events(),
    "message_start without usage": events(without=("usage",)),
    "usage null": events(start={"usage": None}),
    "usage not an object": events(start={"usage": 7}),
    "a count that is not a number": events(start={"usage": {"input_tokens": float("nan")}}),
    "content null": events(start={"content": None}),
    "content missing": events(without=("content",)),
    "no model, no role, no type": events(without=("model", "role", "type")),
    "message null": _changed(0, message=None),
    "no message_start": events()[1:],
    "two message_starts": [events()[0], *events()],
    "message_delta without usage": [{k: v for k, v in one.items() if k != "usage"} for one in events()],
    "message_delta with usage null": _changed(-2, usage=None),
    "no message_stop": events()[:-1],
    "no message_delta": [*events()[:-2], events()[-1]],
    "stop_reason null": events(stop=None),  # type: ignore[arg-type]
    "stop_reason unknown": events(stop="eos"),
    "stop_reason not a text": events(stop=5),  # type: ignore[arg-type]
    "stop_reason too long": events(stop="x" * (NAME_LENGTH + 1)),
    "no content_block_start": [one for one in events() if one["type"] != "content_block_start"],
    "no content_block_stop": [one for one in events() if one["type"] != "content_block_stop"],
    "content_block null": _changed(2, content_block=None),
    "text null at the start": _changed(2, content_block={"type": "text", "text": None}),
    "no index": [{k: v for k, v in one.items() if k != "index"} for one in events()],
    "index null": [one | {"index": None} if "index" in one else one for one in events()],
    "an index that nobody began": [
        one | {"index": 7} if one["type"] == "content_block_delta" else one for one in events()
    ],
    "a delta without a type": [
        one | {"delta": {"text": one["delta"]["text"]}} if one["type"] == "content_block_delta" else one
        for one in events()
    ],
    "a delta that is null": [*events()[:3], {"type": "content_block_delta", "index": 0, "delta": None}, *events()[3:]],
    "a delta whose text is null": [
        *events()[:3],
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": None}},
        *events()[3:],
    ],
    "an unknown delta": [
        *events()[:3],
        {"type": "content_block_delta", "index": 0, "delta": {"type": "mood_delta", "mood": "good"}},
        *events()[3:],
    ],
    "an unknown event": [events()[0], {"type": "gateway_notice", "text": "x"}, *events()[1:]],
    "an event without data": [events()[0], "event: message_delta\ndata:\n\n", *events()[1:]],
    "the text in the block's start": [
        *events()[:2],
        {"type": "content_block_start", "index": 0, "content_block": text(SAID)},
        {"type": "content_block_stop", "index": 0},
        *events()[-2:],
    ],
    "the text in the message's start": [events(start={"content": [text(SAID)]})[0], *events()[-2:]],
    "a thought without a signature": events({**THOUGHT, "signature": None}, text(SAID)),
    "container null": events(container=None),
}


@pytest.mark.parametrize("name", WHOLE)
def test_an_answer_that_is_all_there_is_an_answer(way: Asking, name: str) -> None:
    way.server.will(Answer(events=tuple(WHOLE[name])))
    *deltas, result = way.events(asked())
    assert "".join(delta.text for delta in deltas if isinstance(delta, TextDelta)) == SAID
    assert isinstance(result, Result)
    assert (result.trigger, result.session_id) == (Trigger.SUCCEEDED, "msg_0")
    assert result.content is not None
    assert result.content[-1]["text"] == SAID


BROKEN = {
    "a call without an id": events(text(SAID), {k: v for k, v in tool_use("t").items() if k != "id"}, stop="tool_use"),
    "a call whose id is null": events(text(SAID), {**tool_use("t"), "id": None}, stop="tool_use"),
    "a call without a name": events(text(SAID), {**tool_use("t"), "name": ""}, stop="tool_use"),
    "a call with broken arguments": events(text(SAID), {**tool_use("t"), "input": '{"a": nonsense'}, stop="tool_use"),
    "a call with arguments that are a list": events(text(SAID), {**tool_use("t"), "input": "[1]"}, stop="tool_use"),
    "an event that is not JSON": [*events()[:-2], "event: message_delta\ndata: {nonsense\n\n"],
    "an event that is null": [*events()[:-2], "event: message_delta\ndata: null\n\n"],
    "an event that is a number": [*events()[:-2], "event: message_delta\ndata: 5\n\n"],
    "an event that is a list": [*events()[:-2], "event: message_delta\ndata: []\n\n"],
    "an event that is not UTF-8": [*events()[:-2], "event: message_delta\ndata: \ud83d\n\n"],
    "an error without the event's name": [*events()[:-2], {"type": "error", "error": {"type": "api_error"}}],
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_answer_that_is_broken_is_an_error_of_the_answer_and_what_was_said_is_kept(way: Asking, name: str) -> None:
    way.server.will(Answer(events=tuple(BROKEN[name])))
    *deltas, result = way.events(asked())
    assert "".join(delta.text for delta in deltas if isinstance(delta, TextDelta)) == SAID
    assert isinstance(result, Result)
    named = (result.subtype, result.trigger, result.session_id, result.content)
    if name != "an error without the event's name":
        assert named == ("error_response", Trigger.FAILED, "msg_0", None)
    assert result.content is None
    assert "nonsense" not in str(result.errors)


@pytest.mark.parametrize("name", [None, "", 5, "x" * (NAME_LENGTH + 1), "a\0b", "missing"])
def test_a_new_session_whose_reply_has_no_usable_id_gets_a_name_all_the_same(way: Asking, name: Any) -> None:
    made = events(without=("id",)) if name == "missing" else events(start={"id": name})
    way.server.will(*(Answer(events=tuple(made)) for _ in range(2)))
    names = [way.result(asked(session=None)).session_id for _ in range(2)]
    assert all(one is not None and one.startswith("local-") for one in names)
    assert names[0] != names[1]


@pytest.mark.parametrize(
    "raised", [AttributeError, TypeError, KeyError, IndexError, AssertionError, RuntimeError, OSError]
)
def test_whatever_the_sdk_raises_is_a_result(raised: type[Exception]) -> None:
    exchange = Exchange(asked(), {"model": "m"})
    with exchange.reading():
        raise raised("private text")
    assert exchange.result is not None
    expected = "error_connection" if raised is OSError else "error_response"
    assert (exchange.result.subtype, exchange.result.session_id) == (expected, "msg_0")
    assert raised is OSError or exchange.result.errors == (f"the answer can't be read ({raised.__name__})",)


class _Event:
    """An event of the SDK."""

    def __init__(self, event: Any) -> None:
        self._event = event

    def to_dict(self, **_: Any) -> Any:
        return self._event


JUNK = [None, 0, -1, 5, 1.5, True, "", "x", "text", [], [None], {}, {"type": None}, {"type": "text"}, float("nan")]


def _mangled(value: Any, chance: random.Random) -> Any:
    """A JSON value in which a few things are missing, doubled or something else."""
    if chance.random() < 0.06:
        return chance.choice(JUNK)
    if isinstance(value, dict):
        return {name: _mangled(held, chance) for name, held in value.items() if chance.random() > 0.06}
    if isinstance(value, list):
        return [_mangled(held, chance) for held in value for _ in range(chance.choice([1, 1, 1, 1, 2, 0]))]
    return value


def test_no_answer_however_it_is_mangled_raises_or_loses_what_was_said() -> None:
    chance = random.Random(12)
    search = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "x"}}
    whole = events(
        THOUGHT, text("some text"), search, tool_use("t1", a=1), text("more"), stop="tool_use", container="c"
    )
    ended = set()
    for _ in range(3000):
        exchange = Exchange(
            Request(key="k", turn=1, session_number=1, content=({"type": "text", "text": "hello"},)), {}
        )
        heard: list[Any] = []
        for event in [*(_Event(_mangled(event, chance)) for event in whole if chance.random() > 0.06), END]:
            if exchange.is_open:
                with exchange.reading():
                    heard += exchange.feed(event)
        result = exchange.result
        assert result is not None
        ended.add(result.subtype)
        if result.content is not None:
            said = "".join(one.text for one in heard if isinstance(one, TextDelta))
            kept = "".join(block["text"] for block in result.content if block["type"] == "text")
            assert sorted(kept) == sorted(said), "an index may have become another one, and the order with it"
            calls = [one.id for one in heard if isinstance(one, ToolUse)]
            assert sorted(block["id"] for block in result.content if block["type"] == "tool_use") == sorted(calls)
            json.dumps(result.content, allow_nan=False)
    assert ended >= {"success", "error_response", "error_connection"}


def test_a_sound_answer_is_put_together_as_the_sdk_does_it(server: MessagesServer) -> None:
    cited = text("Found it.", citations=[{"type": "char_location", "cited_text": "c", "document_index": 0}])
    search = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "x"}}
    made = events(THOUGHT, search, cited, tool_use("t1", a=1, b=[2]), stop="tool_use", container="c1")
    server.will(Answer(events=tuple(made)))
    with anthropic.Anthropic(api_key="k", base_url=server.url) as client:
        asked_sdk: Any = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}
        with client.messages.stream(**asked_sdk) as stream:
            theirs = stream.get_final_message().to_dict(mode="json", warnings=False)
    ours = Told()
    for event in made:
        ours.feed(event)
    assert ours.message == {name: value for name, value in theirs.items() if value is not None}
