"""G22: a session is dead only by evidence about it. Each line of the reference is run; the bundled CLI is watched."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest

from fsm import State, TurnStatus
from fsm._core.table import Trigger
from fsm.content import as_blocks
from fsm.events import EXPIRED, INTERRUPTED, Result
from fsm.provider import Request
from fsm.providers.claude_agent.exchange import Exchange
from fsm.providers.claude_agent.results import REASONS
from tests.providers.claude_way import Claude, heard, require_sdk
from tests.providers.messages_server import error, message, text

pytestmark = pytest.mark.thorough

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "reference" / "dead" / "claude-agent.md"
LINES = [
    [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in PAGE.read_text(encoding="utf-8").splitlines()
    if line.startswith("|")
][2:]
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}


def judged(report: dict[str, Any], session: str | None) -> Result:
    return Exchange(
        Request(key="k", turn=1, session_number=1, content=as_blocks("hello"), session_id=session), timeout=60.0
    ).judge(report)


def called(result: Result, named: str) -> str:
    """The name of such a result on the page."""
    if result.trigger is Trigger.EXPIRED:
        return "**dead**"
    if result.session_id is None:
        return f"`{result.subtype}`" if result.subtype == "error_context_window" else "no name"
    assert result.session_id == named
    if result.trigger is Trigger.SUCCEEDED:
        return "succeeded"
    return "interrupted" if result.subtype == INTERRUPTED else "lives"


@pytest.mark.parametrize("line", LINES, ids=lambda line: " ".join(line)[:70])
def test_a_line_of_the_reference_holds(line: list[str]) -> None:
    reason, subtype, status, told, resumed, fresh = line
    report: dict[str, Any] = {"subtype": subtype.strip("`"), "session_id": "its", "result": told, "usage": {}}
    report["is_error"] = not any(word in {"succeeded", "interrupted"} for word in (resumed, fresh))
    report |= {"terminal_reason": reason.strip("`")} if reason else {}
    report |= {"api_error_status": int(status)} if status else {}
    if subtype == "`error_during_execution`":
        report |= {"result": None, "errors": [told]}
    held = "its" if resumed == "succeeded" else "held"
    assert called(judged(report, "held"), held) == resumed
    assert called(judged(report, None), "its") == fresh


def test_every_reason_has_a_line() -> None:
    assert {line[0].strip("`") for line in LINES} - {""} == set(REASONS)


def bundled_reasons() -> set[str]:
    """Each ``terminal_reason`` that the bundled CLI knows, read from the program."""
    folder = Path(require_sdk().__file__).parent / "_bundled"
    (program,) = (path for path in folder.iterdir() if path.name in {"claude", "claude.exe"})
    listed = re.search(
        rb'=(\["blocking_limit"[^\]]*\]),\w+=(\[[^\]]*\]),\w+=\[\.\.\.\w+,\.\.\.\w+\]', program.read_bytes()
    )
    assert listed, "the CLI lists its reasons in another way; look for terminal_reason in it"
    return {name.decode() for part in listed.groups() for name in re.findall(rb'"(\w+)"', part)}


def test_the_bundled_cli_knows_no_other_reason() -> None:
    """A new one turns this red: find out whether it repeats for as long as the session is resumed; write it down."""
    assert bundled_reasons() == set(REASONS)


def anything(chance: random.Random, depth: int = 0) -> Any:
    kinds = [
        None,
        True,
        False,
        0,
        -1,
        400,
        413,
        2**70,
        1.5,
        float("nan"),
        "",
        "x" * 600,
        "a\0b",
        "\ud800",
        "messages.1",
    ]
    if depth < 2 and chance.random() < 0.3:
        inner = [anything(chance, depth + 1) for _ in range(chance.randrange(3))]
        return inner if chance.random() < 0.5 else {f"k{number}": value for number, value in enumerate(inner)}
    return chance.choice(kinds)


def random_error(chance: random.Random) -> dict[str, Any]:
    """A report of an error that nobody foresaw."""
    words = [
        "quota",
        "session",
        "messages",
        "expired",
        "context",
        "limit",
        "gone",
        "tool",
        "not",
        "found",
        "too",
        "long",
    ]
    sentence = " ".join(chance.sample(words, 5))
    report: dict[str, Any] = {
        "subtype": chance.choice(["success", EXPIRED, "error_new", f"error_{sentence[:9]}"]),
        "is_error": True,
        "session_id": "its",
        "terminal_reason": chance.choice([None, "quota_gone", "session_limit", "".join(chance.sample(words, 2))]),
        "api_error_status": chance.choice([None, *range(400, 430), 500, 503, 529, 999]),
        "result": chance.choice([None, sentence, f"API Error: 400 {sentence}", f"<html>{sentence}</html>"]),
        "errors": chance.choice([None, [sentence], sentence, []]),
        "usage": {},
    }
    for name in chance.sample(sorted(report), chance.randrange(4)):
        report[name] = anything(chance)
    for name in chance.sample(sorted(report), chance.randrange(3)):
        del report[name]
    return report


@pytest.mark.parametrize("seed", range(200))
def test_an_error_that_nobody_foresaw_is_never_dead(seed: int) -> None:
    """Whatever its fields are: nothing is raised, and the session that was held is still named."""
    report = random_error(random.Random(seed))
    result = judged(report, "held")
    assert result.trigger is not Trigger.EXPIRED, report
    if result.trigger is Trigger.FAILED:
        assert result.session_id == "held"


# With the real CLI: what was refused, and what becomes of the session


@pytest.mark.parametrize(
    "told",
    [
        "messages.2.content.1.image.source.base64: image exceeds 5 MB maximum: 5316852 bytes > 5242880 bytes",
        "messages.2.content.1.image.source.base64.data: Could not process image",
    ],
)
def test_an_image_that_is_refused_costs_no_session(told: str, claude: Claude) -> None:
    """The CLI takes it out, and asks again within the turn."""
    claude.send("My name is Ada.")
    claude.server.otherwise = lambda asked: (
        error(400, "invalid_request_error", told) if PIXEL in str(asked) else message(text("No image."), id="msg_no")
    )
    for line in ([text("Look:"), IMAGE], "And now?"):
        (reply,) = claude.send(line)
        assert (reply.status, reply.healed) == (TurnStatus.SUCCEEDED, False)
    assert heard(claude.server.received[-1])[0] == "user: My name is Ada."
    assert len(claude.sessions()) == 1


@pytest.mark.parametrize(
    ("status", "kind", "told"),
    [
        (400, "invalid_request_error", "Output blocked by content filtering policy"),
        (400, "invalid_request_error", "max_tokens: 32000 > 8192, which is the maximum for this model"),
        (400, "invalid_request_error", "Unexpected value(s) `foo-2099` for the `anthropic-beta` header."),
        (400, "invalid_request_error", "You have reached your specified API usage limits."),
        (404, "not_found_error", "model: claude-nothing-9"),
        (413, "request_too_large", "Request exceeds the maximum size"),
        (422, "invalid_request_error", "unprocessable"),
    ],
)
def test_a_refusal_that_is_not_about_the_transcript_costs_no_session(
    status: int, kind: str, told: str, claude: Claude
) -> None:
    claude.send("My name is Ada.")
    usual = claude.server.otherwise
    claude.server.otherwise = lambda _: error(status, kind, told)
    (reply,) = claude.send("Who am I?")
    assert (reply.status, reply.state, reply.healed) == (TurnStatus.FAILED, State.ACTIVE, False)
    claude.server.otherwise = usual
    (reply,) = claude.send("And now?")
    assert (reply.status, reply.healed) == (TurnStatus.SUCCEEDED, False)
    assert heard(claude.server.received[-1])[0] == "user: My name is Ada."
    assert len(claude.sessions()) == 1


def full(tokens: int) -> Any:
    """An answer whose usage says that the context holds so many tokens."""
    answer = message(text("It is full now."), id="msg_full")
    for event in answer.events:
        usage = {"input_tokens": tokens, "output_tokens": 5}
        if event["type"] == "message_start":
            event["message"]["usage"] = usage
        if event["type"] == "message_delta":
            event["usage"] = usage
    return answer


def test_a_session_that_the_cli_calls_full_is_healed_within_the_turn(claude: Claude) -> None:
    """``blocking_limit``: the CLI asks nobody, now and on every later turn."""
    options = {"model": "claude-haiku-4-5", "env": {"DISABLE_AUTO_COMPACT": "1"}}
    claude.one("My name is Ada.", **options)
    claude.server.will(full(199_000))
    claude.one("I live in Turin.", **options)
    reply = claude.one("Who am I?", **options)
    assert (reply.status, reply.healed) == (TurnStatus.SUCCEEDED, True)
    assert "I live in Turin." in heard(claude.server.received[-1])[0]
    assert claude.one("And now?", **options).healed is False


def test_a_new_session_that_is_refused_for_its_size_says_so_and_has_no_name(claude: Claude) -> None:
    claude.server.otherwise = lambda _: error(400, "invalid_request_error", "prompt is too long: 2 tokens > 1 maximum")
    (*_, result) = claude.agent().stream(Request(key="k", turn=1, session_number=1, content=as_blocks("hello")))
    assert isinstance(result, Result)
    assert (result.subtype, result.session_id) == ("error_context_window", None)
