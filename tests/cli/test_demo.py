"""``demo`` shows a conversation that outlives its session, and fails if an outcome differs from its text."""

from pathlib import Path

import pytest

from fsm import State
from fsm.cli import demo as told
from tests.cli.conftest import Process, Run

RECORDED = Path(__file__).parents[1] / "data" / "claude-cli-results.jsonl"


def test_the_demo_tells_the_story_and_leaves_nothing_behind(process: Process, folder: Path) -> None:
    done = process("demo")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert 15 <= len(lines) <= 30
    assert any("From the stored history I know that you said “Where is parcel 42?”" in line for line in lines)
    log = [line.split()[3:7] for line in lines if line.startswith("    ")]
    assert log == [
        ["succeeded:", "fresh", "→", "active"],
        ["expired:", "active", "→", "stale"],
        ["reset:", "stale", "→", "fresh"],
        ["succeeded:", "fresh", "→", "active"],
    ]
    assert not list(folder.iterdir())


def test_the_demo_plays_every_recorded_result(run: Run) -> None:
    result = run("demo")
    assert result.exit_code == 0
    for case, did in told.EXPECTED.items():
        assert any(line.strip().startswith(case) and did in line for line in result.stdout.splitlines())


def test_the_demo_plays_the_very_results_that_the_tests_are_made_from() -> None:
    assert told.RECORDED.read_bytes() == RECORDED.read_bytes()


def test_the_demo_fails_if_the_story_comes_out_differently(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(told.EXPECTED, "turn limit reached", f"expired: {State.ACTIVE} → {State.STALE}")
    result = run("demo")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: the demo went wrong: after 'turn limit reached'")


def test_the_demo_fails_if_its_process_fails(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(told, "CHILD", "raise SystemExit(7)")
    result = run("demo")
    assert result.exit_code == 1
    assert "the process ended with 7" in result.stderr


def test_the_demo_needs_no_key_and_uses_none(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "a key that must not be used")
    monkeypatch.setenv("CONVERSATION_FSM_DB", "no://such/database")
    assert process("demo").returncode == 0
