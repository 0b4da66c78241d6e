"""Messages of the Claude CLI other than results: stops by hooks, lost writes, background tasks, other sessions."""

from __future__ import annotations

import logging
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from fsm import State, TurnStatus
from fsm.content import as_blocks
from fsm.events import EXPIRED, INTERRUPTED, Result, TextDelta
from fsm.provider import Request
from fsm.providers import ClaudeAgent
from fsm.providers.claude_agent.exchange import Exchange
from tests.providers.claude_way import KEY, Claude, Talk, heard, require_sdk
from tests.providers.fake_cli import fake_cli, said
from tests.providers.messages_server import Answer, message, text, tool_use

sdk = require_sdk()

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(120)]


# Hooks


async def block(*_: Any) -> dict[str, Any]:
    return {"decision": "block", "reason": "Not in this house."}


async def stop(*_: Any) -> dict[str, Any]:
    return {"continue_": False, "stopReason": "A policy."}


@pytest.mark.parametrize("way", ["sync", "trio"])
@pytest.mark.parametrize(
    ("event", "hook", "kept"),
    [
        ("UserPromptSubmit", block, ""),
        ("UserPromptSubmit", stop, ""),
        ("PreToolUse", stop, "I look."),
        ("PostToolUse", stop, "I look."),
        ("Stop", stop, "I look.\n\nThere."),
    ],
)
def test_a_turn_that_a_hook_stops_is_interrupted_and_the_text_of_the_hook_is_no_answer(
    event: str, hook: Any, kept: str, way: str, claude: Claude
) -> None:
    claude.send("hello")

    def answer(asked: dict[str, Any]) -> Answer:
        if "toolu_1" in str(asked["messages"]):
            return message(text("There."), id="msg_there")
        call = tool_use("toolu_1", "Bash", command="echo found")
        return message(text("I look."), call, stop="tool_use", id="msg_look")

    usual, claude.server.otherwise = claude.server.otherwise, answer
    hooks = {event: [sdk.HookMatcher(hooks=[hook])]}
    events, reply = Talk(claude, way).say("My secret word is xyzzy.", hooks=hooks, allowed_tools=["Bash"])
    assert (reply.status, reply.state, reply.text) == (TurnStatus.INTERRUPTED, State.ACTIVE, kept)
    assert reply.summary == "The answer was stopped."
    result = events[-1]
    assert isinstance(result, Result)
    assert result.subtype == INTERRUPTED
    assert "xyzzy" not in str(result.errors)
    claude.server.otherwise = usual
    (reply,) = claude.send("And now?")
    assert (reply.status, reply.healed) == (TurnStatus.SUCCEEDED, False)
    assert heard(claude.server.received[-1])[0] == "user: hello"
    assert len(claude.sessions()) == 1


def test_a_first_turn_that_a_hook_stops_does_not_lose_the_conversation(claude: Claude) -> None:
    reply = claude.one("hello", hooks={"UserPromptSubmit": [sdk.HookMatcher(hooks=[block])]})
    assert (reply.status, reply.text) == (TurnStatus.INTERRUPTED, "")
    (reply,) = claude.send("hello")
    assert (reply.status, reply.healed) == (TurnStatus.SUCCEEDED, False)


def test_a_hook_that_lets_the_model_go_on_stops_nothing(claude: Claude) -> None:
    asked = []

    async def once(*_: Any) -> dict[str, Any]:
        asked.append(1)
        return {"decision": "block", "reason": "go on"} if len(asked) == 1 else {}

    reply = claude.one("hello", hooks={"Stop": [sdk.HookMatcher(hooks=[once])]})
    assert (reply.status, reply.text) == (TurnStatus.SUCCEEDED, "Answer 1.\n\nAnswer 2.")


def test_a_turn_that_went_on_to_its_end_was_not_stopped() -> None:
    turn = exchange()
    turn.feed(system("informational", prevent_continuation=True))
    turn.feed(success(terminal_reason="completed", result="Hello."))
    assert (turn.ended().text, turn.ended().trigger.value) == ("Hello.", "succeeded")


