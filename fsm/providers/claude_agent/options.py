"""Options of the Claude Agent SDK: which ones contradict what a provider promises, and what is added to them."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from fsm.errors import InvalidInput

if TYPE_CHECKING:
    from claude_agent_sdk import ClaudeAgentOptions

__all__ = ["OWN_ARGUMENTS", "OWN_FIELDS", "check_options", "default_name", "keeps_sessions", "prepared"]

OWN_FIELDS = (
    "continue_conversation",
    "resume",
    "session_id",
    "resume_session_at",
    "resume_drops_turn",
    "fork_session",
)
"""The fields that say which session is resumed, or that make another one of it."""

OWN_ARGUMENTS = frozenset(
    {
        # which session it is
        *("c", "continue", "r", "resume", "session-id", "resume-session-at", "resume-drops-turn", "fork-session"),
        *("from-pr", "teleport", "rewind-files", "reply-on-resume", "session-began-as-copy", "parent-session-id"),
        # where it runs: then neither the session nor its working directory is the one that the provider is named after
        *("bg", "background", "cloud", "remote", "web", "environment", "desktop", "attach-serve", "sdk-url"),
        *("w", "worktree", "tmux", "replace", "deep-link-cwd-b64"),
        # how the SDK talks with it
        *("p", "print", "input-format", "output-format", "init-only", "prefill", "prefill-b64"),
        *("h", "help", "v", "version"),
    }
)
"""The arguments of the CLI that do the same, or under which it would not answer the message that it is sent."""

_RESUMING = "CLAUDE_CODE_RESUME_"
_UNSTORED = "CLAUDE_CODE_SKIP_PROMPT_HISTORY"

BUFFER = 64 * 2**20
"""The longest line of the CLI, in bytes. Each file that it shows the model is one line; the SDK's default is 1 MiB."""


def check_options(options: ClaudeAgentOptions) -> None:
    """Refuse options that contradict what the provider promises.

    Raises:
        InvalidInput: it names them.
    """
    named = [name for name in OWN_FIELDS if getattr(options, name, None) not in {None, False, ""}]
    named += [f"extra_args {name!r}" for name in options.extra_args if _argument(name) in OWN_ARGUMENTS]
    named += [f"env {name!r}" for name in options.env if name.upper().startswith(_RESUMING)]
    if named:
        raise InvalidInput(
            f"options can't set {', '.join(named)}; which session is resumed, and where, is decided by the "
            "conversation's state: leave it out"
        )


def _argument(name: str) -> str:
    """Return the argument as the CLI's help writes it, however it was spelled."""
    return name.strip().lstrip("-").partition("=")[0].strip().replace("_", "-").lower()


def keeps_sessions(options: ClaudeAgentOptions) -> bool:
    """Whether the CLI stores its sessions, so that they can be resumed."""
    unstored = options.env.get(_UNSTORED, os.environ.get(_UNSTORED, ""))
    return unstored.lower() in {"", "0", "false", "no", "off"} and not any(
        _argument(name) == "no-session-persistence" for name in options.extra_args
    )


def default_name(cwd: str) -> str:
    """Return a provider's name that says where its CLI runs.

    A session belongs to its working directory: what the model was told of one repository must not be continued in
    another (G15).

    Args:
        cwd: the working directory, symbolic links resolved.

    >>> default_name("/srv/customer-a")
    'claude-agent:customer-a-f9dc10e5'
    """
    folder = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(cwd).name)[:40] or "root"
    return f"claude-agent:{folder}-{hashlib.sha256(os.fsencode(cwd)).hexdigest()[:8]}"


def prepared(options: ClaudeAgentOptions) -> ClaudeAgentOptions:
    """Return the options for all turns of a provider: a copy, with what the provider needs.

    The working directory is fixed, because the sessions belong to it. The CLI is told to store a turn before it
    reports the turn's result.

    Raises:
        InvalidInput: there is no working directory.
    """
    try:
        cwd = os.path.realpath(options.cwd if options.cwd else Path.cwd())
    except OSError as error:
        raise InvalidInput("the process's working directory does not exist; set options.cwd") from error
    return dataclasses.replace(
        options,
        cwd=cwd,
        env={"CLAUDE_CODE_EAGER_FLUSH": "1", **options.env},
        extra_args=dict(options.extra_args),
        include_partial_messages=True,
        max_buffer_size=BUFFER if options.max_buffer_size is None else options.max_buffer_size,
    )
