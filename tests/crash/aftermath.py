"""The checks after a crash: everything that a conversation has stored, and whether it goes on.

The disaster tests of one process share it: a loss of power, a failing disk.
"""

import functools
import os
import tempfile
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from fsm import TABLE, Conversation, Request, Result, SessionManager, State, TextDelta, Trigger, TurnStatus
from fsm._core.table import INITIAL
from fsm.events import EXPIRED
from fsm.records import Message, Session, Transition, Turn
from persistence import SQLStore
from persistence.queries import Statements

KEY = "ticket-42"
EDGES = {(row.source, row.trigger, row.target) for row in TABLE}


class Clock:
    """Counts milliseconds; ``leap`` lets every lease run out."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(milliseconds=1)
        return self.now

    def leap(self) -> None:
        self.now += timedelta(days=1)


class Mortal:
    """A provider whose sessions die when a test says so, and have names that no other has given."""

    name = "mortal"

    def __init__(self, names: str = "id") -> None:
        self._names = names
        self.requests: list[Request] = []
        self.results: list[Result] = []
        self.dead: set[str | None] = set()
        self.fails = False
        self.on_request: Any = None

    def stream(self, request: Request) -> Iterator[Any]:
        self.requests.append(request)
        if self.on_request is not None:
            self.on_request(len(self.requests))
        self.results.append(self._result(request))
        if self.results[-1].trigger is Trigger.SUCCEEDED:
            yield TextDelta(f"answer {len(self.requests)}")
        yield self.results[-1]

    def _result(self, request: Request) -> Result:
        if request.session_id in self.dead:
            return Result(subtype=EXPIRED, is_error=True, session_id=request.session_id, errors=("gone",))
        session_id = request.session_id or f"{self._names}-{len(self.requests)}"
        return Result(
            subtype="error_max_turns" if self.fails else "success", is_error=self.fails, session_id=session_id
        )


@frozen
class Rows:
    """Everything that is stored of one conversation."""

    conversation: Conversation
    messages: list[Message]
    turns: list[Turn]
    sessions: list[Session]
    transitions: list[Transition]

    @classmethod
    def of(cls, store: SQLStore) -> "Rows | None":
        """Return the stored records of the conversation of these tests."""
        found = store.load(KEY)
        if found is None:
            return None
        return cls(found, store.messages(found), store.turns(found), store.sessions(found), store.transitions(found))

    def check(self) -> None:
        """G1 and G5 to G7."""
        now = self.conversation
        assert (now.session_id is not None) == (now.state is State.ACTIVE), "G1"
        counts = (now.message_count, now.turn_count, now.session_number, now.transition_count)
        for rows, count in zip((self.messages, self.turns, self.sessions, self.transitions), counts, strict=True):
            assert [row.number for row in rows] == list(range(1, count + 1)), "G5: numbers"
        self._check_turns()
        self._check_log()
        open_now = [(session.number, session.session_id) for session in self.sessions if session.closed_reason is None]
        held = [] if now.state is State.STALE else [(now.session_number, now.session_id)]
        assert open_now == held, "G7: open sessions"
        assert [session.parent for session in self.sessions] == [None, *range(1, now.session_number)], "G7: parents"

    def _check_turns(self) -> None:
        running = self.conversation.running
        found = [turn.number for turn in self.turns if turn.status is TurnStatus.RUNNING]
        assert found == ([running.turn] if running else []), "G5: running turns"
        said = [(turn, list(rows)) for turn, rows in groupby(self.messages, key=lambda message: message.turn)]
        assert [turn for turn, _ in said] == [turn.number for turn in self.turns], "G5: a turn's messages"
        assert all(rows[0].role == "user" for _, rows in said), "G5: the user speaks first"
        for turn, (_, rows) in zip(self.turns, said, strict=True):
            assert (turn.first_message, turn.last_message) == (rows[0].number, rows[-1].number), "G5: a turn's messages"

    def _check_log(self) -> None:
        state, session, session_id, version = INITIAL, 1, None, 0
        for move in self.transitions:
            assert (move.source, move.trigger, move.target) in EDGES, "G6: no move of the table"
            assert move.source is state, "G6: no path"
            assert version <= move.version <= self.conversation.version, "G6: versions"
            state, session, session_id, version = move.target, move.session_number, move.session_id, move.version
        now = self.conversation
        assert (state, session, session_id) == (now.state, now.session_number, now.session_id), "G6: replayed"


def check_file(store: SQLStore) -> None:
    """Whether SQLite finds its file whole."""
    for pragma, fine in (("integrity_check", [("ok",)]), ("foreign_key_check", [])):
        with closing(store.dialect.database.execute_sql(f"PRAGMA {pragma}")) as cursor:
            assert cursor.fetchall() == fine, pragma


def takes_a_turn(manager: SessionManager, store: SQLStore, provider: Mortal) -> Rows:
    """The next turn succeeds (G9): nothing stored goes (G4), what was cut off is told, a dead id costs no more."""
    before, first = Rows.of(store), len(provider.requests)
    reply = manager.send(KEY, "and now?")
    after = Rows.of(store)
    assert after is not None
    after.check()
    assert reply.status is TurnStatus.SUCCEEDED
    assert reply.text == after.messages[-1].text == f"answer {len(provider.requests)}"
    assert after.conversation.session_id not in provider.dead, "G2"
    asked = [request.session_id for request in provider.requests[first:]]
    assert len(asked) <= 2, "G11"
    if len(asked) == 2:
        assert asked[0] in provider.dead, "asked twice without need"
        assert asked[1] is None, "G3"
    if before is not None:
        assert after.messages[: len(before.messages)] == before.messages, "G4"
        ended = [turn for turn in before.turns if turn.status is not TurnStatus.RUNNING]
        assert after.turns[: len(ended)] == ended
        for turn in before.turns[len(ended) :]:
            assert after.turns[turn.number - 1].status is TurnStatus.INTERRUPTED, "G9"
    return after


@pytest.fixture
def quick_folder() -> Iterator[Path]:
    """A folder in memory, where the system has one: hundreds of files are opened in it, and each is really synced."""
    memory = "/dev/shm"
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


@functools.cache
def _compiled(kind: type) -> dict[str, Any]:
    return {}


@pytest.fixture(autouse=True)
def compile_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of stores are opened here; their statements are compiled for the first one of each kind."""

    def statements(database: Any) -> Statements:
        known = _compiled(type(database))
        return known.setdefault("statements", known.get("statements") or Statements(database))

    monkeypatch.setattr("persistence.transactions.Statements", statements)


__all__ = ["KEY", "Clock", "Mortal", "Rows", "check_file", "compile_once", "quick_folder", "takes_a_turn"]