# Lost writes


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few hundred kilobytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("it needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    path = folder / "fill"
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    with suppress(OSError):
        while True:
            os.write(file, b"x" * 1024)
    os.close(file)
    return path


def test_a_session_that_a_full_disk_cut_short_is_not_resumed(
    claude: Claude, small: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The turn that could not be stored is told to the next session."""
    options = {"env": {"CLAUDE_CONFIG_DIR": str(small)}}
    claude.one("My name is Ada.", **options)
    filled = fill(small)
    reply = claude.one("I live in Turin.", **options)
    assert reply.status is TurnStatus.SUCCEEDED
    assert reply.result is not None
    assert reply.result.session_id is None
    (record,) = (record for record in caplog.records if record.message == "provider.writes_lost")
    assert vars(record).items() >= {"conversation": KEY, "turn": 2, "error_code": "ENOSPC"}.items()
    filled.unlink()
    reply = claude.one("Who am I?", **options)
    assert (reply.status, reply.healed) == (TurnStatus.SUCCEEDED, True)
    assert "I live in Turin." in heard(claude.server.received[-1])[0]


def exchange(session: str | None = None) -> Exchange:
    return Exchange(
        Request(key=KEY, turn=1, session_number=1, content=as_blocks("hello"), session_id=session), timeout=60.0
    )


def system(subtype: str, **data: Any) -> Any:
    return sdk.SystemMessage(subtype=subtype, data={"type": "system", "subtype": subtype, "session_id": "s", **data})


def success(session: str = "s", **more: Any) -> Any:
    fields = {"subtype": "success", "duration_ms": 1, "duration_api_ms": 1, "is_error": False, "num_turns": 1}
    return sdk.ResultMessage(session_id=session, **fields | more)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    ("lost", "named"),
    [
        (system("session_writes_lost", lost=["transcript"], transcript_session_ids=["s"]), None),
        (system("session_writes_lost", lost=["transcript", "global_config"]), None),
        (system("session_writes_lost", lost=["transcript"], transcript_session_ids=["other"]), "s"),
        (system("session_writes_lost", lost=["global_config"]), "s"),
        (sdk.MirrorErrorMessage("mirror_error", {"session_id": "s"}, key=None, error="e"), None),
    ],
)
def test_a_session_is_named_only_if_all_of_it_is_stored(lost: Any, named: str | None, late: bool) -> None:
    turn = exchange()
    for fed in (success(), lost) if late else (lost, success()):
        turn.feed(fed)
    assert (turn.ended().session_id, turn.ended().trigger.value) == (named, "succeeded")


def test_writes_that_are_lost_while_a_turn_is_interrupted_are_heard(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lost = {"type": "system", "subtype": "session_writes_lost", "lost": ["transcript"], "session_id": "s-lost"}
    cli = fake_cli(tmp_path, *said("Hello."), 1, lost)
    agent = ClaudeAgent(sdk.ClaudeAgentOptions(cwd=tmp_path, cli_path=cli))
    stream = agent.stream(Request(key=KEY, turn=1, session_number=1, content=as_blocks("hello")))
    assert next(stream) == TextDelta("Hello.")
    stream.close()
    assert "provider.writes_lost" in caplog.messages
    (result,) = agent.stream(
        Request(key=KEY, turn=2, session_number=1, content=as_blocks("again"), session_id="s-lost")
    )
    assert isinstance(result, Result)
    assert result.subtype == EXPIRED


def test_a_session_that_is_known_to_be_incomplete_is_dead_for_every_provider_of_the_process(
    claude: Claude, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsm.providers.claude_agent.provider.INCOMPLETE", {"s-1"})
    (result,) = claude.agent().stream(
        Request(key=KEY, turn=1, session_number=1, content=as_blocks("hello"), session_id="s-1")
    )
    assert isinstance(result, Result)
    assert (result.subtype, result.session_id) == (EXPIRED, "s-1")
    assert claude.server.received == []


# Background tasks


def test_a_shell_in_the_background_ends_with_its_turn_and_the_model_is_told(
    claude: Claude, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may never end, so the result does not wait for it."""
    call = tool_use("toolu_1", "Bash", command=f"sleep 600; touch {claude.home}/built", run_in_background=True)
    claude.server.will(message(call, stop="tool_use", id="msg_1"), message(text("It is started."), id="msg_2"))
    reply = claude.one("Start the build.", allowed_tools=["Bash"], timeout=20.0)
    assert (reply.status, reply.text) == (TurnStatus.SUCCEEDED, "It is started.")
    (record,) = (record for record in caplog.records if record.message == "provider.tasks_stopped")
    assert record.levelno == logging.WARNING
    assert len(vars(record)["tasks"]) == 1
    assert "sleep" not in caplog.text

    def slowly(_: dict[str, Any]) -> Answer:
        time.sleep(1.5)
        return message(text("It was stopped."), id="msg_3")

    # The CLI reports on the shell with a result, before it answers.
    monkeypatch.setattr("fsm.providers.claude_agent.exchange.GRACE", 0.5)
    claude.server.otherwise = slowly
    reply = claude.one("Is it ready?", allowed_tools=["Bash"])
    assert (reply.status, reply.text) == (TurnStatus.SUCCEEDED, "It was stopped.")
    assert "<status>stopped</status>" in str(claude.server.received[-1]["messages"][-1])


def test_a_result_for_a_background_task_is_not_the_answer() -> None:
    turn = exchange("s")
    turn.feed(success(origin={"kind": "task-notification"}))
    assert not turn.is_final
    turn.feed(success(origin={"kind": "task-notification"}, user_message_uuids=[turn.message["uuid"]], result="Both."))
    assert turn.is_final
    assert turn.ended().text == "Both."


# Other sessions


def test_clear_begins_a_session_that_is_resumed_and_it_is_logged(
    claude: Claude, caplog: pytest.LogCaptureFixture
) -> None:
    """The AI forgets, as the person has asked; the history has it all, and a session that is rebuilt is told it."""
    first, cleared, after = claude.send("My name is Ada.", "/clear", "I live in Turin.")
    ids = [reply.result and reply.result.session_id for reply in (first, cleared, after)]
    assert ids[0] != ids[1] == ids[2]
    assert "provider.session_cleared" in caplog.messages
    assert "My name is Ada." not in str(claude.server.received[-1])
    claude.lose_sessions()
    (reply,) = claude.send("Who am I?")
    assert reply.healed
    preamble = heard(claude.server.received[-1])[0]
    assert "My name is Ada." in preamble
    assert "I live in Turin." in preamble


def test_a_turn_that_fails_after_the_session_was_left_names_the_one_that_it_went_on_in() -> None:
    turn = exchange("old")
    turn.feed(sdk.ConversationResetMessage(new_conversation_id="c", uuid="u", session_id="old"))
    turn.feed(success("new", is_error=True, api_error_status=529))
    assert turn.ended().session_id == "new"


def test_what_a_compacted_session_keeps_is_not_told_again(claude: Claude) -> None:
    call = tool_use("toolu_1", "Bash", command="echo found")
    claude.server.will(message(call, stop="tool_use", id="msg_1"), message(text("There."), id="msg_2"))
    claude.one("Where?", allowed_tools=["Bash"])
    claude.send("hello", "/cost")
    (reply,) = claude.send("/compact")
    assert (reply.status, reply.text) == (TurnStatus.SUCCEEDED, "")
    (reply,) = claude.send("And now?")
    assert reply.text.startswith("Answer ")


def test_what_is_said_after_a_compaction_in_mid_turn_is_told() -> None:
    turn = exchange("s")
    whole = sdk.AssistantMessage(content=[sdk.TextBlock("Old.")], model="m", message_id="m0")
    new = sdk.AssistantMessage(content=[sdk.TextBlock("New.")], model="m", message_id="m1")
    told = [
        event
        for fed in (system("compact_boundary"), whole, system("status", status="requesting"), new)
        for event in turn.feed(fed)
    ]
    assert told == [TextDelta("New.")]


# Another working directory


def test_another_working_directory_does_not_resume_the_session_of_the_first(claude: Claude) -> None:
    """G15."""
    first, second = claude.home / "customer-a", claude.home / "customer-b"
    for folder in (first, second):
        folder.mkdir()
        (folder / "CLAUDE.md").write_text(f"The code word of {folder.name} is ALPHA-{folder.name}.")
    claude.one("My name is Ada.", cwd=first, setting_sources=["project"])
    reply = claude.one("Who am I?", cwd=second, setting_sources=["project"])
    assert (reply.status, reply.healed) == (TurnStatus.SUCCEEDED, False)
    asked = claude.server.received[-1]
    assert "ALPHA-customer-b" in str(asked)
    assert "ALPHA-customer-a" not in str(asked)
    assert "My name is Ada." in heard(asked)[0]
    assert len(claude.sessions()) == 2


def test_the_same_working_directory_by_another_path_resumes_the_session(claude: Claude) -> None:
    folder, link = claude.home / "a", claude.home / "link"
    folder.mkdir()
    link.symlink_to(folder)
    claude.one("My name is Ada.", cwd=folder)
    assert claude.one("Who am I?", cwd=link).healed is False
    assert len(claude.sessions()) == 1
