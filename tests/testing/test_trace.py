"""Trace checking: what the library wrote is good, and each kind of damage is found where it is."""

import sqlite3
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest
from hypothesis import given

from fsm import Conversation, Event, Request, Result, SessionManager, State, Transition, Trigger
from fsm._core import decisions as decide
from fsm.content import as_blocks
from fsm.events import EXPIRED
from fsm.providers import DemoProvider
from fsm.testing import ReferenceStore, TraceError, check_database, check_log, strategies
from fsm.testing.trace import check_conversation
from persistence import SQLStore
from tests.properties.world import RefusingStore, World

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DEATH = Result(subtype=EXPIRED, is_error=True, session_id="demo-k-1")


def story(store: object, log: list[Transition] | None = None) -> None:
    """Seven turns: answered, healed, failed, found dead without healing, in a new session, late, running."""
    observers = [] if log is None else [log.append]
    options = {"clock": lambda: NOW, "observers": observers}
    provider = DemoProvider([None, DEATH, None, Result(is_error=True, http_status=429)])
    manager = SessionManager(store, provider, **options)
    for text in ("one", "two", "three"):
        manager.send("k", text)
    provider.forget()
    SessionManager(store, provider, heal=False, **options).send("k", "four")
    manager.send("k", "five")
    with manager.stream("k", "six") as late:
        next(late)
        other = SessionManager(store, provider, **options)
        other.reset("k", force=True)
        other.send("k", "seven")
        with pytest.raises(Exception, match="had been ended"):
            list(late)
    store.commit(
        decide.begin(
            store.load("k"),
            content=as_blocks("eight"),
            provider="demo",
            owner="a worker that was killed",
            now=NOW,
            lease=timedelta(minutes=1),
        )
    )


def test_a_database_of_every_kind_passes(store: SQLStore) -> None:
    """G1 to G7 on SQLite and PostgreSQL."""
    log: list[Transition] = []
    story(store, log)
    summary = check_database(store)
    conversation = store.load("k")
    assert (summary.conversations, summary.turns) == (1, 8)
    assert summary.transitions == conversation.transition_count == len(log)
    assert summary.messages == conversation.message_count == len(store.messages(conversation))
    assert check_log(log).transitions == len(log)
    assert str(summary).startswith("1 conversations, ")


@given(script=strategies.scripts(strategies.named_sends(), strategies.refused_writes()))
def test_whatever_happens_is_a_behaviour_of_the_machine(traced: RefusingStore, script: list[strategies.Step]) -> None:
    """G1 to G7, after any script with refused writes."""
    world = World(traced).play(script)
    if (conversation := world.conversation) is not None:
        check_conversation(traced, conversation)
        check_log(traced.transitions(conversation))


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> RefusingStore:
    """One real database for all examples, that is good as a whole in the end."""
    with RefusingStore(f"sqlite:///{tmp_path_factory.mktemp('db')}/chat.db", durability="relaxed") as store:
        yield store
        store.put_away()
        assert check_database(store).conversations


