"""Fixtures for the command line: an empty folder, no key in the environment, and two ways to run a command.

A command runs in this process or in another one.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fsm import Provider, SessionManager
from fsm.cli import cli
from fsm.providers import DemoProvider
from persistence import SQLStore

Run = Callable[..., Result]
Process = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run the test in an empty folder, without the variables that the commands read."""
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CONVERSATION_FSM_DB", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run() -> Run:
    """Run a command in this process; ``provider`` is the AI that ``chat`` talks to."""

    def invoke(*args: str, stdin: str | bytes | None = None, provider: Provider | None = None) -> Result:
        result = CliRunner().invoke(cli, args, input=stdin, obj=provider)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return invoke


@pytest.fixture
def process() -> Process:
    """Run a command in another process."""

    def start(
        *args: str, stdin: str = "", python: tuple[str, ...] = ("-m", "fsm")
    ) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [sys.executable, *python, *args],
            input=stdin,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=120,
            check=False,
        )
        assert "Traceback" not in done.stderr
        return done

    return start


@contextmanager
def manager(db: str = "a.db", provider: Provider | None = None) -> Iterator[SessionManager]:
    """Open the conversations that the commands see, with a manager."""
    with SQLStore(f"sqlite:///{db}") as store:
        yield SessionManager(store, provider or DemoProvider())


def document(result: Result) -> Any:
    """Return the JSON that a command wrote."""
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def complains(result: Result, code: int) -> str:
    """Check that a command ended with an exit code and one line about its error; return that line."""
    lines: list[str] = result.stderr.splitlines()
    assert result.exit_code == code
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert "Traceback" not in result.output
    return lines[0]
