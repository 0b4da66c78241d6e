"""Sentences for what the Claude Agent SDK raises: each says what failed and what to do."""

from __future__ import annotations

__all__ = ["what_failed"]


def what_failed(error: Exception, patience: float) -> str:
    """Return what an error of the SDK means; its own text is told only where it can't hold any of the conversation's.

    Args:
        error: what the SDK raised, or the clock.
        patience: for how many seconds the CLI might be silent.
    """
    import claude_agent_sdk as sdk

    match error:
        case sdk.CLINotFoundError():
            told = "the Claude CLI was not found; check options.cli_path, or reinstall claude-agent-sdk"
        case sdk.CLIConnectionError():
            told = f"the Claude CLI can't be run ({str(error).partition(chr(10))[0]}); check options.cwd and cli_path"
        case sdk.CLIJSONDecodeError() if "maximum buffer size" in str(error):
            told = (
                "the Claude CLI printed a line that is too long, such as a large file that a tool has read; raise "
                "options.max_buffer_size, which is in bytes"
            )
        case sdk.ProcessError():
            told = f"the Claude CLI exited with code {error.exit_code} before it had answered; see its stderr"
        case TimeoutError():
            told = (
                f"the Claude CLI was silent for {patience:g} seconds and was stopped; "
                "if its tools need longer, raise the timeout"
            )
        case _ if str(error).startswith("Control request timeout: initialize"):
            told = "the Claude CLI took more than 60 seconds to start; check its MCP servers and hooks"
        case _:
            told = f"the Claude Agent SDK raised {type(error).__name__}"
    return told
