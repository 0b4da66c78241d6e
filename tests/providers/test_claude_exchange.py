"""The decisions of ClaudeAgent, without the CLI: what its results mean, and what the caller hears of its messages."""

from __future__ import annotations

import builtins
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fsm._core.table import Trigger
from fsm.content import as_blocks, text_block
from fsm.errors import InvalidContent, ProviderError
from fsm.events import EXPIRED, INTERRUPTED, Event, TextDelta, ToolResult, ToolUse
from fsm.provider import Request
from fsm.providers import ClaudeAgent
from fsm.providers.claude_agent.exchange import GRACE, Exchange, check_content
from fsm.records import Message
from tests.providers.claude_way import require_sdk

RECORDED = {
    line["case"]: line["result"]
    for line in map(
        json.loads,
        (Path(__file__).parent.parent / "data" / "claude-cli-results.jsonl").read_text(encoding="utf-8").splitlines(),
    )
}
HISTORY = (
    Message(number=1, turn=1, role="user", content=(text_block("My name is Ada."),), created_at=datetime.now(UTC)),
)


def exchange(content: Any = "hello", session: str | None = None, **more: Any) -> Exchange:
    request = Request(
        key="k",
        turn=1,
        session_number=1,
        content=as_blocks(content),
        session_id=session,
        history=more.pop("history", ()),
    )
    return Exchange(request, **{"timeout": 60.0, **more})


@pytest.fixture
def sdk() -> ModuleType:
    found: ModuleType = require_sdk()
    return found


# What a result means


@pytest.mark.parametrize(
    ("case", "resumed", "fresh"),
    [
        ("an ordinary answer", (Trigger.SUCCEEDED, "success", "its"), (Trigger.SUCCEEDED, "success", "its")),
        ("resume of a session that no longer exists", (Trigger.EXPIRED, EXPIRED, "its"), None),
        ("turn limit reached", (Trigger.FAILED, "error_max_turns", "held"), (Trigger.FAILED, "error_max_turns", "its")),
        ("the API answers 429", (Trigger.FAILED, "success", "held"), (Trigger.FAILED, "success", "its")),
        ("the API answers 401", (Trigger.FAILED, "success", "held"), (Trigger.FAILED, "success", "its")),
        (
            "a person interrupts the running turn",
            (Trigger.FAILED, INTERRUPTED, "held"),
            (Trigger.FAILED, INTERRUPTED, "its"),
        ),
    ],
)
def test_what_each_recorded_result_means(case: str, resumed: Any, fresh: Any) -> None:
    """G2, G14: an id is adopted from an answer; after a failure the one that was held stays."""
    for session, expected in (("held", resumed), (None, fresh)):
        if expected is None:
            continue
        trigger, subtype, named = expected
        result = exchange(session=session).judge(RECORDED[case])
        assert (result.trigger, result.subtype) == (trigger, subtype)
        assert result.session_id == (RECORDED[case]["session_id"] if named == "its" else named)
        assert result.usage == RECORDED[case]["usage"]
        assert result.cost_usd == RECORDED[case]["total_cost_usd"]
        if trigger is not Trigger.SUCCEEDED:
            assert result.errors
            assert result.text is None


def test_every_recorded_result_is_judged() -> None:
    (judged,) = (mark.args[1] for mark in test_what_each_recorded_result_means.pytestmark if mark.args)
    assert {case for case, *_ in judged} == set(RECORDED)


def failure(status: int | None, reason: str = "api_error") -> dict[str, Any]:
    return RECORDED["the API answers 429"] | {"api_error_status": status, "terminal_reason": reason}


@pytest.mark.parametrize(
    ("status", "reason", "told"),
    [
        (400, "api_error", "API Error: 400 messages.1: `tool_use` ids were found without `tool_result` blocks"),
        (400, "prompt_too_long", "Prompt is too long"),
        (413, "prompt_too_long", "Prompt is too long"),
        (None, "prompt_too_long", "Prompt is too long"),
        (None, "blocking_limit", "Prompt is too long"),
    ],
)
def test_a_transcript_that_is_refused_ends_a_resumed_session_and_names_no_new_one(
    status: int | None, reason: str, told: str
) -> None:
    report = failure(status, reason) | {"result": told}
    resumed = exchange(session="held").judge(report)
    assert (resumed.subtype, resumed.session_id) == (EXPIRED, "held")
    fresh = exchange().judge(report)
    assert (fresh.trigger, fresh.session_id) == (Trigger.FAILED, None)
    assert fresh.subtype == ("success" if reason == "api_error" else "error_context_window")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 429, 500, 529, None])
def test_any_other_failure_of_the_api_keeps_the_session(status: int | None) -> None:
    """G14."""
    assert exchange(session="held").judge(failure(status)).session_id == "held"