DAMAGE = [
    # what is done, and the place, number and guarantee that are named
    ("UPDATE conversation SET session_id = 'other'", "conversation", None, "G6"),
    ("UPDATE conversation SET state = 'stale', session_id = NULL", "conversation", None, "G6"),
    ("UPDATE conversation SET version = 1", "conversation", None, "G6"),
    ("UPDATE conversation SET version = 0", "conversation", None, "G5"),
    ("UPDATE conversation SET provider = 'other'", "conversation", None, "G15"),
    ("UPDATE conversation SET running_turn = 3", "conversation", None, "G5"),
    ("UPDATE conversation SET running_turn = NULL, running_until = NULL", "turn", 8, "G5"),
    ("UPDATE conversation SET turn_count = 7, running_turn = 7", "turn", 7, "G5"),
    ("UPDATE conversation SET message_count = message_count - 1", "turn", 8, "G5"),
    ("INSERT INTO dead_id SELECT id, session_id, 1, 0 FROM conversation", "conversation", None, "G2"),
    ("DELETE FROM dead_id", "conversation", None, "G2"),
    ("DELETE FROM transition WHERE number = 3", "transition", 3, "G5"),
    ("DELETE FROM transition WHERE number = (SELECT max(number) FROM transition)", "transition", 10, "G5"),
    ("UPDATE transition SET source = 'fresh' WHERE number = 2", "transition", 2, "G6"),
    ("UPDATE transition SET target = 'fresh' WHERE number = 2", "transition", 2, "G6"),
    ("UPDATE transition SET trigger = 'failed' WHERE number = 2", "transition", 2, "G6"),
    ("UPDATE transition SET session_id = 'x' WHERE number = 2", "transition", 2, "G1"),
    ("UPDATE transition SET session_id = 'demo-k-1' WHERE number = 4", "transition", 4, "G2"),
    ("UPDATE transition SET session_number = 1 WHERE number = 3", "transition", 3, "G6"),
    ("UPDATE transition SET version = 1 WHERE number = 2", "transition", 2, "G6"),
    ("UPDATE transition SET turn = 1 WHERE number = 5", "transition", 5, "G5"),
    ("UPDATE transition SET turn = NULL WHERE number = 5", "transition", 5, "G6"),
    ("UPDATE transition SET turn = 4 WHERE number = 5", "turn", 3, "G6"),
    ("UPDATE transition SET turn = 99 WHERE number = 10", "turn", 7, "G6"),
    ("UPDATE session SET parent = 1 WHERE number = 1", "session", 1, "G7"),
    ("UPDATE session SET parent = 1 WHERE number = 3", "session", 3, "G7"),
    ("UPDATE session SET closed_reason = 'x' WHERE number = 1", "session", 1, "G7"),
    ("UPDATE session SET closed_at = NULL, closed_reason = NULL WHERE number = 1", "session", 1, "G7"),
    ("UPDATE session SET opened_reason = 'x' WHERE number = 2", "session", 2, "G7"),
    ("UPDATE session SET session_id = 'x' WHERE number = 2", "session", 2, "G6"),
    ("UPDATE session SET session_id = 'x' WHERE number = 4", "session", 4, "G6"),
    ("UPDATE session SET closed_at = 1, closed_reason = 'x' WHERE number = 4", "session", 4, "G7"),
    ("DELETE FROM session WHERE number = 4", "session", 4, "G5"),
    ("UPDATE turn SET status = 'running' WHERE number = 2", "turn", 2, "G5"),
    ("UPDATE turn SET status = 'failed' WHERE number = 2", "turn", 2, "G6"),
    ("UPDATE turn SET ended_at = NULL WHERE number = 2", "turn", 2, "G5"),
    ("UPDATE turn SET state = 'stale' WHERE number = 2", "turn", 2, "G6"),
    ("UPDATE turn SET subtype = NULL, status = 'interrupted' WHERE number = 2", "turn", 2, "G6"),
    ("UPDATE turn SET healed = 1 WHERE number = 3", "turn", 3, "G11"),
    ("UPDATE turn SET session_id = 'never marked' WHERE number = 4", "turn", 4, "G2"),
    ("UPDATE turn SET session_number = 3 WHERE number = 2", "turn", 3, "G7"),
    ("UPDATE turn SET first_message = 1 WHERE number = 2", "turn", 2, "G5"),
    ("UPDATE turn SET last_message = 99 WHERE number = 2", "turn", 2, "G5"),
    ("UPDATE turn SET last_message = 5 WHERE number = 2", "turn", 2, "G5"),
    ("UPDATE turn SET last_message = 3 WHERE number = 2", "message", 4, "G5"),
    ("UPDATE turn SET last_message = first_message WHERE number = 6", "message", 12, "G5"),
    ("DELETE FROM turn WHERE number = 8", "turn", 8, "G5"),
    ("UPDATE message SET role = 'assistant' WHERE number = 3", "message", 3, "G5"),
    ("UPDATE message SET turn = 2 WHERE number = 2", "turn", 1, "G5"),
    ("UPDATE message SET turn = 7 WHERE number = 2", "message", 2, "G5"),
    ("UPDATE message SET turn = 5 WHERE number = 12", "turn", 6, "G5"),
    ("DELETE FROM message WHERE number = 3", "message", 3, "G5"),
    ("DELETE FROM message WHERE number = 1", "message", 1, "G5"),
]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A database file in which all is well."""
    path = tmp_path_factory.mktemp("good") / "chat.db"
    with SQLStore(f"sqlite:///{path}") as store:
        story(store)
        check_database(store)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return path.read_bytes()


@pytest.mark.parametrize(("damage", "table", "number", "guarantee"), DAMAGE, ids=str)
def test_each_kind_of_damage_is_found_where_it_is(
    good: bytes, tmp_path: Path, damage: str, table: str, number: int | None, guarantee: str
) -> None:
    """By a hand that goes round the library and the constraints of the database."""
    path = tmp_path / "chat.db"
    path.write_bytes(good)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA ignore_check_constraints = 1")
    connection.execute("DROP INDEX session_open")
    connection.execute("DROP INDEX turn_running")
    assert connection.execute(damage).rowcount
    connection.close()
    with SQLStore(f"sqlite:///{path}") as store, pytest.raises(TraceError) as caught:
        check_database(store)
    error = caught.value
    assert (error.key, error.table, error.number, error.guarantee) == ("k", table, number, guarantee), error
    assert str(error).startswith(f"conversation 'k': {table}")


def test_a_conversation_that_is_written_meanwhile_is_read_again() -> None:
    """The rows read before and after do not agree, which is not a fault."""

    class Busy(ReferenceStore):
        def turns(self, conversation: Conversation, **bounds: object) -> list[object]:
            if conversation.turn_count == 1:
                SessionManager(self, DemoProvider()).send("k", "again")
            return super().turns(conversation, **bounds)

    store = Busy()
    SessionManager(store, DemoProvider()).send("k", "hello")
    assert check_database(store).turns == 2


def test_a_conversation_that_is_deleted_meanwhile_is_not_counted() -> None:
    """Retention may do that at any time."""

    class Deleting(ReferenceStore):
        def turns(self, conversation: Conversation, **bounds: object) -> list[object]:
            self._rows.pop("k", None)
            return super().turns(conversation, **bounds)

    store = Deleting()
    SessionManager(store, DemoProvider()).send("k", "hello")
    assert check_database(store).conversations == 0


def test_any_number_of_conversations_is_read_in_pages() -> None:
    """And of messages."""
    store = ReferenceStore()
    manager = SessionManager(store, DemoProvider())
    for number in range(205):
        manager.send(f"k{number}", "hello")
        manager.send("long", "hello")
    summary = check_database(store)
    assert (summary.conversations, summary.messages) == (206, 820)


class Brief:
    """A provider whose answers do not grow."""

    name = "brief"

    def stream(self, _: Request) -> Iterator[Event]:
        yield Result(session_id="s-1", text="yes")


def test_a_database_of_any_size_is_read_in_constant_memory() -> None:
    """Four times as many conversations and messages, and not more of them held at once."""
    peaks = []
    with SQLStore("sqlite:///:memory:") as store:
        manager = SessionManager(store, Brief())
        for count in (400, 1600):
            for number in range(count):
                manager.send(f"k{number}", "hello")
            for _ in range(count):
                manager.send("k0", "hello")
            tracemalloc.start()
            check_database(store)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def test_a_log_of_many_conversations_is_told_apart() -> None:
    """In any interleaving; each is checked by itself."""
    log: list[Transition] = []
    manager = SessionManager(ReferenceStore(), DemoProvider(), observers=[log.append])
    for key in ("a", "b", "a", "b"):
        manager.send(key, "hello")
    assert (check_log(log).conversations, check_log(log).transitions) == (2, 4)
    with pytest.raises(TraceError, match=r"'b': transition 2 breaks G5"):
        check_log([move for move in log if (move.key, move.number) != ("b", 1)])
    with pytest.raises(TraceError, match="breaks G1"):
        check_log([attrs.evolve(log[0], session_id=None)])
    wrong = attrs.evolve(log[2], source=State.ACTIVE, trigger=Trigger.RESET, target=State.FRESH, session_id=None)
    with pytest.raises(TraceError, match="session 1, but 2 was due"):
        check_log([log[0], wrong])


def test_a_state_that_does_not_go_with_what_is_held_is_found_in_any_store() -> None:
    """G1; the store for SQL databases refuses to read such a row at all."""
    store = ReferenceStore()
    story(store)
    rows = store._rows["k"]
    store._rows["k"] = attrs.evolve(rows, conversation=attrs.evolve(rows.conversation, session_id=None))
    with pytest.raises(TraceError, match="conversation breaks G1: it is active and holds None"):
        check_database(store)
