"""``chat`` with the claude provider: the real CLI, offline, and what is said where it is not installed."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cli.conftest import Process, manager
from tests.providers.claude_way import echo, environment, require_sdk
from tests.providers.messages_server import Answer, MessagesServer, begun, streamed, text

CHAT = ("chat", "--db", "a.db", "--key", "k", "--provider", "claude")


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MessagesServer]:
    """Serve the API that the CLI asks, and give the CLI a home directory."""
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
        assert len(inside.conversations.sessions("k")) == 1


def at_home(home: Path) -> list[str]:
    """Return the names of the processes that run with this home directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if f"HOME={home}\0".encode() in (entry / "environ").read_bytes():
                    found.append((entry / "comm").read_text().strip())
    return found


def test_ctrl_c_in_mid_answer_ends_the_cli_and_keeps_what_it_said(api: MessagesServer, tmp_path: Path) -> None:
    api.will(Answer(events=(*begun(), *streamed(text("Once upon a time."))[:2]), then="wait"))
    with subprocess.Popen(
        [sys.executable, "-m", "fsm", *CHAT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as chat:
        assert chat.stdin is not None
        assert chat.stdout is not None
        chat.stdin.write(b"Tell me a story.\n")
        chat.stdin.close()
        assert chat.stdout.read(8) == b"Once upo"
        assert "claude" in at_home(tmp_path)
        chat.send_signal(signal.SIGINT)
        assert chat.wait(60) == 130
    assert at_home(tmp_path) == []
    with manager() as inside:
        (turn,) = inside.conversations.turns("k")
        assert turn.status.value == "interrupted"
        assert inside.conversations.messages("k")[-1].text == "Once upo"


@pytest.mark.parametrize("model", [(), ("--model", "m")])
def test_without_the_extra_it_says_what_to_install(process: Process, model: tuple[str, ...]) -> None:
    hidden = "import sys; sys.modules['claude_agent_sdk'] = None; from fsm.__main__ import main; main()"
    done = process(*CHAT, *model, stdin="hello\n", python=("-c", hidden))
    assert done.returncode == 6
    assert "pip install 'conversation-fsm[claude-agent]'" in done.stderr
