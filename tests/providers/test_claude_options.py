"""The options of ClaudeAgent: each is passed through, or refused by name because it contradicts a promise."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest

from fsm.errors import InvalidInput
from fsm.providers import ClaudeAgent
from fsm.providers.claude_agent.options import OWN_FIELDS
from tests.providers.claude_way import require_sdk

pytestmark = pytest.mark.thorough

sdk = require_sdk()

PASSED = {
    "add_dirs",
    "agents",
    "allowed_tools",
    "betas",
    "can_use_tool",
    "cli_path",
    "client_app",
    "cwd",
    "debug_stderr",
    "disallowed_tools",
    "effort",
    "enable_file_checkpointing",
    "env",
    "extra_args",
    "fallback_model",
    "forward_subagent_text",
    "hooks",
    "include_hook_events",
    "include_partial_messages",
    "load_timeout_ms",
    "max_buffer_size",
    "max_budget_usd",
    "max_thinking_tokens",
    "max_turns",
    "mcp_servers",
    "model",
    "output_format",
    "permission_mode",
    "permission_prompt_tool_name",
    "plugins",
    "sandbox",
    "session_store",
    "session_store_flush",
    "setting_sources",
    "settings",
    "skills",
    "stderr",
    "strict_mcp_config",
    "system_prompt",
    "task_budget",
    "thinking",
    "tools",
    "user",
    "verbatim_prompts",
}


def test_each_option_of_the_sdk_is_passed_through_or_refused() -> None:
    """A new one turns this red: decide what it does to the session, and write it down."""
    assert {field.name for field in dataclasses.fields(sdk.ClaudeAgentOptions)} == PASSED | set(OWN_FIELDS)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"resume": "s"}, "resume"),
        ({"continue_conversation": True}, "continue_conversation"),
        ({"session_id": "s"}, "session_id"),
        ({"resume_session_at": "s"}, "resume_session_at"),
        ({"resume_drops_turn": "s"}, "resume_drops_turn"),
        ({"fork_session": True}, "fork_session"),
        ({"env": {"CLAUDE_CODE_RESUME_INTERRUPTED_TURN": "1"}}, "env 'CLAUDE_CODE_RESUME_INTERRUPTED_TURN'"),
        *(
            ({"extra_args": {spelled: "s"}}, f"extra_args '{spelled}'")
            for spelled in (
                *("resume", "r", "-r", "--resume", "resume=s", "Resume", " resume", "continue", "c", "--c"),
                *("fork-session", "fork_session", "--fork-session", "session-id", "session_id", "resume_session_at"),
                *("from-pr", "teleport", "worktree", "w", "bg", "background", "cloud", "remote", "output-format"),
            )
        ),
    ],
)
def test_an_option_that_contradicts_a_promise_is_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidInput, match="decided by the conversation's state") as raised:
        ClaudeAgent(sdk.ClaudeAgentOptions(**options))
    assert f"options can't set {named};" in str(raised.value)


def test_all_that_is_refused_is_named_at_once() -> None:
    options = sdk.ClaudeAgentOptions(fork_session=True, extra_args={"c": None, "debug": None})
    with pytest.raises(InvalidInput, match="can't set fork_session, extra_args 'c';"):
        ClaudeAgent(options)


def test_other_arguments_of_the_cli_are_passed_through() -> None:
    ClaudeAgent(sdk.ClaudeAgentOptions(extra_args={"debug": None, "name": "a", "no-session-persistence": None}))


def test_options_that_are_none_of_the_sdk_are_refused() -> None:
    with pytest.raises(InvalidInput, match="must be a ClaudeAgentOptions, and is of type dict"):
        ClaudeAgent({"model": "m"})  # type: ignore[arg-type]


def test_options_that_are_changed_later_change_nothing() -> None:
    options = sdk.ClaudeAgentOptions()
    agent = ClaudeAgent(options)
    options.fork_session = True
    options.extra_args["resume"] = "s"
    assert agent.options.fork_session is False
    assert agent.options.extra_args == {}


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan"), True, "60", None])
def test_a_timeout_must_be_some_time(timeout: Any) -> None:
    with pytest.raises(InvalidInput, match="timeout"):
        ClaudeAgent(timeout=timeout)


def test_the_longest_silence_is_the_timeout() -> None:
    assert (ClaudeAgent().longest_silence, ClaudeAgent(timeout=20).longest_silence) == (540.0, 20.0)


# The name, which says where the sessions belong


def test_the_name_holds_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """G15: a session of one repository is not resumed in another."""
    first, second, link = tmp_path / "a" / "repo", tmp_path / "b" / "repo", tmp_path / "link"
    first.mkdir(parents=True)
    second.mkdir(parents=True)
    link.symlink_to(first)
    named = [ClaudeAgent(sdk.ClaudeAgentOptions(cwd=cwd)).name for cwd in (first, str(first), link, second)]
    assert named[0] == named[1] == named[2] != named[3]
    assert named[0].startswith("claude-agent:repo-")
    monkeypatch.chdir(first)
    assert ClaudeAgent().name == ClaudeAgent(sdk.ClaudeAgentOptions(cwd=".")).name == named[0]


def test_the_name_can_be_chosen() -> None:
    """G15."""
    assert ClaudeAgent(name="reviewer").name == "reviewer"


def test_a_provider_stays_where_it_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    agent = ClaudeAgent()
    monkeypatch.chdir("/")
    assert agent.options.cwd == os.path.realpath(tmp_path)


@pytest.mark.parametrize("folder", ["naïve 名前", "x" * 200, "a\nb", "a\udcffb"])
def test_any_folder_gives_a_name_that_a_database_can_hold(folder: str, tmp_path: Path) -> None:
    name = ClaudeAgent(sdk.ClaudeAgentOptions(cwd=tmp_path / folder)).name
    assert name.isascii()
    assert name.isprintable()
    assert len(name) < 80


def test_without_a_working_directory_it_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(InvalidInput, match=r"does not exist; set options\.cwd"):
        ClaudeAgent()


def test_the_longest_line_is_generous_unless_the_caller_sets_it() -> None:
    assert ClaudeAgent().options.max_buffer_size == 64 * 2**20
    assert ClaudeAgent(sdk.ClaudeAgentOptions(max_buffer_size=1000)).options.max_buffer_size == 1000