def test_sessions_that_are_not_stored_have_no_name() -> None:
    for case in ("an ordinary answer", "the API answers 429"):
        assert exchange(stored=False).judge(RECORDED[case]).session_id is None


# What the CLI is told


def test_a_rebuilt_context_is_a_block_of_its_own_and_composed_by_a_program() -> None:
    """G3."""
    plain, rebuilt = exchange().message, exchange(history=HISTORY).message
    assert "client_composed" not in plain
    assert rebuilt["client_composed"] is True
    preamble, new = rebuilt["message"]["content"]
    assert "My name is Ada." in preamble["text"]
    assert new == {"type": "text", "text": "hello"}


@pytest.mark.parametrize(
    ("block", "told"),
    [
        ({"type": "tool_result", "tool_use_id": "t", "content": "3"}, "block 1 is of type 'tool_result'"),
        ({"type": "image", "source": {"type": "file", "file_id": "f"}}, "the source of block 1"),
        ({"type": "image", "source": {"type": "base64", "media_type": "image/bmp", "data": "QQ=="}}, "must be image/"),
        ({"type": "document", "source": {"type": "text", "media_type": "text/plain"}}, "must have a text 'data'"),
    ],
)
def test_content_that_the_cli_does_not_take_is_named(block: Mapping[str, Any], told: str) -> None:
    with pytest.raises(InvalidContent, match=told):
        check_content([text_block("here:"), block])


def test_content_that_the_cli_takes_is_let_through() -> None:
    check_content(
        [
            {"type": "image", "source": {"type": "url", "url": "https://x.org/a.png"}},
            {
                "type": "document",
                "title": "T",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "QQ=="},
            },
            {"type": "search_result", "source": "s", "title": "t", "content": [text_block("found")]},
        ]
    )


# What the caller hears


def event(sdk: ModuleType, kind: str, parent: str | None = None, **more: Any) -> Any:
    return sdk.StreamEvent(uuid="u", session_id="s", event={"type": kind, **more}, parent_tool_use_id=parent)


def begin(sdk: ModuleType, message_id: str, parent: str | None = None) -> Any:
    return event(sdk, "message_start", parent, message={"id": message_id})


def delta(sdk: ModuleType, said: str, parent: str | None = None, kind: str = "text_delta") -> Any:
    return event(sdk, "content_block_delta", parent, delta={"type": kind, "text": said})


def whole(sdk: ModuleType, message_id: str | None, *blocks: Any, **more: Any) -> Any:
    return sdk.AssistantMessage(content=list(blocks), model="m", message_id=message_id, **more)


def result(sdk: ModuleType, case: str = "an ordinary answer", **more: Any) -> Any:
    known = {name: value for name, value in RECORDED[case].items() if name in sdk.ResultMessage.__dataclass_fields__}
    return sdk.ResultMessage(**known | more)


def heard(turn: Exchange, *messages: Any) -> list[Event]:
    return [said for message in messages for said in turn.feed(message)]


def test_text_that_was_streamed_is_not_told_again_by_the_whole_message(sdk: ModuleType) -> None:
    messages = (begin(sdk, "m1"), delta(sdk, "Hel"), delta(sdk, ""), delta(sdk, "lo"), delta(sdk, "?", kind="thinking"))
    said = heard(exchange(), *messages, whole(sdk, "m1", sdk.TextBlock("Hello"), sdk.ThinkingBlock("?", "signed")))
    assert said == [TextDelta("Hel"), TextDelta("lo")]


def test_two_messages_of_one_turn_do_not_run_together(sdk: ModuleType) -> None:
    """The first was broken off and said again."""
    messages = (begin(sdk, "m1"), delta(sdk, "Hel"), begin(sdk, "m2"), delta(sdk, "Hel"), delta(sdk, "lo."))
    said = heard(exchange(), *messages, whole(sdk, "m3", sdk.TextBlock("Bye.")))
    assert [text.text for text in said if isinstance(text, TextDelta)] == ["Hel", "\n\nHel", "lo.", "\n\nBye."]


def test_tools_of_the_cli_and_of_the_api_are_told_with_their_answers(sdk: ModuleType) -> None:
    said = heard(
        exchange(),
        whole(sdk, "m1", sdk.ToolUseBlock("t1", "Bash", {"a": 1}), sdk.ServerToolUseBlock("t2", "advisor", {})),  # type: ignore[arg-type, unused-ignore]
        whole(sdk, "m1", sdk.ServerToolResultBlock("t2", {"type": "advisor_result"})),
        sdk.UserMessage([sdk.ToolResultBlock("t1", None, None), sdk.TextBlock("a reminder")]),
        sdk.UserMessage([sdk.ToolResultBlock("t1", [text_block("no")], True)]),
        sdk.UserMessage("a reminder"),
    )
    assert said == [
        ToolUse("t1", "Bash", {"a": 1}),
        ToolUse("t2", "advisor", {}),
        ToolResult("t2", {"type": "advisor_result"}),
        ToolResult("t1", ""),
        ToolResult("t1", [text_block("no")], is_error=True),
    ]


