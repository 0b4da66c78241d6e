"""A request is sound whatever was stored, begins as the one before it, and tells facts as they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import anthropic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsm.content import as_blocks
from fsm.errors import InvalidContent, InvalidInput
from fsm.provider import Request
from fsm.providers.anthropic_messages import AnthropicMessages
from fsm.providers.anthropic_messages.transcript import api_messages
from tests.providers.messages_server import MessagesServer, message, refusal_of, text, tool_use
from tests.providers.messages_way import stored

MARK = {"cache_control": {"type": "ephemeral"}}
IMAGE = {"type": "image", "source": {"type": "url", "url": "https://x.org/y.png"}}
UNKNOWN = "no result was recorded; it may have run"


def result(call: str, content: Any = "3", **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": call, "content": content, **more}


CALLED = (stored("user", text("1+2?")), stored("assistant", tool_use("t1"), tool_use("t2")))


# Marks of one request


def test_a_mark_is_sent_with_its_own_request_only() -> None:
    document = {"type": "document", "source": {"type": "content", "content": [{**text("d"), **MARK}]}, **MARK}
    marked = ({**text("a"), **MARK}, document, result("t9", [{**text("b"), **MARK}], **MARK))
    before = deepcopy(marked)
    sent = json.dumps(api_messages([stored("user", *marked), stored("assistant", text("ok"))], [text("next")]))
    assert "cache_control" not in sent
    newest = api_messages([], [{**text("a"), **MARK}, {**document, "citations": {"enabled": True}}])[0]["content"]
    assert newest == [{**text("a"), **MARK}, {**document, "citations": {"enabled": True}}]
    assert marked == before, "what is stored stays as it is"


def test_an_argument_named_like_a_mark_is_an_argument() -> None:
    call = tool_use("t1", "http", cache_control="no-cache")
    sent = api_messages([stored("user", text("a")), stored("assistant", call)], [result("t1")])
    assert sent[1]["content"] == [call]


def test_fifty_marked_messages_are_one_session() -> None:
    history = []
    for number in range(50):
        content = [{**text(f"question {number}"), **MARK}]
        assert refusal_of({"messages": api_messages(history, content)}) is None
        history += [stored("user", *content), stored("assistant", text("ok"))]


def _provider(**more: Any) -> AnthropicMessages:
    with anthropic.Anthropic(api_key="test") as client:
        return AnthropicMessages(model="m", client=client, **more)


def test_a_message_with_more_marks_than_the_api_takes_is_refused_before_it_is_stored() -> None:
    content = as_blocks([{**text("a"), **MARK}] * 3 + [result("t1", [{**text("b"), **MARK}])])
    tools = [{"name": "add", "input_schema": {"type": "object"}, **MARK}]
    _provider().check_content(content)
    with pytest.raises(InvalidContent, match="4 blocks with 'cache_control', and system, tools and options have 1"):
        _provider(tools=tools).check_content(content)
    with pytest.raises(InvalidContent, match="system, tools and options have 2"):
        _provider(system=[{**text("s"), **MARK}], options=MARK).check_content(content)
    _provider(tools=tools * 4).check_content(as_blocks("no mark at all"))


def test_settings_with_more_marks_than_the_api_takes_are_refused_when_the_provider_is_made() -> None:
    with pytest.raises(InvalidInput, match="have 5 'cache_control'"):
        _provider(system=[{**text("s"), **MARK}] * 5)


# Blank texts


@pytest.mark.parametrize("blank", ["", "\n", " \t ", None, [], [text("")], [text("\n"), text("  ")]], ids=repr)
def test_a_tool_that_printed_nothing_has_a_result_that_says_so(blank: Any) -> None:
    answer = result("t1", blank)
    before = deepcopy(answer)
    for history, content in ((CALLED[:1], []), (CALLED, [answer])):
        newest = api_messages(history, content or [answer])
        assert refusal_of({"messages": newest}) is None
    assert newest[2]["content"][0]["content"] in ("(no output)", [text("(no output)")])
    later = api_messages([*CALLED, stored("user", answer), stored("assistant", text("ok"))], [text("next")])
    assert later[2]["content"][0] == newest[2]["content"][0]
    assert answer == before


@pytest.mark.parametrize(
    ("content", "sent"),
    [
        ([text("a"), text("")], [text("a")]),
        ([text(" "), IMAGE], [IMAGE]),
        ([text("")], [text("(empty)")]),
        (
            [{"type": "search_result", "source": "s", "title": "t", "content": [text(" "), text("x")]}],
            [{"type": "search_result", "source": "s", "title": "t", "content": [text("x")]}],
        ),
        (
            [{"type": "document", "source": {"type": "content", "content": [text("\n")]}}],
            [{"type": "document", "source": {"type": "content", "content": [text("(empty)")]}}],
        ),
        (
            [{"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": " "}}],
            [{"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "(empty)"}}],
        ),
        (
            [result("t9", [text(" "), {"type": "search_result", "source": "s", "title": "t", "content": []}])],
            [text("[the tool answered: [search_result]]")],
        ),
    ],
)
def test_a_blank_text_beside_others_is_left_out_at_any_depth(content: Any, sent: Any) -> None:
    assert api_messages([], content) == [{"role": "user", "content": sent}]
    past = api_messages([stored("user", *content), stored("assistant", text("ok"))], [text("next")])
    assert past[0]["content"] == sent


@pytest.mark.parametrize("blank", [[text("\n")], [text("")], "\n", ""], ids=repr)
def test_a_blank_result_of_a_tool_passes_the_check(blank: Any) -> None:
    _provider().check_content([result("t1", blank)])


# Facts


def _told(history: Any, *content: Any) -> list[Any]:
    last = api_messages(history, content)[-1]["content"]
    return [block.get("content", block.get("text")) for block in last]


def test_a_result_of_a_turn_that_failed_is_the_answer_to_its_call() -> None:
    history = (*CALLED, stored("user", result("t2", "receipt 77")))
    assert _told(history, text("did it work?")) == [UNKNOWN, "receipt 77", "did it work?"]
    assert _told((*history, stored("user", result("t1", "5"))), text("and?")) == ["5", "receipt 77", "and?"]
    assert _told(history, result("t1", "5")) == ["5", "receipt 77"]


def test_a_result_that_comes_after_another_answer_is_told_in_its_place() -> None:
    history = (*CALLED, stored("user", text("well?")), stored("assistant", text("ok")), stored("user", result("t1")))
    assert _told(history, text("and now?")) == ["[the tool answered: 3]", "and now?"]
    assert api_messages(history, [text("and now?")])[2]["content"][0]["content"] == UNKNOWN


def test_a_result_that_comes_after_its_message_was_answered_by_nothing_does_not_change_what_was_sent() -> None:
    first = api_messages(CALLED, [text("well?")])
    history = (*CALLED, stored("user", text("well?")))
    later = api_messages(history, [result("t1")])
    assert later[2]["content"] == [*first[2]["content"], text("[the tool answered: 3]")]


def test_of_two_results_of_one_call_the_newest_is_the_answer_and_a_different_one_is_told() -> None:
    failed = (*CALLED, stored("user", result("t1", "one")))
    assert _told(failed, result("t1", "two"), result("t2")) == ["two", "3", "[the tool answered: one]"]
    assert _told(failed, result("t1", "one", **MARK), result("t2")) == ["one", "3"]
    assert _told(CALLED, result("t1", "one"), result("t1", "one"), result("t2")) == ["one", "3"]
    assert _told(failed, result("t1", "one", is_error=True), result("t2")) == ["one", "3", "[the tool answered: one]"]


# Well-formed


def test_halves_of_a_surrogate_pair_that_are_stored_do_not_keep_a_request_from_leaving() -> None:
    history = (stored("user", text("a\ud83d")), stored("assistant", tool_use("t1", path="caf\udce9", **{"\ud800": 1})))
    sent = api_messages(history, [result("t1", [text("x\udcff")])])
    json.dumps(sent, ensure_ascii=False).encode()
    assert sent[0]["content"] == [text("a\ufffd")]
    assert sent[1]["content"][0]["input"] == {"path": "caf\ufffd", "\ufffd": 1}


def test_halves_of_a_surrogate_pair_in_the_settings_are_replaced() -> None:
    with MessagesServer() as server, anthropic.Anthropic(api_key="test", base_url=server.url) as client:
        server.will(message(text("ok")))
        tools = [{"name": "a", "description": "\ud83d", "input_schema": {}}]
        provider = AnthropicMessages(model="m", client=client, system="Be kind\ud83d.", tools=tools)
        list(provider.stream(Request(key="k", turn=1, session_number=1, content=(text("hello"),))))
    (received,) = server.received
    assert (received["system"], received["tools"][0]["description"]) == ("Be kind\ufffd.", "\ufffd")


# Any history

WORDS = st.sampled_from(["a", "b ", " ", "", "\n", "half \ud83d"])
MARKS = st.sampled_from([{}, MARK])
INNER = st.one_of(WORDS, st.lists(st.builds(lambda said, mark: {**text(said), **mark}, WORDS, MARKS), max_size=2))


@st.composite
def user_blocks(draw: Callable[[Any], Any], calls: list[str]) -> list[dict[str, Any]]:
    results = st.builds(result, st.sampled_from([*calls, "t0"]), INNER)
    plain = st.builds(lambda said, mark: {**text(said), **mark}, WORDS, MARKS)
    blocks = draw(st.lists(st.one_of(plain, results, st.just(IMAGE)), min_size=1, max_size=4))
    return [*blocks, draw(plain)] if draw(st.booleans()) else blocks


@st.composite
def answers(draw: Callable[[Any], Any], turn: int) -> list[dict[str, Any]]:
    thought = {"type": "thinking", "thinking": "hm", "signature": "signed:1"}
    said = draw(st.lists(st.one_of(st.builds(text, WORDS), st.just(thought)), max_size=2))
    calls = [tool_use(f"t{turn}.{number}") for number in range(draw(st.integers(0, 2)))]
    return [*said, text("x"), *calls] if draw(st.booleans()) else [*said, *calls]


def _flat(messages: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Role and block, in order, without marks."""
    unmarked = json.loads(json.dumps(messages), object_hook=_without_mark)
    return [(sent["role"], json.dumps(block)) for sent in unmarked for block in sent["content"]]


