"""Dead means evidence (G22): every error that the Messages API can give, and 200 that it can't."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fsm._core.table import Trigger
from fsm.events import EXPIRED, Result
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
from tests.providers.messages_way import PAST, WAYS, Asking, asked, stored

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.timeout(120),
    # The SDK leaves its generators to the loop when a stream is not read to its end; trio finishes them, and warns.
    pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning"),
]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "dead" / "anthropic-messages.md"
FILE = {"type": "document", "source": {"type": "file", "file_id": "file_stored"}}
HISTORY = (stored("user", text("hello"), FILE), stored("assistant", text("Hi."), container="container_stored"))
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}


def _rows(heading: str, columns: int) -> list[tuple[str, ...]]:
    """The rows of the tables under a heading of the page that have so many columns."""
    section = PAGE.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if re.match(r"\| \d", line)]
    rows = [tuple(cell.strip().strip("`") for cell in re.split(r" \| ", line.strip("| "))) for line in lines]
    return [row for row in rows if len(row) == columns]


def _error(status: str, kind: str, code: str, words: str) -> Answer:
    return error(int(status), kind, words.replace("'", "`"), code if code.isascii() else None)


DEAD = _rows("Dead without a question", 5)
DOUBTFUL = _rows("In doubt", 6)
NEVER = _rows("Never dead", 5)
BODIES = _rows("Never dead", 3)


def test_the_tables_were_read() -> None:
    assert (len(DEAD), len(DOUBTFUL), len(NEVER), len(BODIES)) == (13, 19, 39, 10)


@pytest.fixture
def server() -> Iterator[MessagesServer]:
    with MessagesServer() as server:
        yield server
        assert server.answers.empty(), "not all that was scripted was asked for"


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, server: MessagesServer) -> Asking:
    return Asking(request.param, server)


@pytest.mark.parametrize("row", DEAD, ids=lambda row: row[3][:40])
def test_an_error_about_the_stored_transcript_is_a_dead_session(way: Asking, row: tuple[str, ...]) -> None:
    way.server.will(_error(*row[:4]))
    result = way.result(asked("again", *HISTORY))
    assert (result.subtype, result.session_id, result.http_status) == (EXPIRED, "msg_0", int(row[0]))
    assert row[4] == EXPIRED
    assert way.server.counted == []


@pytest.mark.parametrize("row", DOUBTFUL, ids=lambda row: row[3][:40])
@pytest.mark.parametrize("takes", [False, True], ids=["refused", "taken"])
def test_a_doubtful_error_is_decided_by_whether_the_api_takes_the_old_transcript(
    way: Asking, row: tuple[str, ...], takes: bool
) -> None:
    way.server.will(_error(*row[:4]))
    if not takes:
        way.server.counting = lambda _: error(400, "invalid_request_error", "messages.0.content.0: Could not process")
    result = way.result(asked([text("what is this?"), IMAGE], *HISTORY))
    assert (result.subtype, result.http_status) == (row[5 if takes else 4], int(row[0]))
    assert result.session_id == "msg_0"
    assert len(way.server.counted) == 1
    told = [block for sent in way.server.counted[0]["messages"] for block in sent["content"]]
    assert told[:3] == [text("hello"), FILE, text("Hi.")]
    assert IMAGE not in told


@pytest.mark.parametrize("row", NEVER, ids=lambda row: row[3][:40])
def test_an_error_about_anything_else_leaves_the_session_resumable(way: Asking, row: tuple[str, ...]) -> None:
    way.server.will(_error(*row[:4]))
    result = way.result(asked("again", *HISTORY))
    assert (result.subtype, result.trigger, result.session_id) == (row[4], Trigger.FAILED, "msg_0")
    assert way.server.counted == [], "there is no doubt"


@pytest.mark.parametrize("row", BODIES, ids=lambda row: row[1][:40])
def test_a_body_that_is_not_the_apis_own_leaves_the_session_resumable(way: Asking, row: tuple[str, ...]) -> None:
    way.server.will(Answer(int(row[0]), row[1], html=True))
    result = way.result(asked("again", *HISTORY))
    assert (result.subtype, result.trigger, result.session_id) == (row[2], Trigger.FAILED, "msg_0")
    assert result.http_status == int(row[0])


def test_no_code_of_the_sdk_is_evidence_unless_the_table_says_so(server: MessagesServer) -> None:
    from anthropic._error_classes import ERROR_CLASSES

    doubtful = {row[2] for row in (*DEAD, *DOUBTFUL)}
    tried = [(status, code) for status, code in ERROR_CLASSES if code is not None and code not in doubtful]
    assert len(tried) > 50
    for status, code in tried:
        server.will(error(status, "not_found_error" if status == 404 else "invalid_request_error", "x", code))
    for (_, code), events in zip(tried, Asking("sync", server).all_events(*[asked()] * len(tried)), strict=True):
        result = events[-1]
        assert isinstance(result, Result)
        assert (result.trigger, result.session_id) == (Trigger.FAILED, "msg_0"), code
    assert server.counted == []


# What decides a doubt


ANSWERS_THAT_ARE_NONE: list[Answer] = [
    error(404, "not_found_error", "/v1/messages/count_tokens"),
    Answer(404, "<html>not found</html>", html=True),
    Answer(400, "<html>messages.0: bad</html>", html=True),
    Answer(400, '{"error": {"type": "invalid_request_error", "message": "messages.0: bad"}}', html=True),
    error(401, "authentication_error"),
    error(429, "rate_limit_error"),
    error(500, "api_error"),
    error(400, "invalid_request_error", "Your credit balance is too low"),
    error(400, "invalid_request_error", "tools.0: bad"),
    error(400, "invalid_request_error", "words that nobody has heard before"),
    error(404, "not_found_error", "model: m"),
    Answer(then="cut"),
]


@pytest.mark.parametrize("counted", ANSWERS_THAT_ARE_NONE, ids=lambda counted: str(counted.status))
def test_an_api_that_can_not_be_asked_leaves_the_session_resumable(way: Asking, counted: Answer) -> None:
    way.server.will(error(400, "invalid_request_error", "Could not process image"))
    way.server.counting = lambda _: counted
    result = way.result(asked(), retries=2)
    assert (result.subtype, result.session_id, result.http_status) == ("error_api", "msg_0", 400)
    assert len(way.server.counted) == 1, "it is asked once, without retries"


@pytest.mark.parametrize(
    "counted",
    [
        error(400, "invalid_request_error", "messages.2: it is the placeholder's, but nothing is wrong with that"),
        error(400, "invalid_request_error", "prompt is too long: 300000 tokens > 200000 maximum"),
        error(413, "request_too_large"),
        error(400, "invalid_request_error", "Could not process image"),
    ],
    ids=lambda counted: counted.body["error"]["message"][:30],
)
def test_a_transcript_that_is_refused_without_the_newest_message_is_dead(way: Asking, counted: Answer) -> None:
    way.server.will(error(400, "invalid_request_error", "Could not process image"))
    way.server.counting = lambda _: counted
    assert way.result(asked()).subtype == EXPIRED


def test_the_old_transcript_is_asked_about_with_its_calls_answered_and_the_same_settings(way: Asking) -> None:
    way.server.will(error(400, "invalid_request_error", "Could not process image"))
    tools = [{"name": "add", "input_schema": {"type": "object"}}]
    history = (stored("user", text("1+2?")), stored("assistant", tool_use("t1")))
    options = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "stop_sequences": ["."]}
    result = way.result(asked([IMAGE], *history), system="Be kind.", tools=tools, options=options)
    assert result.subtype == "error_message"
    (counted,) = way.server.counted
    assert {name: value for name, value in counted.items() if name != "messages"} == {
        "model": "m",
        "system": "Be kind.",
        "tools": tools,
        "thinking": options["thinking"],
    }
    assert counted["messages"][-1]["content"][0]["tool_use_id"] == "t1"


def test_a_full_session_with_a_large_message_is_dead_only_if_a_new_one_takes_the_message(way: Asking) -> None:
    long = error(400, "invalid_request_error", "prompt is too long: 204000 tokens > 200000 maximum")
    for tokens, subtype in ((150_000, EXPIRED), (250_000, "error_message")):
        way.server.will(long)
        way.server.counting = lambda _, tokens=tokens: Answer(200, {"input_tokens": tokens})  # type: ignore[misc]
        result = way.result(asked("word " * 40_000))
        assert (result.subtype, result.session_id, result.http_status) == (subtype, "msg_0", 400)
    assert [len(counted["messages"]) for counted in way.server.counted] == [1, 1], "the newest message alone"
    way.server.will(long)
    way.server.counting = lambda _: Answer(404, "", html=True)
    assert way.result(asked("word " * 40_000)).subtype == "error_api"


@pytest.mark.parametrize(
    "large",
    [
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}},
        {"type": "tool_result", "tool_use_id": "t1", "content": "word " * 40_000},
    ],
    ids=["pdf", "tool_result"],
)
def test_a_message_of_unknown_length_is_counted_before_a_session_is_called_full(way: Asking, large: Any) -> None:
    way.server.will(error(400, "invalid_request_error", "prompt is too long: 204000 tokens > 200000 maximum"))
    way.server.counting = lambda _: Answer(200, {"input_tokens": 250_000})
    history = (stored("user", text("1+2?")), stored("assistant", tool_use("t1")))
    assert way.result(asked([large], *history)).subtype == "error_message"


def test_a_request_of_many_bytes_is_the_transcripts_fault_if_the_newest_message_is_small(way: Asking) -> None:
    history = (stored("user", text("x" * 2_000_000)), stored("assistant", text("Hi.")))
    way.server.will(error(413, "request_too_large"))
    assert way.result(asked("again", *history)).subtype == EXPIRED
    assert way.server.counted == []
    way.server.will(error(413, "request_too_large"))
    assert way.result(asked("y" * 2_000_000, *history)).subtype == "error_message"
    assert len(way.server.counted) == 1


def test_a_message_that_begins_with_what_was_stored_before_is_asked_about(way: Asking) -> None:
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [IMAGE]}
    history = (stored("user", text("draw")), stored("assistant", tool_use("t1")), stored("user", result))
    told = "messages.2.content.0.image.source.base64: image exceeds 5 MB maximum"
    way.server.will(error(400, "invalid_request_error", told))
    way.server.counting = lambda _: error(400, "invalid_request_error", told)
    assert way.result(asked("and now?", *history)).subtype == EXPIRED
    way.server.will(error(400, "invalid_request_error", told))
    way.server.counting = None
    assert way.result(asked("and now?", *history)).subtype == "error_message"


def test_the_paths_of_an_error_say_which_images_are_too_large(way: Asking) -> None:
    for place, subtype in ((0, EXPIRED), (2, "error_message")):
        answer = error(400, "invalid_request_error", "An image is too large.", "image_dimensions_too_large")
        answer.body["error"]["details"]["paths"] = [f"messages.{place}.content.1"]
        way.server.will(answer)
        assert way.result(asked("again", *HISTORY)).subtype == subtype
    assert way.server.counted == []


def test_a_container_that_the_settings_name_is_not_evidence(way: Asking) -> None:
    for words in ("Container not found: mine", "Container not found", "container: expired"):
        way.server.will(error(400, "invalid_request_error", words))
        assert way.result(asked("again", *HISTORY), options={"container": "mine"}).session_id == "msg_0"
        way.server.will(error(404, "not_found_error", words))
        result = way.result(asked("again", *HISTORY), options={"container": "mine"})
        assert (result.subtype, result.trigger) == ("error_api", Trigger.FAILED)


def test_a_file_that_the_newest_message_names_too_is_that_messages_fault(way: Asking) -> None:
    way.server.will(error(404, "not_found_error", "File not found: file_stored"))
    assert way.result(asked([FILE, text("read it again")], *HISTORY)).subtype == "error_message"


@pytest.mark.parametrize(
    "begun_with", [(), begun(), (*begun(), *streamed(text("Hello"))[:2])], ids=["", "begun", "said"]
)
def test_an_error_after_the_answer_began_is_not_evidence(way: Asking, begun_with: Any) -> None:
    way.server.will(Answer(events=(*begun_with, error_event("invalid_request_error", "messages.0: bad"))))
    result = way.result(asked())
    assert (result.subtype, result.http_status) == ("error_api" if begun_with else EXPIRED, 400)
    assert result.session_id == "msg_0"


@pytest.mark.parametrize("words", ["prompt is too long: 9 tokens > 8 maximum", "Input is too long"])
def test_a_new_session_that_is_too_long_says_so_and_is_not_named(way: Asking, words: str) -> None:
    way.server.will(error(400, "invalid_request_error", words))
    result = way.result(asked(session=None))
    assert (result.subtype, result.session_id, result.http_status) == ("error_context_window", None, 400)
    assert result.is_error


@pytest.mark.parametrize("row", [*DEAD[:4], *DOUBTFUL, *NEVER], ids=lambda row: row[3][:40])
def test_a_new_session_that_is_refused_is_never_named_nor_asked_about(server: MessagesServer, row: Any) -> None:
    server.will(_error(*row[:4]))
    result = Asking("sync", server).result(asked(session=None))
    assert (result.trigger, result.session_id) == (Trigger.FAILED, None)
    assert server.counted == []


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (error(404, "not_found_error", "model: claude-typo"), "must check its settings"),
        (error(400, "invalid_request_error", "tools.0: bad"), "must check its settings"),
        (error(400, "invalid_request_error", "messages.2: bad"), "did not accept this message"),
        (error(400, "invalid_request_error", "Output blocked by content filtering policy"), "declined to answer"),
        (error(400, "invalid_request_error", "You have reached your specified API usage limits."), "out of credit"),
        (error(403, "permission_error"), "must check its permissions"),
    ],
)
def test_the_sentence_for_the_person_says_who_can_mend_it(server: MessagesServer, answer: Answer, told: str) -> None:
    server.will(answer)
    assert told in Asking("sync", server).result(asked()).summary


# Errors that nobody foresaw

KINDS = [
    "invalid_request_error",
    "not_found_error",
    "request_too_large",
    "api_error",
    "overloaded_error",
    "some_new_error",
    "",
    None,
    7,
    ["invalid_request_error"],
    {"a": 1},
]
WORDS = [
    "words",
    "",
    None,
    5,
    ["messages.0: bad"],
    {"messages.0": "bad"},
    "see messages.0",
    "Error: messages.1.content.0 is bad",
    "The image is too large",
    "model: m",
    "tools.0: bad",
    "too long",
    "half an emoji \ud83d",
    "a NUL \0",
    "\u202e" * 5,
    "x" * 10_000,
]
CODES = [None, "some_new_code", "messages.0", 5, [], {}]
STATUSES = [200, 400, 400, 400, 401, 403, 404, 409, 413, 418, 422, 429, 451, 499, 500, 502, 503, 520, 529, 599]


def _random_body(chance: random.Random) -> str:
    inner: Any = {"type": chance.choice(KINDS), "message": chance.choice(WORDS)}
    if chance.random() < 0.3:
        inner["details"] = chance.choice([None, [], "x", {"error_code": chance.choice(CODES), "paths": [5, None]}])
    body: Any = chance.choice(
        [{"type": "error", "error": inner}] * 4
        + [{"error": inner}, {"type": "error"}, {"type": "error", "error": "messages.0"}, [inner], inner, None, 5, "x"]
    )
    written = json.dumps(body)
    return chance.choice([written] * 6 + [written[: len(written) // 2], "", "<html>messages.0: bad</html>", "\ufeff{}"])


def _random_answer(chance: random.Random) -> Answer:
    status = chance.choice(STATUSES)
    body = _random_body(chance)
    if status != 200:
        return Answer(status, body, html=chance.random() < 2)
    events = chance.choice([(), begun(), (*begun(), *streamed(text("Hello"))[:2])])
    name = chance.choice(["event: error\n", "event: message_delta\n", ""])
    return Answer(events=(*events, f"{name}data: {body}\n\n"), then=chance.choice(["end", "cut"]))


@pytest.mark.parametrize("counts", ["as the API", "at random", "not at all"])
@pytest.mark.parametrize("name", WAYS[:2])
def test_a_session_survives_200_random_errors(server: MessagesServer, name: str, counts: str) -> None:
    chance = random.Random(f"{name} {counts}")
    counting: dict[str, Callable[[Any], Answer] | None] = {
        "as the API": None,
        "at random": lambda _: _random_answer(chance),
        "not at all": lambda _: Answer(404, "", html=True),
    }
    server.counting = counting[counts]
    server.keeps_alive = False
    answers = [_random_answer(chance) for _ in range(200)]
    server.will(*answers)
    for answer, events in zip(answers, Asking(name, server).all_events(*[asked()] * 200), strict=True):
        result = events[-1]
        assert isinstance(result, Result)
        assert result.trigger is not Trigger.EXPIRED, answer
        assert result.session_id == "msg_0", answer


def test_the_next_message_is_answered_in_the_session_that_survived(way: Asking) -> None:
    way.server.will(error(400, "invalid_request_error", "Output blocked by content filtering policy"))
    assert way.result(asked()).session_id == "msg_0"
    way.server.will(message(text("Fine.")))
    assert way.result(asked("again", *PAST)).trigger is Trigger.SUCCEEDED
