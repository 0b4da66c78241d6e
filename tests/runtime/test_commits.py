"""The commits of one turn: what a crashed server has forgotten of it is put back, and nobody else's turn is touched."""

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fsm import ConversationNotFound, Result, SessionManager, StoreError, TextDelta, TurnStatus, TurnSuperseded
from fsm.events import EXPIRED
from fsm.providers import DemoProvider
from persistence import SQLStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ANSWER = [TextDelta("one "), TextDelta("two"), Result(session_id="s-1")]


class Crashing(SQLStore):
    """A store whose server may crash."""

    epoch = 0


class Backups:
    """A store whose server can crash: it forgets commits that were not synced."""

    def __init__(self, url: str, store: "Crashing") -> None:
        self._store = store
        self._live = sqlite3.connect(url.removeprefix("sqlite:///"))
        self._kept = sqlite3.connect(":memory:")

    def keep(self) -> None:
        """Keep what is there now."""
        self._live.backup(self._kept)

    def put_back(self) -> None:
        """Forget all that was written since, as a server that crashes; the store notices that."""
        self._kept.backup(self._live)
        self._store.epoch += 1

    def close(self) -> None:
        """Be gone."""
        self._live.close()
        self._kept.close()


@pytest.fixture
def store(sqlite_url: str) -> Iterator[Crashing]:
    """A store on a file."""
    with Crashing(sqlite_url) as store:
        yield store


@pytest.fixture
def server(store: Crashing, sqlite_url: str) -> Iterator[Backups]:
    """The server that crashes."""
    server = Backups(sqlite_url, store)
    server.keep()
    yield server
    server.close()


def manager(store: SQLStore, *script: Any, **options: Any) -> SessionManager:
    """A manager whose provider does what the script says."""
    return SessionManager(store, DemoProvider(script), clock=lambda: NOW, **options)


def log(sessions: SessionManager, key: str = "k") -> list[Any]:
    """All that is stored of a conversation but the times."""
    return [
        [(message.turn, message.text) for message in sessions.conversations.messages(key)],
        [(turn.number, turn.status) for turn in sessions.conversations.turns(key)],
        [move.number for move in sessions.conversations.transitions(key)],
    ]


@pytest.mark.parametrize(("passed", "extended"), [(29.9, False), (30.0, True), (45.0, True)])
def test_a_lease_is_extended_as_soon_as_half_of_it_is_over(store: SQLStore, passed: float, extended: bool) -> None:
    now = NOW

    def speak() -> None:
        nonlocal now
        now = NOW + timedelta(seconds=passed)

    provider = DemoProvider([[speak, *ANSWER]])
    sessions = SessionManager(store, provider, lease=60, clock=lambda: now)
    with sessions.stream("k", "hello") as turn:
        next(iter(turn))
        running = sessions.conversations.get("k").running
        assert running is not None
        assert running.until == (now if extended else NOW) + timedelta(seconds=60)


def test_a_conversation_that_was_forgotten_altogether_is_stored_again(store: SQLStore, server: Backups) -> None:
    sessions = manager(store, ANSWER)
    with sessions.stream("k", "hello") as turn:
        server.put_back()
        assert store.load("k") is None
        assert list(turn) == ANSWER
    assert log(sessions) == [[(1, "hello"), (1, "one two")], [(1, TurnStatus.SUCCEEDED)], [1]]


def test_a_turn_that_was_forgotten_is_stored_again_with_all_its_steps(store: SQLStore, server: Backups) -> None:
    sessions = manager(store, ANSWER, Result(subtype=EXPIRED, is_error=True, session_id="s-1"), ANSWER[:2])
    sessions.send("k", "hello")
    server.keep()
    with sessions.stream("k", "again") as turn:
        next(iter(turn))
        server.put_back()
        turn_number = turn.number
    assert turn_number == 2
    assert log(sessions) == [
        [(1, "hello"), (1, "one two"), (2, "again"), (2, "one ")],
        [(1, TurnStatus.SUCCEEDED), (2, TurnStatus.INTERRUPTED)],
        [1, 2, 3],
    ]


def test_steps_that_were_not_forgotten_are_not_stored_again(store: SQLStore, server: Backups) -> None:
    sessions = manager(store, ANSWER, Result(subtype=EXPIRED, is_error=True, session_id="s-1"), ANSWER)
    sessions.send("k", "hello")
    with sessions.stream("k", "again") as turn:
        server.keep()
        next(iter(turn))
        server.put_back()
        list(turn)
    assert log(sessions)[1:] == [[(1, TurnStatus.SUCCEEDED), (2, TurnStatus.SUCCEEDED)], [1, 2, 3, 4]]


def test_a_turn_whose_number_another_has_taken_is_not_stored_over_it(store: SQLStore, server: Backups) -> None:
    sessions, other = manager(store, ANSWER), manager(store, ANSWER)
    with (
        pytest.raises(
            StoreError, match=r"conversation 'k': the database has lost the beginning of turn 1.* Send"
        ) as told,
        sessions.stream("k", "hello") as turn,
    ):
        next(iter(turn))
        server.put_back()
        SessionManager(store, DemoProvider([ANSWER]), clock=lambda: NOW + timedelta(seconds=1)).send("k", "theirs")
        list(turn)
    assert told.value.key == "k"
    assert log(other) == [[(1, "theirs"), (1, "one two")], [(1, TurnStatus.SUCCEEDED)], [1]]


def test_a_conversation_that_somebody_deleted_is_not_found(store: SQLStore) -> None:
    sessions = manager(store, ANSWER, ANSWER)
    sessions.send("k", "hello")
    with pytest.raises(ConversationNotFound), sessions.stream("k", "again") as turn:
        next(iter(turn))
        store.dialect.database.execute_sql("DELETE FROM conversation")
        list(turn)


@pytest.mark.parametrize(("resumed", "named"), [("s-1", "s-1"), ("s-1", "s-2")])
def test_ids_that_are_dead_are_not_marked_again_by_a_late_result(store: SQLStore, resumed: str, named: str) -> None:
    """G2: the worker that took over has found both dead before."""
    dead = Result(subtype=EXPIRED, is_error=True, session_id=named)
    sessions = manager(store, ANSWER)
    sessions.send("k", "hello")
    slow, quick = manager(store, [TextDelta("one "), dead]), manager(store, dead, ANSWER)
    with pytest.raises(TurnSuperseded), slow.stream("k", "slow") as turn:
        next(iter(turn))
        quick.reset("k", force=True)
        store.dialect.database.execute_sql(
            "INSERT INTO dead_id SELECT id, ?, 1, 1 FROM conversation UNION SELECT id, ?, 1, 1 FROM conversation",
            (resumed, named),
        )
        list(turn)
    assert store.dead(quick.conversations.get("k"), {resumed, named}) == {resumed, named}
    assert [message.text for message in quick.conversations.messages("k")] == ["hello", "one two", "slow", "one "]
