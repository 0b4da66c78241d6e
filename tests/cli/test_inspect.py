"""``list``, ``show``, ``history``, ``reset`` and ``diagram``: their output for people and for programs."""

import json
from datetime import datetime, timedelta

import pytest

from fsm import diagrams
from fsm.providers import DemoProvider
from tests.cli.conftest import Run, complains, document, manager


@pytest.fixture(autouse=True)
def conversations(folder: object) -> None:
    """Store two conversations; in the second one a dead session was replaced."""
    provider = DemoProvider()
    with manager(provider=provider) as inside:
        inside.send("a", "hello", metadata={"team": "[red]"})
        inside.send("b", "hello")
        provider.forget()
        inside.send("b", "again")


def test_list_has_a_line_for_each_conversation(run: Run) -> None:
    result = run("list", "--db", "a.db")
    assert result.exit_code == 0
    lines = [line.split()[:6] for line in result.stdout.splitlines()]
    assert ["a", "active", "demo", "1", "1", "2"] in lines
    assert ["b", "active", "demo", "2", "2", "4"] in lines


def test_list_tells_which_turn_runs(run: Run) -> None:
    with manager() as inside, inside.stream("a", "more"):
        lines = [line.split()[:4] for line in run("list", "--db", "a.db").stdout.splitlines()]
    assert ["a", "active", "2", "demo"] in lines


def test_list_as_json_is_an_array_that_can_be_paged(run: Run) -> None:
    assert [item["key"] for item in document(run("list", "--db", "a.db", "--json"))] == ["a", "b"]
    assert [item["key"] for item in document(run("list", "--db", "a.db", "--json", "--limit", "1"))] == ["a"]
    assert [item["key"] for item in document(run("list", "--db", "a.db", "--json", "--after", "a"))] == ["b"]


def test_an_empty_database_lists_nothing(run: Run) -> None:
    run("chat", "--db", "empty.db", "--provider", "demo")
    assert run("list", "--db", "empty.db").stdout == ""
    assert document(run("list", "--db", "empty.db", "--json")) == []


def test_show_tells_state_lineage_turns_and_the_log(run: Run) -> None:
    result = run("show", "b", "--db", "a.db")
    assert result.exit_code == 0
    assert result.stdout.startswith("b: active, holds demo-b-2 (demo)\n")
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["1", "demo", "demo-b-1"] in [row[:3] for row in rows]
    assert ["2", "1", "demo", "demo-b-2"] in [row[:4] for row in rows]
    for move in ("expired active stale", "reset stale fresh", "succeeded fresh active"):
        assert any(" ".join(row[1:4]) == move for row in rows)


def test_show_as_json_is_the_conversation_with_all_its_records(run: Run) -> None:
    story = document(run("show", "b", "--db", "a.db", "--json"))
    with manager() as inside:
        talks = inside.conversations
        expected = {
            **talks.get("b").to_dict(),
            "sessions": [record.to_dict() for record in talks.sessions("b")],
            "turns": [record.to_dict() for record in talks.turns("b")],
            "transitions": [record.to_dict() for record in talks.transitions("b")],
        }
    assert story == json.loads(json.dumps(expected))
    assert [turn["status"] for turn in story["turns"]] == ["succeeded", "succeeded"]
    assert datetime.fromisoformat(story["created_at"]).utcoffset() == timedelta(0)


def test_show_with_a_limit_shows_the_newest_records(run: Run) -> None:
    story = document(run("show", "b", "--db", "a.db", "--json", "--limit", "1"))
    assert [len(story[part]) for part in ("sessions", "turns", "transitions")] == [1, 1, 1]
    assert story["transitions"][0]["number"] == 4


def test_show_tells_the_running_turn(run: Run) -> None:
    with manager() as inside, inside.stream("a", "more"):
        assert "turn 2 is running" in run("show", "a", "--db", "a.db").stdout
        assert document(run("show", "a", "--db", "a.db", "--json"))["running"]["turn"] == 2


def test_show_tells_when_nothing_is_held(run: Run) -> None:
    run("reset", "a", "--db", "a.db")
    assert run("show", "a", "--db", "a.db").stdout.startswith("a: fresh, holds no provider session")


def test_metadata_is_shown_as_it_is(run: Run) -> None:
    assert document(run("show", "a", "--db", "a.db", "--json"))["metadata"] == {"team": "[red]"}


def test_history_writes_the_messages_in_order(run: Run) -> None:
    lines = run("history", "b", "--db", "a.db").stdout.splitlines()
    assert [line.split(",")[0] for line in lines if line.startswith("[")] == [
        "[1] user",
        "[2] assistant",
        "[3] user",
        "[4] assistant",
    ]
    assert "again" in lines


def test_history_describes_content_other_than_text(run: Run) -> None:
    with manager() as inside:
        inside.send("a", [{"type": "text", "text": "look:"}, {"type": "image"}])
    assert "look:\n[image]\n" in run("history", "a", "--db", "a.db").stdout


def test_history_as_json_can_be_paged(run: Run) -> None:
    messages = document(run("history", "b", "--db", "a.db", "--json", "--limit", "2", "--before", "4"))
    assert [(item["number"], item["role"]) for item in messages] == [(2, "assistant"), (3, "user")]
    assert messages[1]["content"] == [{"type": "text", "text": "again"}]


def test_reset_opens_the_next_session_and_keeps_the_reason(run: Run) -> None:
    result = run("reset", "a", "--db", "a.db", "--reason", "new broom")
    assert (result.exit_code, result.stdout) == (0, "a: fresh, session 2 (new broom)\n")
    with manager() as inside:
        assert [session.closed_reason for session in inside.conversations.sessions("a")] == ["new broom", None]


def test_reset_as_json_is_the_conversation_afterwards(run: Run) -> None:
    after = document(run("reset", "a", "--db", "a.db", "--json"))
    assert (after["state"], after["session_number"], after["session_id"]) == ("fresh", 2, None)


def test_reset_leaves_the_conversation_with_its_provider(run: Run) -> None:
    with manager(provider=DemoProvider(name="anthropic")) as inside:
        inside.send("c", "hello")
        run("reset", "c", "--db", "a.db")
        inside.send("c", "again")
        assert [session.provider for session in inside.conversations.sessions("c")] == ["anthropic", "anthropic"]


def test_reset_refuses_while_a_turn_runs_unless_forced(run: Run) -> None:
    with manager() as inside, inside.stream("a", "more"):
        complains(run("reset", "a", "--db", "a.db"), 4)
        assert run("reset", "a", "--db", "a.db", "--force").exit_code == 0
        assert inside.conversations.turns("a")[-1].status == "superseded"


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ((), diagrams.to_mermaid()),
        (("--format", "mermaid"), diagrams.to_mermaid()),
        (("--format", "dot"), diagrams.to_dot()),
        (("--format", "markdown"), diagrams.to_markdown()),
        (("--format", "svg"), diagrams.to_svg().removesuffix("\n")),
        (("--format", "svg", "--theme", "dark"), diagrams.to_svg(theme="dark").removesuffix("\n")),
    ],
)
def test_diagram_draws_the_table(run: Run, args: tuple[str, ...], text: str) -> None:
    assert run("diagram", *args).stdout == f"{text}\n"
