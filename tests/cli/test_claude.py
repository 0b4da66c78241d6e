"""``chat`` with the claude provider: the real CLI, offline, and what is said where it is not installed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Process, manager
from tests.providers.claude_way import echo, environment, require_sdk
from tests.providers.messages_server import MessagesServer

CHAT = ("chat", "--db", "a.db", "--key", "k", "--provider", "claude")


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MessagesServer]:
    """The API that the CLI asks, and a home directory for it."""
    require_sdk()
    with MessagesServer() as server:
        echo(server)
        for name, value in environment(tmp_path, server).items():
            monkeypatch.setenv(name, value)
        yield server


def test_a_session_outlives_the_process(process: Process, api: MessagesServer) -> None:
    for line, answer in (("hello\n", "Answer 1.\n"), ("again\n", "Answer 2.\n")):
        done = process(*CHAT, "--model", "claude-sonnet-5-5", stdin=line)
        assert (done.returncode, done.stdout, done.stderr) == (0, answer, "")
    assert api.received[-1]["model"] == "claude-sonnet-5-5"
    with manager() as inside:
        assert len(inside.sessions("k")) == 1


def test_without_the_extra_it_says_what_to_install(process: Process) -> None:
    hidden = "import sys; sys.modules['claude_agent_sdk'] = None; from fsm.__main__ import main; main()"
    done = process(*CHAT, stdin="hello\n", python=("-c", hidden))
    assert done.returncode == 6
    assert "pip install 'conversation-fsm[claude-agent]'" in done.stderr
