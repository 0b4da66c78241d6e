"""The log events: each with the level and the fields that the reference promises, and with no text."""

import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fsm import Conflict, ConversationBusy, Result, SessionManager, StoreError, TextDelta
from fsm._core.effects import Step
from fsm.events import EXPIRED
from fsm.providers import DemoProvider
from persistence import SQLStore
from tests.begun import abandoned_turn
from tests.eventually import eventually

STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime"}


@pytest.fixture
def store(sqlite_url: str) -> Iterator["Forgetful"]:
    """A store on a file."""
    with Forgetful(sqlite_url) as store:
        yield store


@pytest.fixture
def events(caplog: pytest.LogCaptureFixture) -> Any:
    """Return the event, level and fields of each record since the last call."""
    caplog.set_level(logging.DEBUG, "fsm")

    def told() -> dict[str, tuple[str, dict[str, Any]]]:
        found = {
            record.message: (
                record.levelname,
                {name: value for name, value in vars(record).items() if name not in STANDARD},
            )
            for record in caplog.records
        }
        caplog.clear()
        return found

    return told


class Forgetful(SQLStore):
    """A store that does as it is told: refuse a commit, or find what it had before."""

    refuses: type[Exception] | None = None

    def commit(self, step: Step) -> None:
        if self.refuses is not None:
            raise self.refuses("no", step.before.key)
        super().commit(step)


def manager(store: SQLStore, *script: Any, **options: Any) -> SessionManager:
    """A manager whose provider does what the script says."""
    return SessionManager(store, DemoProvider(script), **options)


def test_a_turn_is_logged_from_its_start_to_its_end(store: Forgetful, events: Any) -> None:
    manager(store, [Result(session_id="s-1")]).send("k", "a secret")
    assert events() == {
        "turn.run_started": ("DEBUG", {"conversation": "k", "turn": 1, "state": "fresh"}),
        "turn.run_completed": (
            "INFO",
            {
                "conversation": "k",
                "turn": 1,
                "status": "succeeded",
                "state": "active",
                "healed": False,
                "subtype": "success",
                "http_status": None,
            },
        ),
    }
    manager(store, Result(subtype="error_max_turns", http_status=429)).send("k", "a secret")
    told = events()
    assert told["turn.run_started"][1]["state"] == "active"
    assert told["turn.run_failed"] == (
        "WARNING",
        {
            "conversation": "k",
            "turn": 2,
            "status": "failed",
            "state": "active",
            "healed": False,
            "subtype": "error_max_turns",
            "http_status": 429,
        },
    )


def test_a_heal_is_logged_with_what_was_cleared(store: Forgetful, events: Any) -> None:
    dead = Result(subtype=EXPIRED, is_error=True, session_id="s-9", errors=("gone",), stop_reason="ended")
    sessions = manager(store, [Result(session_id="s-1")], dead)
    sessions.send("k", "hello")
    events()
    sessions.send("k", "hello")
    told = events()
    assert told["session.heal_started"] == ("INFO", {"conversation": "k", "turn": 2})
    assert told["session.clear_completed"] == (
        "WARNING",
        {
            "conversation": "k",
            "session": 1,
            "stale_session_ids": ["s-1", "s-9"],
            "errors": ["gone"],
            "stop_reason": "ended",
            "state": "fresh",
        },
    )
    assert told["turn.run_completed"][1]["healed"] is True


def test_a_reset_is_logged_with_its_reason(store: Forgetful, events: Any) -> None:
    sessions = manager(store)
    sessions.send("k", "hello")
    events()
    sessions.reset("k", reason="asked by the user")
    assert events() == {
        "session.reset_completed": ("INFO", {"conversation": "k", "session": 2, "reason": "asked by the user"})
    }


def test_turns_that_nobody_runs_and_turns_that_somebody_runs_are_logged(store: Forgetful, events: Any) -> None:
    sessions = manager(store)
    hanging = sessions.stream("k", "hello")
    hanging.__enter__()
    events()
    with pytest.raises(ConversationBusy):
        sessions.send("k", "me too")
    assert events() == {"turn.begin_rejected": ("INFO", {"conversation": "k"})}
    hanging.__exit__(None, None, None)
    abandoned_turn(store, "gone")
    events()
    sessions.recover()
    assert events() == {"turn.recover_completed": ("WARNING", {"conversation": "gone", "turn": 1})}


def test_what_others_code_raises_is_logged_with_its_trace(
    store: Forgetful, events: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def observer(_: Any) -> None:
        raise ZeroDivisionError

    class Events:
        def __init__(self) -> None:
            self.left = [Result(session_id="s-1")]

        def __iter__(self) -> "Events":
            return self

        def __next__(self) -> Result:
            if not self.left:
                raise StopIteration
            return self.left.pop()

        def close(self) -> None:
            raise ZeroDivisionError

    class Provider:
        name = "provider"

        def stream(self, request: Any) -> Events:
            return Events()

    SessionManager(store, Provider(), observers=[observer]).send("k", "hello")
    assert eventually(lambda: "provider.close_failed" in caplog.messages)
    told = events()
    assert told["observer.call_failed"] == ("ERROR", {"conversation": "k", "transition": 1})
    assert told["provider.close_failed"] == (
        "ERROR",
        {"conversation": "k", "turn": 1, "error": "ZeroDivisionError"},
    )


def test_a_refused_commit_is_logged_and_a_conflict_is_not(store: Forgetful, events: Any) -> None:
    sessions = manager(store)
    sessions.send("k", "hello")
    events()
    version = sessions.conversations.get("k").version
    for error, logged in (
        (Conflict, {}),
        (StoreError, {"conversation": "k", "version": version, "error": "StoreError"}),
    ):
        store.refuses = error
        with pytest.raises(error):
            sessions.reset("k")
        assert events().get("store.commit_failed", ("ERROR", {})) == ("ERROR", logged)


def test_steps_that_a_crashed_server_had_forgotten_are_logged(sqlite_url: str, events: Any) -> None:
    with Forgetful(sqlite_url) as store:
        sessions = manager(store, [TextDelta("one"), Result(session_id="s-1")], [Result(session_id="s-1")])
        sessions.send("k", "hello")
        conversation = sessions.conversations.get("k")
        with sessions.stream("k", "again") as turn:
            events()
            undo(sqlite_url, conversation.version)
            list(turn)
        assert events()["store.restore_completed"] == (
            "WARNING",
            {"conversation": "k", "turn": 2, "version": conversation.version},
        )
        assert [stored.number for stored in sessions.conversations.turns("k")] == [1, 2]


def undo(url: str, version: int) -> None:
    """Leave a database as a server does that crashed and has forgotten the beginning of turn 2."""
    connection = sqlite3.connect(Path(url.removeprefix("sqlite:///")), isolation_level=None)
    connection.executescript(
        "DELETE FROM message WHERE turn = 2; DELETE FROM turn WHERE number = 2;"
        "UPDATE conversation SET turn_count = 1, message_count = 2, running_turn = NULL, running_owner = NULL, "
        f"running_until = NULL, version = {version}, "
        "updated_at = (SELECT ended_at FROM turn WHERE number = 1);"
    )
    connection.close()