def test_the_inside_of_a_subagent_is_not_told(sdk: ModuleType) -> None:
    inside = (
        begin(sdk, "m1", "t1"),
        delta(sdk, "inside", "t1"),
        whole(sdk, "m1", sdk.ToolUseBlock("t2", "Bash", {}), parent_tool_use_id="t1"),
        sdk.UserMessage([sdk.ToolResultBlock("t2", "found")], parent_tool_use_id="t1"),
    )
    assert heard(exchange(), *inside) == []


def test_the_text_of_an_error_is_no_answer(sdk: ModuleType) -> None:
    turn = exchange(session="held")
    assert heard(turn, whole(sdk, "m1", sdk.TextBlock("Credit balance is too low"), error="billing_error")) == []
    heard(turn, result(sdk, "the API answers 429", api_error_status=400))
    assert turn.ended().http_status == 402
    assert turn.ended().session_id == "held"


def test_the_last_result_counts_and_agents_in_the_background_are_waited_for(sdk: ModuleType) -> None:
    turn = exchange()
    assert turn.patience == 60.0
    task = {"data": {}, "uuid": "u", "session_id": "s"}
    for kind, name in (("local_agent", "a1"), ("local_workflow", "a2"), ("local_bash", "b1")):
        started = sdk.TaskStartedMessage("task_started", task_id=name, description="d", task_type=kind, **task)
        heard(turn, started)
    heard(turn, result(sdk, result="first"))
    assert turn.patience == 60.0
    ended = {"status": "completed", "output_file": "f", "summary": "s"}
    heard(turn, sdk.TaskNotificationMessage("task_notification", task_id="a1", **ended, **task))
    heard(turn, sdk.TaskUpdatedMessage("task_updated", task_id="a2", patch={}, status="running", data={}))
    assert turn.patience == 60.0
    heard(turn, sdk.TaskUpdatedMessage("task_updated", task_id="a2", patch={}, status="completed", data={}))
    assert turn.patience == GRACE
    assert exchange(timeout=1.0).patience == 1.0
    heard(turn, result(sdk, result="second"))
    assert turn.ended().text == "second"


# Errors


def test_a_dead_session_that_is_raised_is_the_result(sdk: ModuleType) -> None:
    turn = exchange(session="held")
    turn.failed(sdk.ResultError("dead", RECORDED["resume of a session that no longer exists"], 1))
    assert turn.ended().trigger is Trigger.EXPIRED
    turn.failed(sdk.ProcessError("exit code 1", 1))
    assert turn.ended().trigger is Trigger.EXPIRED


def test_an_interrupt_that_is_raised_is_the_result(sdk: ModuleType) -> None:
    turn = exchange(session="held")
    turn.failed(sdk.ResultError("stopped", RECORDED["a person interrupts the running turn"], 1))
    assert (turn.ended().subtype, turn.ended().session_id) == (INTERRUPTED, "held")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda sdk: sdk.CLINotFoundError("Claude Code not found", "claude"), "the Claude CLI was not found"),
        (lambda sdk: sdk.CLIConnectionError("no pipe\nsecret"), r"can't be run \(no pipe\); check"),
        (lambda sdk: sdk.ProcessError("failed", exit_code=7, stderr="secret"), "exited with code 7 before"),
        (lambda sdk: sdk.ResultError("failed", exit_code=1), "exited with code 1 before"),
        (lambda sdk: sdk.CLIJSONDecodeError("secret", ValueError("secret")), "SDK raised CLIJSONDecodeError"),
        (lambda sdk: TimeoutError(), "was silent for 60 seconds and was stopped; if its tools need longer"),
        (lambda sdk: Exception("secret"), "SDK raised Exception"),
    ],
)
def test_an_error_says_what_happened_and_never_what_was_said(
    sdk: ModuleType, make: Callable[[ModuleType], Exception], told: str
) -> None:
    error = make(sdk)
    with pytest.raises(ProviderError, match=told) as raised:
        exchange().failed(error)
    assert "secret" not in str(raised.value)
    assert raised.value.key == "k"
    assert raised.value.__cause__ is error


def test_a_cli_that_exits_without_a_result_is_an_error() -> None:
    with pytest.raises(ProviderError, match="conversation 'k': the Claude CLI exited without a result"):
        exchange().ended()


def test_without_the_sdk_the_constructor_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    there = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "claude_agent_sdk":
            raise ModuleNotFoundError(name)
        return there(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ProviderError, match=r"pip install 'conversation-fsm\[claude-agent\]'"):
        ClaudeAgent()
