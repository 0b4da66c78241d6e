"""Bad input and broken databases end a command with one line on stderr and an exit code, without a traceback."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Process, Run, complains, manager

READERS = (("show", "k"), ("history", "k"), ("reset", "k"))


@pytest.mark.parametrize("command", READERS)
def test_an_unknown_conversation_is_exit_code_3(run: Run, command: tuple[str, ...]) -> None:
    with manager() as inside:
        inside.send("another", "hello")
    assert "'k'" in complains(run(*command, "--db", "a.db"), 3)


@pytest.mark.parametrize("command", [("list",), *READERS])
def test_a_database_that_is_not_there_is_exit_code_3_and_is_not_created(
    run: Run, folder: Path, command: tuple[str, ...]
) -> None:
    assert "no database file 'missing.db'" in complains(run(*command, "--db", "missing.db"), 3)
    assert not list(folder.iterdir())


@pytest.mark.parametrize("key", ["", "k" * 513, "\0", "\udc80"])
@pytest.mark.parametrize("command", ["show", "history", "reset", "chat", "list"])
def test_a_bad_key_is_exit_code_2(run: Run, folder: Path, command: str, key: str) -> None:
    args = {"chat": ("--key", key), "list": ("--after", key)}.get(command, (key,))
    complains(run(command, *args, "--db", "a.db"), 2)
    assert not list(folder.iterdir())


def test_an_empty_database_name_is_exit_code_2(run: Run) -> None:
    complains(run("list", "--db", ""), 2)


def test_an_unknown_scheme_is_exit_code_5(run: Run) -> None:
    assert "'mongo'" in complains(run("chat", "--db", "mongo://somewhere/chat", "--provider", "demo"), 5)


def test_a_path_that_can_not_be_written_is_exit_code_5(run: Run) -> None:
    complains(run("chat", "--db", "no/such/folder/a.db", "--provider", "demo"), 5)
    complains(run("chat", "--db", ".", "--provider", "demo"), 5)


@pytest.mark.parametrize("command", [("list",), *READERS, ("chat", "--provider", "demo")])
def test_a_file_that_is_not_a_database_is_exit_code_5_and_stays_as_it_is(
    run: Run, folder: Path, command: tuple[str, ...]
) -> None:
    Path("a.db").write_text("Dear diary,\n" * 100, encoding="utf-8")
    complains(run(*command, "--db", "a.db"), 5)
    assert Path("a.db").read_text(encoding="utf-8") == "Dear diary,\n" * 100


def test_a_corrupted_row_is_exit_code_5_and_names_the_table(run: Run) -> None:
    with manager() as inside:
        inside.send("k", "hello")
    database = sqlite3.connect("a.db")
    database.execute("UPDATE message SET content = 'garbage'")
    database.commit()
    database.close()
    assert "message" in complains(run("history", "k", "--db", "a.db"), 5)


@pytest.mark.parametrize(
    "args",
    [
        ("nonsense",),
        ("show",),
        ("show", "k", "--nonsense"),
        ("chat", "--provider", "nobody"),
        ("diagram", "--format", "png"),
        ("history", "k", "--limit", "-1"),
    ],
)
def test_wrong_usage_is_exit_code_2(run: Run, args: tuple[str, ...]) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert "Error: " in result.stderr


def test_a_reset_reason_of_two_lines_is_exit_code_2(run: Run) -> None:
    with manager() as inside:
        inside.send("k", "hello")
    complains(run("reset", "k", "--db", "a.db", "--reason", "two\nlines"), 2)


def test_the_database_may_be_a_url_or_come_from_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with manager("there.db") as inside:
        inside.send("k", "hello")
    expected = run("list", "--db", "there.db").stdout
    assert "k" in expected
    assert run("list", "--db", "sqlite:///there.db").stdout == expected
    assert run("list", "--db", str(Path("there.db").absolute())).stdout == expected
    monkeypatch.setenv("CONVERSATION_FSM_DB", "there.db")
    assert run("list").stdout == expected


@pytest.mark.parametrize("command", [(), ("chat",), ("show",), ("reset",), ("demo",)])
def test_the_help_tells_the_exit_codes(run: Run, command: tuple[str, ...]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    for code in (0, 1, 2, 3, 4, 5, 6, 130, 141):
        assert f"\n    {code} " in result.stdout


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra_it_says_what_to_install(process: Process, missing: str) -> None:
    script = f"import sys; sys.modules['{missing}'] = None; from fsm.__main__ import main; main()"
    done = process("list", python=("-c", script))
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        'error: the command line needs click and rich: pip install "conversation-fsm[cli]"'
    ]


def test_another_missing_module_is_not_mistaken_for_the_extra() -> None:
    script = "import sys; sys.modules['transitions'] = None; from fsm.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "transitions" in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a device that is always full")
def test_output_that_can_not_be_written_is_told_in_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "fsm", "diagram"], stdout=full, stderr=subprocess.PIPE, timeout=120, check=False
        )
    assert done.returncode == 2
    assert done.stderr.decode().startswith("error: input or output failed")
    assert len(done.stderr.splitlines()) == 1


def test_closed_streams_cause_no_traceback(process: Process) -> None:
    closing = "import os, sys; os.close(int(sys.argv.pop(1))); "
    run_main = "os.execv(sys.executable, [sys.executable, '-m', 'fsm', *sys.argv[1:]])"
    assert process("1", "diagram", python=("-c", closing + run_main)).returncode == 0
    assert process("0", "chat", "--provider", "demo", python=("-c", closing + run_main)).returncode == 0


@pytest.mark.parametrize("name", ["a?b.db", "50%.db", "a#b.db", "a%20b.db", "file:a.db", "~x", "with space.db"])
def test_a_path_may_have_the_characters_that_a_url_gives_a_meaning(run: Run, folder: Path, name: str) -> None:
    assert run("chat", "--db", name, "--provider", "demo", stdin="hello\n").exit_code == 0
    assert [file.name for file in folder.iterdir()] == [name]
    assert run("show", "default", "--db", name).exit_code == 0
    assert "no database file" in complains(run("list", "--db", f"{name}?"), 3)
