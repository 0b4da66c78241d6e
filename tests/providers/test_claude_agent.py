"""The Claude Agent SDK as a provider, with the real CLI that the SDK bundles."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import threading
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import anyio
import pytest

from fsm import State, TurnStatus
from fsm.content import as_blocks
from fsm.errors import InvalidContent, ProviderError
from fsm.events import EXPIRED, TextDelta, ToolResult, ToolUse
from fsm.provider import Request
from fsm.providers import ClaudeAgent
from fsm.testing import check_provider
from tests.providers.claude_way import KEY, WAYS, Claude, Talk, echo, environment, heard, no_cli, require_sdk, text_of
from tests.providers.messages_server import (
    Answer,
    begun,
    error,
    message,
    streamed,
    text,
    tool_use,
)

sdk = require_sdk()

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"

pytestmark = pytest.mark.timeout(120)

ENDLESS = Answer(events=(*begun("msg_endless"), *streamed(text("Once upon a time."))[:2]), then="wait")
"""An answer that begins and never ends."""


def request(content: Any = "hello", session: str | None = None, turn: int = 1) -> Request:
    return Request(key=KEY, turn=turn, session_number=1, content=as_blocks(content), session_id=session)


# The story


def test_the_how_to_runs_as_its_page_shows(claude: Claude) -> None:
    """It runs in another process, as its reader runs it."""
    script = DOCS / "examples/claude/use_claude_agent.py"
    page = (DOCS / "how-to/use-the-claude-agent-sdk.md").read_text(encoding="utf-8")
    claude.server.will(
        *(message(text(said), id=f"msg_{said}") for said in ("Hello, Ada.", "Ada.", "Still Ada.")), ENDLESS
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=claude.home,
        env={**os.environ, **environment(claude.home, claude.server), "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == script.with_suffix(".txt").read_text(encoding="utf-8")
    assert "No conversation found with session ID" in done.stderr  # the CLI says it itself
    assert f"examples/claude/{script.name}" in page


@pytest.mark.parametrize(
    ("way", "read"), [("sync", "batch"), ("sync", "stream"), ("asyncio", "stream"), ("trio", "batch")]
)
def test_a_session_that_died_with_its_container_is_healed_within_the_turn(
    way: str, read: str, claude: Claude, capfd: pytest.CaptureFixture[str]
) -> None:
    """G3."""
    talk = Talk(claude, way, read)
    for line in ("My name is Ada.", "I live in Turin."):
        _, reply = talk.say(line)
        assert (reply.state, reply.healed, reply.status) == (State.ACTIVE, False, TurnStatus.SUCCEEDED)
    assert heard(claude.server.received[1]) == [
        "user: My name is Ada.",
        "assistant: Answer 1.",
        "user: I live in Turin.",
    ]
    claude.lose_sessions()
    events, reply = talk.say("Who am I?")
    assert (reply.state, reply.healed, reply.text) == (State.ACTIVE, True, "Answer 3.")
    assert read == "batch" or text_of(events) == "Answer 3."
    assert "No conversation found with session ID" in capfd.readouterr().err
    assert len(claude.server.received) == 3
    preamble, new = heard(claude.server.received[2])
    inside = preamble.partition("<conversation-history boundary=")[2].partition("</conversation-history boundary=")[0]
    assert new == "user: Who am I?"
    for said in ("My name is Ada.", "Answer 1.", "I live in Turin.", "Answer 2."):
        assert inside.count(said) == str(claude.server.received[2]).count(said) == 1
    assert claude.log() == [State.FRESH, State.ACTIVE, State.ACTIVE, State.STALE, State.FRESH, State.ACTIVE]
    first, second = claude.sessions()
    assert None is not first != second is not None
    talk.say("And where?")
    assert heard(claude.server.received[3])[-2:] == ["assistant: Answer 3.", "user: And where?"]


def test_without_healing_the_turn_fails_and_the_next_one_begins_a_session(claude: Claude) -> None:
    talk = Talk(claude, "asyncio")
    talk.say("My name is Ada.")
    claude.lose_sessions()
    events, reply = talk.say("Who am I?", heal=False)
    assert (reply.state, reply.status, reply.text) == (State.STALE, TurnStatus.FAILED, "")
    assert reply.result is not None
    assert (reply.result.subtype, len(events)) == (EXPIRED, 1)
    assert "No conversation found with session ID" in reply.result.errors[0]
    _, reply = talk.say("Hello?", heal=False)
    assert (reply.state, reply.status) == (State.ACTIVE, TurnStatus.SUCCEEDED)
    assert "My name is Ada." in heard(claude.server.received[1])[0]
    assert claude.log() == [State.FRESH, State.ACTIVE, State.STALE, State.FRESH, State.ACTIVE]


def test_an_id_that_the_cli_does_not_even_read_is_reported_dead(claude: Claude) -> None:
    """G2."""
    (result,) = claude.agent().stream(request(session="not-a-uuid"))
    assert result.trigger.value == "expired"  # type: ignore[union-attr]


# A person's interrupt


@pytest.mark.parametrize("way", WAYS)
def test_a_caller_that_leaves_in_mid_stream_interrupts_the_cli_and_the_session_lives(way: str, claude: Claude) -> None:
    """G14: the CLI stores what it said and that it was interrupted, and goes on from there."""
    talk = Talk(claude, way)
    talk.say("hello")
    claude.server.will(ENDLESS)
    _, reply = talk.say("Tell me a story.", until=lambda event: isinstance(event, TextDelta))
    assert (reply.status, reply.state, reply.text) == (TurnStatus.INTERRUPTED, State.ACTIVE, "Once upo")
    assert no_cli()
    assert claude.server.left.wait(10)
    _, reply = talk.say("Go on.")
    assert (reply.status, reply.healed) == (TurnStatus.SUCCEEDED, False)
    assert heard(claude.server.received[-1])[:5] == [
        "user: hello",
        "assistant: Answer 1.",
        "user: Tell me a story.",
        "assistant: Once upo",
        "user: [Request interrupted by user]",
    ]
    assert heard(claude.server.received[-1])[-1] == "user: Go on."
    assert len(claude.sessions()) == 1


def test_a_first_turn_that_is_interrupted_leaves_the_conversation_fresh(claude: Claude) -> None:
    talk = Talk(claude, "sync")
    claude.server.will(ENDLESS)
    _, reply = talk.say("Tell me a story.", until=lambda event: isinstance(event, TextDelta))
    assert (reply.status, reply.state, reply.text) == (TurnStatus.INTERRUPTED, State.FRESH, "Once upo")
    _, reply = talk.say("hello")
    assert (reply.state, reply.status) == (State.ACTIVE, TurnStatus.SUCCEEDED)
    assert heard(claude.server.received[-1]) == ["user: hello"]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_cancelled_turn_leaves_nothing_running(backend: str, claude: Claude) -> None:
    claude.server.will(ENDLESS)

    async def cancel() -> list[Any]:
        events = []
        with anyio.CancelScope() as scope:
            async with aclosing(claude.agent().astream(request())) as stream:
                async for event in stream:
                    events.append(event)
                    scope.cancel()
        assert scope.cancelled_caught
        return events

    assert anyio.run(cancel, backend=backend) == [TextDelta("Once upo")]
    assert no_cli()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_turn_that_is_cancelled_while_the_cli_starts_leaves_nothing_running(backend: str, claude: Claude) -> None:
    async def cancel() -> None:
        with anyio.move_on_after(0.1):
            async with aclosing(claude.agent().astream(request())) as stream:
                await anext(stream)

    anyio.run(cancel, backend=backend)
    assert no_cli()


def test_a_stop_by_a_permission_callback_is_an_interrupt_and_keeps_the_session(claude: Claude) -> None:
    """The SDK calls it in the thread that owns the event loop."""
    asked = []

    async def stop(name: str, given: dict[str, Any], context: Any) -> Any:
        asked.append((name, threading.current_thread() is threading.main_thread()))
        return sdk.PermissionResultDeny(message="Not now.", interrupt=True)

    claude.server.will(message(tool_use("toolu_1", "Bash", command="touch made"), stop="tool_use"))
    reply = claude.one("Make it.", can_use_tool=stop)
    assert asked == [("Bash", False)]
    assert (reply.status, reply.state) == (TurnStatus.INTERRUPTED, State.ACTIVE)
    assert not (claude.home / "made").exists()
    reply = claude.one("hello")
    assert (reply.status, reply.healed) == (TurnStatus.SUCCEEDED, False)
    assert len(claude.sessions()) == 1


# A CLI that is missing, dies or hangs


def pid_of_cli() -> int:
    for entry in Path("/proc").iterdir():
        try:
            status = (entry / "stat").read_text()
        except OSError:
            continue
        if status.partition("(")[2].startswith("claude)") and f" {os.getpid()} " in status.partition(")")[2]:
            return int(entry.name)
    raise AssertionError("no CLI is running")


def test_a_cli_that_is_killed_in_mid_turn_interrupts_the_turn(claude: Claude) -> None:
    claude.send("hello")
    claude.server.will(ENDLESS)
    with claude.manager() as manager, pytest.raises(ProviderError) as raised, manager.stream(KEY, "more") as turn:
        for _ in turn:
            os.kill(pid_of_cli(), signal.SIGKILL)
    assert str(raised.value) == (
        "conversation 'ticket-42': the Claude CLI exited with code -9 before it had answered; see its stderr. "
        "The turn is interrupted and the conversation takes the next message"
    )
    assert raised.value.reply is not None
    assert (raised.value.reply.text, raised.value.reply.state) == ("Once upo", State.ACTIVE)
    assert claude.send("hello again")[0].healed is False
    assert claude.statuses() == ["succeeded", "interrupted", "succeeded"]


def test_a_cli_that_falls_silent_is_stopped_and_its_session_lives(claude: Claude) -> None:
    claude.send("hello")
    claude.server.will(ENDLESS)
    told = claude.fails("more", claude.agent(timeout=2.0))
    assert "the Claude CLI was silent for 2 seconds and was stopped" in str(told)
    assert claude.server.left.wait(10)
    claude.send("hello again")
    assert "user: [Request interrupted by user]" in heard(claude.server.received[-1])
    assert claude.statuses() == ["succeeded", "interrupted", "succeeded"]


def test_a_cli_that_never_says_a_word_is_stopped(claude: Claude) -> None:
    mute = claude.home / "mute"
    mute.write_text("#!/bin/sh\nexec cat >/dev/null\n")
    mute.chmod(0o755)
    assert "was silent for 0.5 seconds" in str(claude.fails("hello", claude.agent(timeout=0.5, cli_path=mute)))
    assert claude.send("hello")[0].status is TurnStatus.SUCCEEDED


def test_a_cli_that_listens_to_nothing_is_killed(claude: Claude, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsm.providers.claude_agent.provider.STOPPING", 0.1)
    claude.server.will(ENDLESS)
    with closing(claude.agent().stream(request())) as stream:
        next(stream)
        os.kill(pid_of_cli(), signal.SIGSTOP)
    assert no_cli()


def test_a_cli_that_is_missing_says_what_to_do(claude: Claude) -> None:
    told = claude.fails("hello", claude.agent(cli_path=claude.home / "nowhere"))
    assert "the Claude CLI was not found; check options.cli_path" in str(told)
    assert claude.statuses() == ["interrupted"]
    assert claude.send("hello")[0].state is State.ACTIVE


def test_a_working_directory_that_is_missing_is_named(claude: Claude) -> None:
    told = claude.fails("hello", claude.agent(cwd=claude.home / "nowhere"))
    assert f"(Working directory does not exist: {claude.home}/nowhere)" in str(told)


def test_a_cli_that_exits_at_once_is_told(claude: Claude, capfd: pytest.CaptureFixture[str]) -> None:
    told = claude.fails("hello", claude.agent(extra_args={"no-such-argument": None}))
    assert "the Claude CLI exited with code 1 before it had answered; see its stderr" in str(told)
    assert "no-such-argument" in capfd.readouterr().err


def test_an_error_of_the_sdk_without_a_name_is_told_by_its_type(claude: Claude) -> None:
    told = claude.fails("hello", claude.agent(skills=["a,b"]))
    assert "the Claude Agent SDK raised ValueError" in str(told)
    assert told.__cause__ is not None


# Errors of the API


def test_errors_of_the_api_are_failures_and_keep_the_session(claude: Claude) -> None:
    """G14."""
    claude.send("hello")
    for status, kind in ((429, "rate_limit_error"), (500, "api_error"), (529, "overloaded_error")):
        claude.server.will(error(status, kind))
        (reply,) = claude.send("more")
        assert (reply.status, reply.state, reply.text) == (TurnStatus.FAILED, State.ACTIVE, "")
        assert reply.result is not None
        assert (reply.result.subtype, reply.result.http_status) == ("success", status)
        assert "told by the API" in reply.result.errors[0]
    claude.server.otherwise = lambda _: error(401, "authentication_error")
    assert "not logged in" in claude.send("more")[0].summary
    echo(claude.server)
    (reply,) = claude.send("once more")
    assert (reply.status, reply.healed) == (TurnStatus.SUCCEEDED, False)
    assert len(claude.sessions()) == 1
    assert heard(claude.server.received[-1])[0] == "user: hello"


def test_a_first_turn_that_failed_names_a_session_that_can_be_resumed(claude: Claude) -> None:
    claude.server.will(error(429, "rate_limit_error"))
    (reply,) = claude.send("My name is Ada.")
    assert (reply.status, reply.state) == (TurnStatus.FAILED, State.ACTIVE)
    (reply,) = claude.send("Who am I?")
    assert (reply.status, reply.healed) == (TurnStatus.SUCCEEDED, False)
    assert heard(claude.server.received[-1]) == ["user: My name is Ada.", "user: Who am I?"]


@pytest.mark.parametrize("told", ["messages.1: tool_use ids were found without tool_result", "prompt is too long"])
def test_a_session_whose_transcript_is_refused_is_healed(claude: Claude, told: str) -> None:
    """It would be refused for as long as it is resumed; G11."""
    claude.send("My name is Ada.")
    claude.server.otherwise = lambda asked: (
        message(text("Ada."))
        if "conversation-history boundary" in str(asked)
        else error(400, "invalid_request_error", told)
    )
    (reply,) = claude.send("Who am I?")
    assert (reply.status, reply.healed, reply.text) == (TurnStatus.SUCCEEDED, True, "Ada.")
    assert len(claude.sessions()) == 2


def test_an_account_without_credit_costs_no_session(claude: Claude) -> None:
    claude.send("hello")
    claude.server.will(error(400, "invalid_request_error", "Your credit balance is too low to access the API."))
    (reply,) = claude.send("more")
    assert (reply.status, reply.state) == (TurnStatus.FAILED, State.ACTIVE)
    assert "run out of credit" in reply.summary
    assert len(claude.sessions()) == 1


# What is passed through


def test_tools_are_run_by_the_cli_and_their_answers_are_events(claude: Claude) -> None:
    claude.server.will(
        message(text("I look."), tool_use("toolu_1", "Bash", command="echo found"), stop="tool_use", id="msg_look"),
        message(text("It is there."), id="msg_there"),
    )
    talk = Talk(claude, "asyncio")
    events, reply = talk.say("Where?", allowed_tools=["Bash"])
    assert ToolUse("toolu_1", "Bash", {"command": "echo found"}) in events
    assert ToolResult("toolu_1", "found") in events
    assert reply.text == "I look.\n\nIt is there."
    assert reply.result is not None
    assert reply.result.stop_reason == "end_turn"
    assert reply.result.usage is not None
    assert reply.result.usage["output_tokens"] == 10
    assert reply.result.cost_usd is not None
    with claude.manager() as manager:
        history = manager.conversations.messages(KEY)
    assert [said.role for said in history] == ["user", "assistant", "user", "assistant"]
    assert [block["type"] for block in history[1].content] == ["text", "tool_use"]


def test_a_limit_of_turns_is_a_failure_that_keeps_the_session(claude: Claude) -> None:
    claude.server.will(message(tool_use("toolu_1", "Bash", command="echo found"), stop="tool_use"))
    reply = claude.one("Where?", allowed_tools=["Bash"], max_turns=1)
    assert reply.result is not None
    assert (reply.result.subtype, reply.state) == ("error_max_turns", State.ACTIVE)
    reply = claude.one("Go on.", allowed_tools=["Bash"])
    assert (reply.status, reply.healed) == (TurnStatus.SUCCEEDED, False)
    assert any("found" in said for said in heard(claude.server.received[-1]))


def test_an_answer_that_no_model_gave_is_the_reply_too(claude: Claude) -> None:
    (reply,) = claude.send("/cost")
    assert "Total duration" in reply.text
    assert claude.server.received == []
    assert claude.send("hello")[0].healed is False


def test_an_answer_that_was_not_streamed_is_told_once(claude: Claude) -> None:
    """The CLI asks again without streaming when a stream fails."""
    failing = (*begun("msg_1"), *streamed(text("Once upon."))[:2], {"type": "error", "error": {"type": "api_error"}})
    whole = {"id": "msg_2", "type": "message", "role": "assistant", "model": "m", "content": [text("Whole.")]}
    whole |= {"stop_reason": "end_turn", "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1}}

    def answer(asked: dict[str, Any]) -> Answer:
        return Answer(events=failing) if asked.get("stream") else Answer(203, whole)

    claude.server.otherwise = answer
    (reply,) = claude.send("hello")
    assert reply.status is TurnStatus.SUCCEEDED
    assert reply.text.endswith("Whole.")
    assert reply.text.count("Whole.") == 1


def test_the_options_reach_the_cli_and_are_not_changed(claude: Claude) -> None:
    options = claude.options(model="claude-test-model", system_prompt="Be kind.", tools=["Read"])
    before = copy.copy(options)
    assert claude.send("hello", provider=ClaudeAgent(options))[0].state is State.ACTIVE
    claude.send("again", provider=ClaudeAgent(options))
    assert options == before
    for asked in claude.server.received:
        assert asked["model"] == "claude-test-model"
        assert "Be kind." in str(asked["system"])
        names = {tool["name"] for tool in asked["tools"]}
        assert "Read" in names
        assert "Bash" not in names


def test_a_tool_of_the_application_is_called_in_its_process(claude: Claude) -> None:
    called = []

    @sdk.tool("add", "Add two numbers", {"a": int, "b": int})  # type: ignore[untyped-decorator, unused-ignore]
    async def add(given: dict[str, Any]) -> dict[str, Any]:
        called.append(given)
        return {"content": [text(str(given["a"] + given["b"]))]}

    server = sdk.create_sdk_mcp_server("sums", tools=[add])
    claude.server.will(message(tool_use("toolu_1", "mcp__sums__add", a=1, b=2), stop="tool_use"))
    reply = claude.one("1+2?", mcp_servers={"sums": server}, allowed_tools=["mcp__sums__add"])
    assert reply.status is TurnStatus.SUCCEEDED
    assert called == [{"a": 1, "b": 2}]


def test_sessions_that_the_cli_does_not_keep_are_not_named(claude: Claude) -> None:
    for line in ("My name is Ada.", "Who am I?"):
        reply = claude.one(line, extra_args={"no-session-persistence": None})
        assert (reply.status, reply.state) == (TurnStatus.SUCCEEDED, State.FRESH)
    assert "My name is Ada." in heard(claude.server.received[-1])[0]
    assert claude.sessions() == [None]


def test_a_message_with_a_rebuilt_context_is_delivered_as_written(claude: Claude) -> None:
    """The CLI reads what is mentioned as @path, and runs commands; in a rebuilt context anybody may have said it."""
    secret = claude.home / "secret.txt"
    secret.write_text("xyzzy")
    claude.send(f"Never look at @{secret}")
    assert "xyzzy" in str(claude.server.received.pop()), "if the CLI reads no such files any more, this test is void"
    claude.lose_sessions()
    (reply,) = claude.send("/cost")
    assert reply.healed
    (asked,) = claude.server.received
    preamble, new = heard(asked)
    assert str(secret) in preamble
    assert new == "user: /cost"
    assert "xyzzy" not in str(asked)


# Content

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def test_images_and_documents_reach_the_model(claude: Claude) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    document = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "A fact."}}
    assert claude.send([text("Look:"), image, document])[0].status is TurnStatus.SUCCEEDED
    sent = str(claude.server.received[0]["messages"])
    assert "'media_type': 'image/png'" in sent
    assert "A fact." in sent


def test_content_that_the_cli_would_drop_is_refused_before_the_turn_begins(claude: Claude) -> None:
    with claude.manager() as manager:
        with pytest.raises(
            InvalidContent, match="block 1 is of type 'tool_result', which the Claude CLI does not take"
        ):
            manager.send(KEY, [text("here:"), {"type": "tool_result", "tool_use_id": "t1", "content": "3"}])
        assert manager.conversations.list() == []
    assert claude.server.received == []


# The contracts of every provider


def test_it_keeps_the_contracts_of_a_provider(claude: Claude) -> None:
    report = check_provider(claude.agent)
    assert report.skipped == ()
