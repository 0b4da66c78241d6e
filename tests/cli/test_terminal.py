"""``chat`` and other commands as a person sees them: real processes at a pseudo-terminal."""

import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from fsm import TurnStatus
from tests.cli.conftest import manager

SCRIPT = """
import os, signal
os.login_tty(0)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent in the background has it ignored
from fsm import Result, TextDelta, ProviderError
from fsm.cli import cli
from fsm.providers import DemoProvider
def stop(): os.kill(os.getpid(), signal.SIGINT)
cli(obj=DemoProvider([%s]))
"""


class Terminal:
    """A person at a terminal, who reads and types."""

    def __init__(self, process: "subprocess.Popen[bytes]", fd: int) -> None:
        self.process = process
        self._fd = fd
        self.seen = ""

    def read_until(self, text: str) -> str:
        """Return everything up to the next ``text``, once it is there."""
        while text not in self.seen:
            self.seen += os.read(self._fd, 4096).decode()
        before, _, self.seen = self.seen.partition(text)
        return before

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def interrupt(self) -> None:
        """Press Ctrl-C until there is output; readline misses one that comes right after its prompt."""
        for _ in range(30):
            self.type("\x03")
            if select.select([self._fd], [], [], 5)[0]:
                return

    def end(self) -> tuple[int, str]:
        """Return the exit code and the rest of the output, when the process has ended."""
        try:
            while more := os.read(self._fd, 4096):
                self.seen += more.decode()
        except OSError:  # Linux reports EIO when the other side is closed
            pass
        return self.process.wait(timeout=120), self.seen


@contextmanager
def terminal(*args: str, script: str = "", term: str = "dumb") -> Iterator[Terminal]:
    mine, its = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT % script, *args],
        stdin=its,
        stdout=its,
        stderr=its,
        env={**os.environ, "TERM": term},
    )
    os.close(its)
    try:
        yield Terminal(process, mine)
    finally:
        process.kill()
        process.wait()
        os.close(mine)


CHAT = ("chat", "--db", "a.db", "--key", "k")


def test_a_person_is_asked_and_answered_until_ctrl_d() -> None:
    with terminal(*CHAT) as person:
        assert "(conversation 'k', demo provider; Ctrl-D ends)" in person.read_until("you: ")
        person.type("hello\n")
        assert "You said “hello”. This is the first thing I hear from you." in person.read_until("you: ")
        person.type("\n")
        person.read_until("you: ")
        person.type("\x04")
        code, _ = person.end()
    assert code == 0
    with manager() as inside:
        assert len(inside.conversations.turns("k")) == 1


def test_a_spinner_turns_until_the_answer_comes() -> None:
    with terminal(*CHAT, term="xterm") as person:
        person.read_until("you: ")
        person.type("hello\n")
        assert "waiting for the AI" in person.read_until("You said")
        person.read_until("you: ")
        person.type("\x04")
        assert person.end()[0] == 0


def test_control_characters_of_an_answer_do_not_reach_the_terminal() -> None:
    with terminal(*CHAT, script=r"[TextDelta('\x1b[31mred [bold]\x9b\x07'), Result()]") as person:
        person.read_until("you: ")
        person.type("hello\n")
        assert r"\x1b[31mred [bold]\x9b\x07" in person.read_until("you: ")


def test_control_characters_of_what_is_stored_do_not_reach_the_terminal() -> None:
    with manager() as inside:
        inside.send("k\x1b[2J", "evil \x1b]0;title\x07 [red]markup[/red]")
    for command in (
        ("list", "--db", "a.db"),
        ("show", "k\x1b[2J", "--db", "a.db"),
        ("history", "k\x1b[2J", "--db", "a.db"),
    ):
        with terminal(*command) as person:
            code, seen = person.end()
            assert code == 0
            assert "\x1b" not in seen
            assert "\x07" not in seen
    assert "[red]markup[/red]" in seen


def test_ctrl_c_at_the_prompt_is_exit_code_130() -> None:
    with terminal(*CHAT) as person:
        person.read_until("you: ")
        person.interrupt()
        code, seen = person.end()
    assert code == 128 + signal.SIGINT
    assert "Traceback" not in seen


def test_ctrl_c_while_the_ai_answers_interrupts_the_turn() -> None:
    with terminal(*CHAT, script="[TextDelta('half'), stop, TextDelta(' more'), Result()]") as person:
        person.read_until("you: ")
        person.type("hello\n")
        code, seen = person.end()
    assert code == 128 + signal.SIGINT
    assert "Traceback" not in seen
    with manager() as inside:
        assert [turn.status for turn in inside.conversations.turns("k")] == [TurnStatus.INTERRUPTED]


def test_a_person_may_go_on_after_an_error_and_the_exit_code_still_tells_it() -> None:
    with terminal(*CHAT, script="ProviderError('nothing today')") as person:
        person.read_until("you: ")
        person.type("hello\n")
        assert "error: conversation 'k': nothing today" in person.read_until("you: ")
        person.type("again\n")
        assert "You said “again”." in person.read_until("you: ")
        person.type("\x04")
        assert person.end()[0] == 6