def _without_mark(value: dict[str, Any]) -> dict[str, Any]:
    return {name: held for name, held in value.items() if name != "cache_control"}


def _says_something(blocks: list[dict[str, Any]]) -> bool:
    return any(block["type"] == "tool_use" or str(block.get("text", "")).strip() for block in blocks)


@given(st.data())
def test_any_history_is_sound_and_each_request_begins_as_the_one_before_it(data: st.DataObject) -> None:
    history: list[Any] = []
    calls: list[str] = []
    sent: list[tuple[str, str]] = []
    for turn in range(data.draw(st.integers(1, 6))):
        content = data.draw(user_blocks(calls))
        messages = api_messages(history, content)
        unmarked = json.loads(json.dumps(messages), object_hook=_without_mark)
        assert refusal_of({"messages": unmarked}) is None
        assert _flat(messages)[: len(sent)] == sent
        if data.draw(st.booleans()):
            kept = [block for block in content if block["type"] == "tool_result"]
            history += [stored("user", *kept)] if kept else []
            continue
        answer = data.draw(answers(turn))
        # An empty answer to results alone can't be told from a turn that failed: both leave nothing but results.
        others = [block for block in content if block["type"] != "tool_result" and block.get("text", "x").strip()]
        if not _says_something(answer) and not others:
            answer = [text("ok")]
        history += [stored("user", *content), stored("assistant", *answer)]
        calls += [block["id"] for block in answer if block["type"] == "tool_use"]
        sent = _flat(messages)
