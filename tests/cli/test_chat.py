"""``chat`` writes answers to stdout and everything else to stderr, and its exit code says whether a turn failed."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from fsm import InvalidInput, Result, TextDelta, TurnStatus
from fsm.providers import DemoProvider
from tests.cli.conftest import Process, Run, complains, document, manager

CHAT = ("chat", "--db", "a.db", "--key", "k")


def damage(statement: str) -> None:
    """Change the database without the library."""
    with closing(sqlite3.connect("a.db")) as connection, connection:
        connection.execute(statement)


def test_each_line_of_a_pipe_is_a_message_and_blank_lines_are_skipped(run: Run) -> None:
    result = run(*CHAT, "--provider", "demo", stdin="hello\r\n\n   \nagain")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "You said “hello”. This is the first thing I hear from you.",
        "You said “again”. Before that, in this session, you said “hello”.",
    ]
    assert result.stderr == ""


def test_without_input_nothing_is_sent(run: Run) -> None:
    assert run(*CHAT, "--provider", "demo").output == ""


def test_batch_and_stream_write_the_same(run: Run) -> None:
    streamed = run("chat", "--db", "a.db", "--provider", "demo", stdin="hello\nagain\n")
    batch = run("chat", "--db", "b.db", "--provider", "demo", "--batch", stdin="hello\nagain\n")
    assert streamed.output == batch.output


@pytest.mark.parametrize("batch", [(), ("--batch",)])
def test_an_answer_without_deltas_is_written_too(run: Run, batch: tuple[str, ...]) -> None:
    result = run(*CHAT, *batch, stdin="hello\n", provider=DemoProvider([[Result(text="All at once.")]]))
    assert (result.exit_code, result.stdout) == (0, "All at once.\n")


def test_json_is_one_object_for_each_reply_on_a_line_of_its_own(run: Run) -> None:
    result = run(*CHAT, "--provider", "demo", "--json", stdin="hello\nagain\n")
    first, second = [json.loads(line) for line in result.stdout.splitlines()]
    assert (first["turn"], first["status"], first["state"], first["healed"]) == (1, "succeeded", "active", False)
    assert first["result"]["session_id"] == second["result"]["session_id"] == "demo-k-1"
    assert "Before that" in second["text"]


def test_a_second_process_heals_says_so_and_the_log_tells_it(process: Process, run: Run) -> None:
    for _ in range(2):
        done = process(*CHAT, "--provider", "demo", stdin="hello\nagain\n")
        assert done.returncode == 0
    assert done.stderr == "(the session had died; it was renewed, the history rebuilt)\n"
    assert "From the stored history I know that you said “hello”, “again”." in done.stdout
    story = document(run("show", "k", "--db", "a.db", "--json"))
    way = [story["transitions"][0]["source"], *(move["target"] for move in story["transitions"])]
    assert way == ["fresh", "active", "active", "stale", "fresh", "active", "active"]
    first, second = story["sessions"]
    assert (first["parent"], second["parent"]) == (None, first["number"])
    assert first["closed_reason"] == "error_during_execution"
    assert [turn["healed"] for turn in story["turns"]] == [False, False, True, False]


def test_batch_says_that_it_healed_before_it_answers(run: Run) -> None:
    provider = DemoProvider()
    run(*CHAT, stdin="hello\n", provider=provider)
    provider.forget()
    result = run(*CHAT, "--batch", stdin="again\n", provider=provider)
    assert result.output.startswith("(the session had died")


def test_a_failed_turn_is_told_to_the_person_and_is_exit_code_1_and_the_next_line_goes_on(run: Run) -> None:
    provider = DemoProvider([Result(is_error=True, http_status=429, errors=("secret of the provider",))])
    result = run(*CHAT, stdin="hello\nagain\n", provider=provider)
    assert result.exit_code == 1
    assert "too many requests" in result.stderr
    assert "secret" not in result.output
    assert result.stdout.startswith("You said “again”.")


def test_the_text_of_a_turn_that_failed_later_is_written(run: Run) -> None:
    provider = DemoProvider([[TextDelta("half an ans"), Result(is_error=True, http_status=529)]])
    result = run(*CHAT, stdin="hello\n", provider=provider)
    assert (result.exit_code, result.stdout) == (1, "half an ans\n")


def test_an_answer_that_was_cut_off_at_its_greatest_length_is_told(run: Run) -> None:
    result = run(*CHAT, stdin="hello\n", provider=DemoProvider([Result(stop_reason="max_tokens")]))
    assert result.exit_code == 0
    assert "greatest length" in result.stderr


def test_a_provider_that_breaks_its_contract_is_exit_code_6_and_the_turn_is_interrupted(run: Run) -> None:
    provider = DemoProvider([[TextDelta("half"), OSError("secret of the provider")]])
    result = run(*CHAT, stdin="hello\nagain\n", provider=provider)
    assert "secret" not in complains(result, 6)
    assert result.stdout == "half\n"
    with manager() as inside:
        assert [turn.status for turn in inside.conversations.turns("k")] == [TurnStatus.INTERRUPTED]


def test_a_reply_that_could_not_be_stored_is_shown_with_the_error(run: Run) -> None:
    with manager() as inside:
        inside.send("k", "hello")

    provider = DemoProvider([[lambda: damage("DROP TABLE message"), Result(text="I had an answer.")]], name="other")
    result = run(*CHAT, "--batch", stdin="again\n", provider=provider)
    complains(result, 5)
    assert result.stdout == "I had an answer.\n"


def test_a_busy_conversation_is_exit_code_4(run: Run) -> None:
    with manager() as inside, inside.stream("k", "hello"):
        complains(run(*CHAT, "--batch", stdin="me too\n", provider=DemoProvider()), 4)


def test_a_turn_that_a_reset_ended_is_exit_code_1(run: Run) -> None:
    def reset() -> None:
        with manager() as inside:
            inside.reset("k", force=True)

    result = run(*CHAT, stdin="hello\n", provider=DemoProvider([[TextDelta("late"), reset, Result()]]))
    complains(result, 1)


def test_ctrl_c_interrupts_the_turn_keeps_what_was_said_and_is_exit_code_130(process: Process) -> None:
    script = (
        "import os, signal\n"
        "from fsm import Result, TextDelta\n"
        "from fsm.cli import cli\n"
        "from fsm.providers import DemoProvider\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a parent in the background has it ignored
        "events = [TextDelta('half'), lambda: os.kill(os.getpid(), signal.SIGINT), TextDelta(' more'), Result()]\n"
        "cli(obj=DemoProvider([events]))"
    )
    done = process(*CHAT, stdin="hello\nnever said\n", python=("-c", script))
    assert (done.returncode, done.stdout) == (130, "half\n")
    with manager() as inside:
        assert [turn.status for turn in inside.conversations.turns("k")] == [TurnStatus.INTERRUPTED]
        assert [message.text for message in inside.conversations.messages("k")] == ["hello", "half"]


def test_chat_ends_the_turns_that_a_killed_process_left_and_says_so(process: Process, run: Run) -> None:
    script = (
        "import os, signal\n"
        "from fsm.cli import cli\n"
        "from fsm.providers import DemoProvider\n"
        "cli(obj=DemoProvider([[lambda: os.kill(os.getpid(), signal.SIGKILL)]]))"
    )
    assert process(*CHAT, stdin="hello\n", python=("-c", script)).returncode == -signal.SIGKILL
    result = run("chat", "--db", "a.db", "--key", "another", "--provider", "demo", stdin="hello\n")
    assert result.exit_code == 0
    assert result.stderr == "(turn 1 of 'k' had been cut off; it is ended)\n"


def test_a_damaged_conversation_does_not_keep_the_others_from_being_talked_to(run: Run) -> None:
    with manager() as inside, inside.stream("k", "hello"):
        damage("UPDATE conversation SET metadata = '[]'")
        result = run("chat", "--db", "a.db", "--key", "another", "--provider", "demo", stdin="hello\n")
        damage("UPDATE conversation SET metadata = '{}'")
    assert result.exit_code == 0
    assert "conversation" in result.stderr


def test_without_a_key_the_demo_provider_answers_and_it_is_said(run: Run) -> None:
    result = run(*CHAT, stdin="hello\n")
    assert result.exit_code == 0
    assert result.stderr == "(no ANTHROPIC_API_KEY is set, so the demo provider answers)\n"


def test_the_anthropic_provider_without_a_key_is_an_error(run: Run) -> None:
    assert "ANTHROPIC_API_KEY" in complains(run(*CHAT, "--provider", "anthropic", stdin="hello\n"), 2)


@pytest.mark.parametrize("provider", [(), ("--provider", "demo")])
def test_a_model_without_the_anthropic_provider_is_an_error(run: Run, provider: tuple[str, ...]) -> None:
    assert "--model" in complains(run(*CHAT, *provider, "--model", "m", stdin="hello\n"), 2)


def test_input_that_is_not_utf8_is_an_error_that_names_the_line(run: Run) -> None:
    result = run(*CHAT, "--provider", "demo", stdin=b"\xef\xbb\xbfhello\n\xff\n")
    assert "line 2" in complains(result, 2)
    assert result.stdout.startswith("You said “hello”.")


def test_an_answer_goes_into_a_pipe_unchanged(run: Run) -> None:
    result = run(*CHAT, stdin="hello\n", provider=DemoProvider([[TextDelta("\x1b[1m[red]"), Result()]]))
    assert result.stdout == "\x1b[1m[red]\n"


def test_output_that_the_terminal_can_not_encode_is_escaped(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")
    monkeypatch.delenv("PYTHONUTF8", raising=False)
    done = process(*CHAT, "--provider", "demo", stdin="hello\n")
    assert (done.returncode, done.stdout[:27]) == (0, "You said \\u201chello\\u201d.")


def test_a_reader_that_goes_away_ends_the_chat_without_a_traceback(process: Process) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    script = f"import os; os.dup2({writer}, 1); from fsm.__main__ import main; main()"
    os.set_inheritable(writer, True)
    done = subprocess.run(
        [sys.executable, "-c", script, *CHAT, "--provider", "demo"],
        input=b"hello\n",
        stdout=writer,
        stderr=subprocess.PIPE,
        pass_fds=[writer],
        timeout=120,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_custom_provider_may_refuse_with_an_error_of_the_library(run: Run) -> None:
    assert "not this" in complains(run(*CHAT, stdin="hello\n", provider=DemoProvider([InvalidInput("not this")])), 2)
