"""The SQL store: steps are written whole or not at all, read back equal, and guarded by their version."""

import itertools
import os
import re
import sqlite3
import stat
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import psycopg
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from peewee import IntegrityError, PeeweeException, SqliteDatabase

from fsm import (
    Conflict,
    Conversation,
    CorruptRecord,
    InvalidInput,
    Message,
    Result,
    SchemaVersionError,
    SessionManager,
    State,
    StoreError,
    TurnStatus,
)
from fsm._core import decisions as decide
from fsm._core.effects import BindSession, CloseSession, EndTurn, ExtendTurn, StartTurn, Step
from fsm._core.turn import Answer
from fsm.content import text_block, well_formed
from fsm.events import EXPIRED
from fsm.providers import DemoProvider
from fsm.testing import ReferenceStore
from persistence import SQLStore
from persistence.arguments import EVERYTHING
from persistence.queries import Statements
from tests.test_content import JSON

NOW = datetime(2026, 1, 1, 12, 30, 15, 123456, tzinfo=UTC)
LEASE = timedelta(seconds=60)
NEW = Conversation(key="k", id=1, created_at=NOW, updated_at=NOW)
HELLO = (text_block("hello"),)
SAID = Answer((("assistant", HELLO, None),))
DEAD = Result(subtype=EXPIRED, is_error=True, session_id="s-2")


def begin(conversation: Conversation, **changes: Any) -> Step:
    """A turn of owner o at provider demo."""
    arguments = {"content": HELLO, "provider": "demo", "owner": "o", "now": NOW, "lease": LEASE}
    return decide.begin(conversation, **{**arguments, **changes})


def finish(conversation: Conversation, result: Result, answer: Answer = SAID) -> Step:
    """The end of the running turn."""
    return decide.finish(
        conversation,
        turn=conversation.turn_count,
        owner="o",
        result=result,
        answer=attrs.evolve(answer, result=result),
        now=NOW,
    )


def reset(conversation: Conversation) -> Step:
    """A forced reset."""
    return decide.reset(conversation, reason="r", provider="demo", now=NOW, force=True)


def committed(store: SQLStore, *steps: Any) -> Conversation:
    """The conversation after steps, each made from the snapshot before."""
    conversation = NEW
    for make in steps:
        step = make(conversation)
        store.commit(step)
        conversation = step.after
    return conversation


@pytest.fixture
def sqlite_store(sqlite_url: str) -> Iterator[SQLStore]:
    """A store on a file, for what only SQLite has."""
    with SQLStore(sqlite_url) as store:
        yield store


def everything(url: str) -> dict[str, list[Any]]:
    """All rows of all tables, read past the store."""
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    tables = ["conversation", "session", "turn", "message", "transition", "dead_id"]
    rows = {table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in tables}
    connection.close()
    return rows


def test_what_is_committed_is_read_back_equal(store: SQLStore) -> None:
    result = Result(
        session_id="s-1",
        errors=("e", "é"),
        stop_reason="end_turn",
        usage={"tokens": 3},
        cost_usd=0.25,
        http_status=200,
    )
    answer = Answer((("assistant", HELLO, {"container": "c"}), ("user", HELLO, None)), healed=True)
    steps = [
        lambda c: begin(c, idempotency_key="i", metadata={"ü": [1, None]}),
        lambda c: finish(c, result, answer),
        begin,
        lambda c: finish(c, DEAD, Answer()),
        begin,
    ]
    conversation = NEW
    for make in steps:
        step = make(conversation)
        store.commit(step)
        conversation = store.load("k")
        assert conversation == step.after
    messages = store.messages(conversation)
    assert [(m.number, m.turn, m.role, m.content, m.provider_data) for m in messages] == [
        (1, 1, "user", HELLO, None),
        (2, 1, "assistant", HELLO, {"container": "c"}),
        (3, 1, "user", HELLO, None),
        (4, 2, "user", HELLO, None),
        (5, 3, "user", HELLO, None),
    ]
    assert {m.created_at for m in messages} == {NOW}
    first, second, third = store.turns(conversation)
    assert (first.status, first.subtype, first.session_id, first.errors) == (
        TurnStatus.SUCCEEDED,
        "success",
        "s-1",
        ("e", "é"),
    )
    assert (first.stop_reason, first.usage, first.cost_usd, first.http_status) == ("end_turn", {"tokens": 3}, 0.25, 200)
    assert (first.healed, first.idempotency_key, first.state) == (True, "i", State.ACTIVE)
    assert (first.first_message, first.last_message, first.started_at, first.ended_at) == (1, 3, NOW, NOW)
    assert (second.status, second.is_error, second.state) == (TurnStatus.FAILED, True, State.STALE)
    assert (third.status, third.session_number, third.ended_at, third.state) == (TurnStatus.RUNNING, 2, None, None)
    assert [s.closed_reason for s in store.sessions(conversation)] == [EXPIRED, None]
    assert store.sessions(conversation)[0].session_id == "s-1"
    assert [m.number for m in store.transitions(conversation)] == [1, 2, 3]
    assert store.dead(conversation, {"s-1", "s-2"}) == {"s-1", "s-2"}
    assert store.dead(conversation, {"s-3"}) == frozenset()
    assert store.dead(conversation, ["s-4", "s-3", "s-2", "s-5", "s-1"]) == {"s-1", "s-2"}
    assert store.turn_by_idempotency_key(conversation, "i") == first
    assert store.turn_by_idempotency_key(conversation, "j") is None
    assert [m.number for m in store.turn_messages(conversation, first)] == [1, 2, 3]


ANY_TEXT = st.text(st.characters(exclude_categories=()), min_size=1)


@given(value=JSON, text=ANY_TEXT, data=st.none() | st.dictionaries(st.text(max_size=3), JSON, max_size=2))
@example(value=0, text="half of \ud83d and a NUL \0", data=None)
def test_any_json_and_any_text_a_provider_sends_is_read_back_equal(value: Any, text: str, data: Any) -> None:
    with SQLStore("sqlite:///:memory:") as store:
        blocks = ({"type": "x", "value": value}, text_block(text))
        result = Result(usage={"v": value}, errors=(text,))
        conversation = committed(store, begin, lambda c: finish(c, result, Answer((("assistant", blocks, data),))))
        stored = store.messages(conversation)[-1]
        assert (stored.content, stored.provider_data) == (blocks, data)
        assert store.turns(conversation)[0].errors == (well_formed(text),)
        assert store.turns(conversation)[0].usage == {"v": value}


def test_a_step_from_an_old_snapshot_is_a_conflict_and_writes_nothing(sqlite_store: SQLStore, sqlite_url: str) -> None:
    committed(sqlite_store, begin)
    before = everything(sqlite_url)
    for stale, why in (
        (begin(NEW), "another writer began it first"),
        (begin(attrs.evolve(NEW, id=2)), "another writer began it first"),
        (finish(attrs.evolve(begin(NEW).after, version=7), DEAD), "it is not at version 7 any more"),
    ):
        with pytest.raises(Conflict, match=f"conversation 'k': {why}; load it and decide again"):
            sqlite_store.commit(stale)
    assert everything(sqlite_url) == before


def test_a_step_from_a_commit_that_the_database_forgot_is_a_conflict_even_at_the_same_version(
    sqlite_store: SQLStore, sqlite_url: str
) -> None:
    """G10: a crash may undo a commit that was not synced; what was then committed in its place is somebody else's."""
    committed(sqlite_store, begin)
    forgotten = attrs.evolve(begin(NEW).after, updated_at=NOW - timedelta(microseconds=1))
    before = everything(sqlite_url)
    with pytest.raises(Conflict, match="conversation 'k'"):
        sqlite_store.commit(finish(forgotten, DEAD))
    assert everything(sqlite_url) == before


@pytest.mark.parametrize("row", range(6))
def test_a_step_that_the_database_refuses_half_way_is_not_there_at_all(
    sqlite_store: SQLStore, sqlite_url: str, row: int
) -> None:
    conversation = committed(sqlite_store, begin, lambda c: finish(c, Result(session_id="s-1")), begin)
    before = everything(sqlite_url)
    step = finish(conversation, DEAD)
    broken = attrs.evolve(
        step,
        effects=(
            *step.effects[:row],
            EndTurn(number=99, session_number=1, status=TurnStatus.FAILED, state=State.FRESH, last_message=1, at=NOW),
        ),
    )
    with pytest.raises(StoreError, match="conversation 'k': a row that this step changes is missing"):
        sqlite_store.commit(broken)
    assert everything(sqlite_url) == before
    sqlite_store.commit(step)
    assert sqlite_store.load("k") == step.after


@pytest.mark.parametrize(
    "effect",
    [
        EndTurn(number=1, session_number=1, status=TurnStatus.FAILED, state=State.FRESH, last_message=2, at=NOW),
        BindSession(1, "s-9"),
        CloseSession(1, "another reason", NOW),
        ExtendTurn(99, 1),
    ],
    ids=lambda effect: type(effect).__name__,
)
def test_what_is_ended_or_closed_is_never_changed_again(sqlite_store: SQLStore, sqlite_url: str, effect: Any) -> None:
    reset = [lambda c: decide.reset(c, reason="r", provider="demo", now=NOW)]
    conversation = committed(sqlite_store, begin, lambda c: finish(c, Result(session_id="s-1")), *reset)
    before = everything(sqlite_url)
    step = begin(conversation)
    with pytest.raises(StoreError, match="missing or already closed"):
        sqlite_store.commit(attrs.evolve(step, effects=(*step.effects, effect)))
    assert everything(sqlite_url) == before


def test_the_messages_of_a_turn_are_its_own(store: SQLStore) -> None:
    conversation = committed(store, begin, lambda c: finish(c, Result(session_id="s")), begin)
    late = decide.record_late_result(conversation, turn=1, answer=SAID, now=NOW)
    assert late is not None
    store.commit(late)
    first, second = store.turns(conversation)
    assert [message.number for message in store.turn_messages(conversation, first)] == [1, 2, 4]
    assert [message.number for message in store.turn_messages(conversation, second)] == [3]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("url", ["file", "sqlite:///:memory:"])
def test_a_child_process_has_its_own_connection_and_finds_what_was_stored(sqlite_url: str, url: str) -> None:
    with SQLStore(sqlite_url if url == "file" else url) as store:
        left = committed(store, begin)
        connection = store.dialect.database.connection()
        child = os.fork()
        if not child:
            is_new = store.dialect.database.connection() is not connection
            os._exit(not (store.load("k") == left and is_new == (url == "file")))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert store.load("k") == left


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO session SELECT conversation, 9, parent, provider, NULL, opened_at, 'r', NULL, NULL FROM session",
        "UPDATE conversation SET state = 'lost'",
        "UPDATE conversation SET session_id = 's'",
        "UPDATE session SET closed_at = 1",
        "UPDATE turn SET status = 'done'",
        "INSERT INTO message SELECT 99, number, turn, role, content, created_at, provider_data FROM message",
        "INSERT INTO message SELECT conversation, 9, 9, role, content, created_at, provider_data FROM message",
        "UPDATE message SET role = 'system'",
        "UPDATE conversation SET version = 'many'",
    ],
)
def test_the_database_itself_refuses_rows_that_break_a_guarantee(sqlite_store: SQLStore, sql: str) -> None:
    committed(sqlite_store, begin)
    with pytest.raises(Exception, match=r"constraint failed|cannot store TEXT"):
        sqlite_store.dialect.database.execute_sql(sql)


def test_one_running_turn_and_one_turn_for_an_idempotency_key(sqlite_store: SQLStore) -> None:
    committed(sqlite_store, lambda c: begin(c, idempotency_key="i"))
    copy = (
        "INSERT INTO turn SELECT conversation, 9, session_number, '{}', first_message, last_message, started_at, {}, "
        "subtype, is_error, session_id, errors, stop_reason, usage, cost_usd, http_status, healed, {}, {}, "
        "brings_results "
        "FROM turn"
    )
    with pytest.raises(Exception, match=r"UNIQUE constraint failed: turn.conversation"):
        sqlite_store.dialect.database.execute_sql(copy.format("running", "NULL", "NULL", "NULL"))
    with pytest.raises(Exception, match=r"UNIQUE constraint failed: turn.conversation, turn.idempotency_key"):
        sqlite_store.dialect.database.execute_sql(copy.format("failed", "1", "'fresh'", "idempotency_key"))


def test_a_violation_is_told_without_the_values_of_the_row(store: SQLStore) -> None:
    conversation = committed(store, begin)
    bad = Message(number=1, turn=1, role="user", content=(text_block("secret"),), created_at=NOW)
    step = finish(conversation, Result(), Answer((("assistant", bad.content, None),)))
    again = attrs.evolve(step, effects=(step.effects[1], step.effects[1]))
    with pytest.raises(StoreError, match="a row was refused") as caught:
        store.commit(again)
    assert "secret" not in str(caught.value)


def test_pages_are_the_newest_rows_before_a_number_oldest_first(store: SQLStore) -> None:
    conversation = committed(store, *[begin, lambda c: finish(c, Result(session_id="s"))] * 5)
    for read, count in ((store.messages, 10), (store.turns, 5), (store.transitions, 5), (store.sessions, 1)):
        numbers = list(range(1, count + 1))
        assert [row.number for row in read(conversation)] == numbers
        assert [row.number for row in read(conversation, limit=EVERYTHING, before=EVERYTHING)] == numbers
        assert [row.number for row in read(conversation, limit=3)] == numbers[-3:]
        assert [row.number for row in read(conversation, before=4)] == numbers[:3]
        assert [row.number for row in read(conversation, limit=2, before=4)] == numbers[:3][-2:]
        assert list(read(conversation, limit=0)) == []
        with pytest.raises(InvalidInput, match="limit is -1"):
            read(conversation, limit=-1)
        with pytest.raises(InvalidInput, match="before is -1"):
            read(conversation, before=-1)


def test_the_context_is_of_succeeded_turns_of_the_sessions_asked_for(store: SQLStore) -> None:
    good, bad = Result(session_id="s"), Result(is_error=True)
    steps = [begin, lambda c: finish(c, good), begin, lambda c: finish(c, bad), begin, lambda c: finish(c, good)]
    reset = [lambda c: decide.reset(c, reason="r", provider="demo", now=NOW)]
    conversation = committed(store, *steps, *reset, begin, lambda c: finish(c, good), begin)

    def numbers(first: int, last: int, limit: int | None = None) -> list[int]:
        found = store.context(conversation, first_session=first, last_session=last, limit=limit)
        return [message.number for message in found]

    assert numbers(1, 2) == [1, 2, 5, 6, 7, 8]
    assert numbers(1, 1) == [1, 2, 5, 6]
    assert numbers(2, 2) == [7, 8]
    assert numbers(1, 2, 3) == [6, 7, 8]
    assert numbers(1, 0) == []


def test_tool_results_of_turns_that_did_not_succeed_are_found_by_their_sessions(store: SQLStore) -> None:
    good, bad = Result(session_id="s"), Result(is_error=True)

    def bring(conversation: Conversation) -> Step:
        step = begin(conversation)
        effects = [
            attrs.evolve(effect, turn=attrs.evolve(effect.turn, brings_results=True))
            if isinstance(effect, StartTurn)
            else effect
            for effect in step.effects
        ]
        return attrs.evolve(step, effects=tuple(effects))

    def cut_off(conversation: Conversation) -> Step:
        return decide.interrupt(conversation, turn=conversation.turn_count, owner="o", answer=SAID, now=NOW)

    first = [begin, lambda c: finish(c, good), bring, lambda c: finish(c, bad), bring, cut_off, begin, cut_off]
    second = [bring, lambda c: finish(c, good), bring, reset, bring]
    conversation = committed(store, *first, reset, *second)
    assert [turn.brings_results for turn in store.turns(conversation)] == [False, True, True, False, *[True] * 3]

    def numbers(first: int, last: int, limit: int | None = None) -> list[int]:
        found = store.unheard(conversation, first_session=first, last_session=last, limit=limit)
        return [message.number for message in found]

    assert numbers(1, 3) == [3, 5, 11]
    assert numbers(1, 1) == [3, 5]
    assert numbers(2, 3) == [11]
    assert numbers(1, 3, 2) == [5, 11]
    assert numbers(1, 3, 0) == numbers(3, 3) == []


def test_a_window_is_changed_by_any_commit(store: SQLStore) -> None:
    conversation = NEW
    for make, window in ((begin, None), (lambda c: finish(c, Result()), 1000), (begin, 500), (reset, None)):
        step = make(conversation)
        conversation = attrs.evolve(step.after, window=window)
        store.commit(attrs.evolve(step, after=conversation))
        assert store.load("k") == conversation


def test_a_negative_limit_is_refused_wherever_there_is_one(store: SQLStore) -> None:
    conversation = committed(store, begin)
    for read in (
        lambda: store.conversations(limit=-1),
        lambda: store.running(limit=-1),
        lambda: store.context(conversation, first_session=1, last_session=1, limit=-1),
        lambda: store.unheard(conversation, first_session=1, last_session=1, limit=-1),
    ):
        with pytest.raises(InvalidInput, match="limit is -1"):
            read()


def test_running_conversations_are_found_by_their_lease(store: SQLStore) -> None:
    for number in range(3):
        new = attrs.evolve(NEW, key=f"k{number}", id=number)
        store.commit(begin(new, lease=timedelta(seconds=90 - 10 * number)))
    assert [conversation.key for conversation in store.running()] == ["k2", "k1", "k0"]
    assert [c.key for c in store.running(until=NOW + timedelta(seconds=80))] == ["k2", "k1"]
    assert [c.key for c in store.running(limit=1)] == ["k2"]


def test_all_running_conversations_are_read_page_by_page(store: SQLStore) -> None:
    for number in range(7):
        new = attrs.evolve(NEW, key=f"k{number}", id=number)
        store.commit(begin(new, lease=timedelta(seconds=90 - number // 3)))
    found: list[str] = []
    page = store.running(limit=2)
    while page:
        found += [conversation.key for conversation in page]
        store.commit(finish(page[-1], Result()))
        page = store.running(limit=2, after=page[-1])
    assert found == ["k6", "k3", "k4", "k5", "k0", "k1", "k2"]
    over = NOW + timedelta(seconds=89)
    assert [c.key for c in store.running(until=over, after=store.running()[0])] == ["k4"]
    ended = store.load("k2")
    assert ended is not None
    with pytest.raises(InvalidInput, match="conversation 'k2': no turn runs in"):
        store.running(after=ended)


def test_the_messages_of_a_turn_are_those_that_it_has_by_now(store: SQLStore) -> None:
    reference = ReferenceStore()
    steps = [begin, lambda c: finish(c, Result(session_id="s")), begin]
    read = []
    for one in (store, reference):
        conversation = NEW
        for make in steps:
            step = make(conversation)
            one.commit(step)
            conversation = step.after
        (first, _) = one.turns(conversation)
        late = decide.record_late_result(conversation, turn=1, answer=SAID, now=NOW)
        assert late is not None
        one.commit(late)
        read.append([message.number for message in one.turn_messages(conversation, first)])
    assert read == [[1, 2, 4]] * 2


def test_conversations_are_listed_from_the_first_key_on(store: SQLStore) -> None:
    for number, key in enumerate(["!", "a", "Z", "\x01"]):
        store.commit(begin(attrs.evolve(NEW, key=key, id=number)))
    assert {conversation.key for conversation in store.conversations()} == {"!", "a", "Z", "\x01"}


def test_an_error_of_peewees_own_is_not_tried_again(sqlite_store: SQLStore) -> None:
    assert not sqlite_store.dialect.may_retry(PeeweeException("a connection that was not opened"))


def test_a_database_is_found_as_it_was_left(url: str) -> None:
    with SQLStore(url) as store:
        left = committed(store, begin, lambda c: finish(c, Result(session_id="s")))
    with SQLStore(url) as store:
        assert store.load("k") == left
        assert len(store.messages(left)) == 2


def test_a_file_is_its_owners_only_and_runs_in_wal_mode_with_foreign_keys(
    sqlite_store: SQLStore, sqlite_url: str
) -> None:
    committed(sqlite_store, begin)
    path = Path(sqlite_url.removeprefix("sqlite:///"))
    files = [path, path.with_name("chat.db-wal"), path.with_name("chat.db-shm")]
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600] * 3
    assert sqlite_store.dialect.database.pragma("journal_mode") == "wal"
    assert sqlite_store.dialect.database.pragma("foreign_keys") == 1
    assert sqlite_store.dialect.database.pragma("busy_timeout") == 10_000


@pytest.mark.parametrize(
    ("durability", "begun", "ended"), [("acknowledged", 1, 2), ("strict", 2, 2), ("relaxed", 1, 1)]
)
def test_durability_decides_which_commits_are_synced(sqlite_url: str, durability: Any, begun: int, ended: int) -> None:
    """1 is NORMAL, which in WAL mode does not sync; 2 is FULL, which does."""
    with SQLStore(sqlite_url, durability=durability) as store:
        step = begin(NEW)
        store.commit(step)
        assert store.dialect.database.pragma("synchronous") == begun
        store.commit(finish(step.after, Result()))
        assert store.dialect.database.pragma("synchronous") == ended


def test_many_threads_may_use_one_store(sqlite_url: str) -> None:
    for where in (sqlite_url, "sqlite:///:memory:"):
        with SQLStore(where) as store:
            threads = [
                threading.Thread(
                    target=lambda n: store.commit(begin(attrs.evolve(NEW, key=f"k{n:02}", id=n))), args=(number,)
                )
                for number in range(16)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(timeout=30)
            assert [c.key for c in store.conversations()] == [f"k{number:02}" for number in range(16)]


def test_two_writers_of_one_snapshot_one_conflict(url: str) -> None:
    with SQLStore(url) as store:
        step = begin(NEW)
        barrier = threading.Barrier(8)
        outcomes: list[str] = []

        def write() -> None:
            barrier.wait(timeout=30)
            try:
                store.commit(step)
            except Conflict:
                outcomes.append("conflict")
            else:
                outcomes.append("committed")

        threads = [threading.Thread(target=write) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
        assert sorted(outcomes) == ["committed", *["conflict"] * 7]


def test_a_writer_waits_for_another_as_long_as_it_was_told(sqlite_url: str) -> None:
    with SQLStore(sqlite_url, timeout=0.05) as store:
        other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="database is locked"):
            store.commit(begin(NEW))
        other.execute("ROLLBACK")
        other.close()
        store.commit(begin(NEW))
        assert store.load("k") is not None


def test_a_writer_goes_on_as_soon_as_the_other_is_done(sqlite_url: str) -> None:
    """Also where SQLite's own busy handler gives up at once: on a database that is being recovered or converted."""
    with SQLStore(sqlite_url) as store:
        other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        store.dialect.database.execute_sql("PRAGMA busy_timeout = 0")
        timer = threading.Timer(0.05, other.execute, ["ROLLBACK"])
        timer.start()
        store.commit(begin(NEW))
        timer.join(timeout=30)
        other.close()
        assert store.load("k") is not None


def test_a_database_that_somebody_else_is_creating_is_waited_for(sqlite_url: str) -> None:
    """Two who opened a new file at once could meet where SQLite gives up at once, and one of them failed."""
    other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.05, other.execute, ["ROLLBACK"])
    timer.start()
    with SQLStore(sqlite_url) as store:
        timer.join(timeout=30)
        other.close()
        store.commit(begin(NEW))


@pytest.mark.parametrize("where", ["file", "memory"])
def test_a_full_disk_refuses_the_step_and_loses_nothing(sqlite_url: str, where: str) -> None:
    with SQLStore(sqlite_url if where == "file" else "sqlite:///:memory:") as store:
        conversation = committed(store, begin)
        pages = store.dialect.database.pragma("page_count")
        store.dialect.database.pragma("max_page_count", pages)
        long = Answer((("assistant", (text_block("x" * 100_000),), None),))
        with pytest.raises(StoreError, match="database or disk is full"):
            store.commit(finish(conversation, Result(), long))
        assert store.load("k") == conversation
        store.dialect.database.pragma("max_page_count", pages + 100)
        store.commit(finish(conversation, Result(), long))
        assert len(store.messages(conversation)) == 2


def test_closing_closes_the_connections_of_all_threads(sqlite_url: str) -> None:
    store = SQLStore(sqlite_url)
    hold = threading.Event()
    ready = threading.Event()

    def use() -> None:
        store.load("k")
        ready.set()
        hold.wait(timeout=30)

    thread = threading.Thread(target=use)
    thread.start()
    assert ready.wait(timeout=30)
    connections = list(store.dialect.connections.all)
    store.close()
    hold.set()
    thread.join(timeout=30)
    assert len(connections) == 2
    for connection in connections:
        with pytest.raises(sqlite3.ProgrammingError):
            connection.execute("SELECT 1")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("chat.db", "'chat.db' is not a database URL; write sqlite:///chat.db"),
        ("user:password", "this is not a database URL; write sqlite:///chat.db or postgresql://host/name"),
        ("mysql://user:password@host/db", "unknown database scheme 'mysql'"),
        ("sqlite://chat.db", "two slashes; a file takes three: sqlite:///chat.db"),
        ("sqlite:////no/such/folder/chat.db", "'/no/such/folder/chat.db' can't be opened for writing: No such file"),
        ("sqlite:///a\0b", "can't be opened for writing: embedded null byte"),
        ("sqlite:////", "can't be opened for writing: Is a directory"),
    ],
)
def test_a_url_that_names_no_database_is_refused(url: str, why: str) -> None:
    with pytest.raises(StoreError) as caught:
        SQLStore(url)
    assert why in str(caught.value)
    assert "password" not in str(caught.value)


def test_migrations_are_kept_in_a_table_of_the_librarys_own(sqlite_store: SQLStore) -> None:
    """An application may have migrations, too, in the same database."""
    assert "conversation_fsm_migration" in sqlite_store.dialect.database.get_tables()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite://:memory:", "sqlite:///", "sqlite:///:memory:"])
def test_memory_has_several_names(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with SQLStore(url) as store:
        assert store.load("k") is None
    assert list(tmp_path.iterdir()) == []


def test_a_file_may_have_any_name_and_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "odd:"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    with SQLStore("sqlite:///odd://chat.db") as store:
        monkeypatch.chdir(folder)
        step = begin(NEW)
        store.commit(step)
        store.dialect.database.close()
        assert store.load("k") == step.after
    assert (folder / "chat.db").exists()


def test_a_file_that_is_gone_is_not_written_anew(sqlite_store: SQLStore, sqlite_url: str) -> None:
    """Nobody would find what was written; with the file all is well again (G16)."""
    step = begin(committed(sqlite_store, begin, lambda c: finish(c, Result())))
    path = Path(sqlite_url.removeprefix("sqlite:///"))
    path.rename(path.with_name("moved"))
    with pytest.raises(StoreError, match=r"conversation 'k': the database file '.*chat\.db' .*(?i:put .* back)"):
        sqlite_store.commit(step)
    with pytest.raises(StoreError, match=r"conversation 'k': the database file '.*chat\.db' is gone; put it back"):
        sqlite_store.load("k")
    assert not path.exists()
    path.with_name("moved").rename(path)
    sqlite_store.commit(step)
    assert sqlite_store.load("k") == step.after


def test_a_durability_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidInput, match="durability 'eternal' is none of acknowledged, strict, relaxed"):
        SQLStore("sqlite:///:memory:", durability="eternal")  # type: ignore[arg-type]


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are notes, and no database at all " * 100)
    with pytest.raises(StoreError, match="file is not a database"):
        SQLStore(f"sqlite:///{path}")
    assert path.read_text() == "these are notes, and no database at all " * 100


def test_a_database_of_a_newer_version_is_refused(url: str) -> None:
    with SQLStore(url) as store:
        store.dialect.database.execute_sql(
            "INSERT INTO conversation_fsm_migration (name, applied) VALUES ('0099_the_future', '2030-01-01')"
        )
    with pytest.raises(SchemaVersionError, match="'0099_the_future', which this version"):
        SQLStore(url)


def test_a_database_that_is_opened_by_many_at_once_is_migrated_once(url: str) -> None:
    """By threads here; processes take the same lock in the database."""
    stores: list[SQLStore] = []
    threads = [threading.Thread(target=lambda: stores.append(SQLStore(url))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(stores) == 6
    for store in stores:
        store.close()


CORRUPTIONS = {
    "conversation": [
        ("metadata", "'no json'", lambda store, _: store.load("k")),
        ("metadata", "'[1]'", lambda store, _: store.load("k")),
        ("created_at", str(2**62), lambda store, _: store.load("k")),
    ],
    "turn": [
        ("errors", "'{}'", lambda store, c: store.turns(c)),
        ("usage", "'[]'", lambda store, c: store.turns(c, limit=1)),
        ("state", "'lost'", lambda store, c: store.turn_by_idempotency_key(c, "i")),
    ],
    "message": [
        ("content", "'['", lambda store, c: store.messages(c)),
        ("content", "'[1]'", lambda store, c: store.context(c, first_session=1, last_session=1, limit=None)),
        ("provider_data", "'1'", lambda store, c: store.turn_messages(c, store.turns(c)[0])),
    ],
    "transition": [("trigger", "'luck'", lambda store, c: store.transitions(c))],
    "session": [("opened_at", str(-(2**62)), lambda store, c: store.sessions(c))],
}


@pytest.mark.parametrize(
    ("table", "column", "value", "read"), [(table, *one) for table, some in CORRUPTIONS.items() for one in some]
)
def test_a_corrupt_row_is_named_and_not_handed_on(
    sqlite_store: SQLStore, table: str, column: str, value: str, read: Any
) -> None:
    conversation = committed(
        sqlite_store, lambda c: begin(c, idempotency_key="i"), lambda c: finish(c, Result(session_id="s"))
    )
    sqlite_store.dialect.database.execute_sql(f"UPDATE {table} SET {column} = {value}")
    with pytest.raises(
        CorruptRecord, match=f"conversation 'k': row 1, .* of table {table} is corrupt .*restore it from a backup"
    ):
        read(sqlite_store, conversation)


@pytest.mark.parametrize(
    ("table", "read"),
    [
        ("dead_id", lambda store, c: store.dead(c, ["s"])),
        ("message", lambda store, c: store.messages(c)),
        ("turn", lambda store, c: store.turn_by_idempotency_key(c, "i")),
        ("conversation", lambda store, c: store.load(c.key)),
    ],
)
def test_a_database_that_can_not_be_read_is_told_with_the_conversation(
    sqlite_store: SQLStore, table: str, read: Any
) -> None:
    conversation = committed(sqlite_store, begin)
    sqlite_store.dialect.database.execute_sql("PRAGMA foreign_keys = 0")
    sqlite_store.dialect.database.execute_sql(f"DROP TABLE {table}")
    with pytest.raises(StoreError, match=f"conversation 'k': the database can't be used .*no such table: {table}"):
        read(sqlite_store, conversation)


@pytest.mark.parametrize("read", ["conversations", "running"])
def test_a_corrupt_row_in_a_list_of_conversations_is_named_too(sqlite_store: SQLStore, read: str) -> None:
    committed(sqlite_store, begin)
    sqlite_store.dialect.database.execute_sql("UPDATE conversation SET metadata = '[1]'")
    with pytest.raises(CorruptRecord, match=r"^row 1, 'k' of table conversation is corrupt \(TypeError: "):
        getattr(sqlite_store, read)()


def test_a_row_that_breaks_g1_is_corrupt_even_if_the_database_let_it_pass(sqlite_store: SQLStore) -> None:
    committed(sqlite_store, begin)
    sqlite_store.dialect.database.execute_sql("PRAGMA ignore_check_constraints = 1")
    sqlite_store.dialect.database.execute_sql("UPDATE conversation SET session_id = 's'")
    with pytest.raises(CorruptRecord, match="of table conversation"):
        sqlite_store.load("k")


def plans(statements: Statements, database: SqliteDatabase) -> Iterator[tuple[str, str]]:
    """How SQLite runs each statement."""
    for name, statement in statements.named().items():
        found = database.execute_sql(f"EXPLAIN QUERY PLAN {statement.sql}", [1] * len(statement.names)).fetchall()
        yield name, " / ".join(row[3] for row in found)


def test_no_statement_scans_a_table_or_sorts(sqlite_store: SQLStore) -> None:
    for name, plan in plans(sqlite_store.transactions.sql, sqlite_store.dialect.database):
        assert "TEMP B-TREE" not in plan, (name, plan)
        assert "SCAN" not in plan or name == "count", (name, plan)


def test_no_statement_scans_a_table_or_sorts_on_postgresql(postgresql_url: str) -> None:
    """PostgreSQL scans an empty table whatever its indexes, so the planner is told not to."""
    with SQLStore(postgresql_url) as store, psycopg.connect(postgresql_url, autocommit=True) as connection:
        connection.execute("SET enable_seqscan = off")
        connection.execute("SET plan_cache_mode = force_generic_plan")  # as if the values were not known
        for name, statement in store.transactions.sql.named().items():
            places = itertools.count(1)
            sql = re.sub("%s", lambda _: f"${next(places)}", statement.sql)  # noqa: B023  # it is called at once
            connection.execute(f"PREPARE one AS {sql}")
            values = ", ".join(["NULL"] * len(statement.names))
            execute = f"one({values})" if values else "one"
            plan = "\n".join(row[0] for row in connection.execute(f"EXPLAIN EXECUTE {execute}"))
            connection.execute("DEALLOCATE one")
            assert "Seq Scan" not in plan, (name, plan)
            assert "Sort" not in plan, (name, plan)


STORES = {
    "in a group": {},
    "each alone": {"group_commit": False},
}


@pytest.mark.parametrize("options", STORES.values(), ids=STORES)
def test_of_many_steps_each_stands_for_itself(url: str, options: dict[str, Any]) -> None:
    """The outcome of a step is the error that it would raise alone, and the other steps are stored."""
    with SQLStore(url, **options) as store:
        first, second, late = (
            begin(Conversation(key=key, id=number, created_at=NOW, updated_at=NOW))
            for number, key in enumerate("abb", 1)
        )
        doubled = begin(Conversation(key="c", id=4, created_at=NOW, updated_at=NOW))
        doubled = attrs.evolve(doubled, effects=(*doubled.effects, doubled.effects[-1]))
        unknown: Any = attrs.evolve(
            begin(Conversation(key="d", id=5, created_at=NOW, updated_at=NOW)), effects=(object(),)
        )
        last = begin(Conversation(key="e", id=6, created_at=NOW, updated_at=NOW))
        outcomes = store.commit_many([first, second, late, doubled, unknown, last])
        assert [type(outcome) for outcome in outcomes] == [type(None)] * 2 + [
            Conflict,
            StoreError,
            StoreError,
            type(None),
        ]
        assert str(outcomes[4]).startswith(
            "conversation 'd': the database can't be used (KeyError); nothing of this step"
        )
        assert "conversation 'b': another writer began it first" in str(outcomes[2])
        assert "conversation 'c': the database can't be used (IntegrityError: a row was refused)" in str(outcomes[3])
        assert "nothing of this step was stored" in str(outcomes[3])
        assert isinstance(outcomes[3].__cause__, IntegrityError)
        assert [conversation.key for conversation in store.conversations()] == ["a", "b", "e"]
        assert store.load("e") == last.after


@pytest.mark.parametrize("options", STORES.values(), ids=STORES)
def test_one_step_or_none_may_be_many(sqlite_url: str, options: dict[str, Any]) -> None:
    with SQLStore(sqlite_url, **options) as store:
        step = begin(NEW)
        assert store.commit_many([]) == []
        assert store.commit_many([step]) == [None]
        (outcome,) = store.commit_many([step])
        assert isinstance(outcome, Conflict)
        assert outcome.key == "k"
        assert store.load("k") == step.after


def test_it_pays_to_hand_over_many_where_they_share_a_transaction(sqlite_url: str) -> None:
    """And not past a commit of somebody's own."""

    class Own(SQLStore):
        def commit(self, step: Step) -> None:
            super().commit(step)

    taken = []
    for kind, url, options in (
        (SQLStore, sqlite_url, {}),
        (SQLStore, sqlite_url, {"group_commit": False}),
        (SQLStore, "sqlite:///:memory:", {}),
        (Own, sqlite_url, {}),
    ):
        with kind(url, **options) as store:
            taken.append(store.supports_batches)
    assert taken == [True, False, False, False]


def test_no_statement_is_prepared_twice(sqlite_store: SQLStore) -> None:
    """SQLite asks its authorizer about each statement that it prepares.

    It prepares a PRAGMA each time.
    """
    provider = DemoProvider(name="demo")
    manager = SessionManager(sqlite_store, provider)

    def everything_once(key: str) -> None:
        manager.send(key, "hello", idempotency_key="once")
        manager.send(key, "hello", idempotency_key="once")
        provider.forget()
        assert manager.send(key, "and again").healed
        manager.reset(key)
        talks = manager.conversations
        for read in (talks.messages, talks.turns, talks.sessions, talks.transitions):
            read(key, limit=2)
        manager.conversations.list(limit=2)
        manager.recover()
        sqlite_store.transactions.together(
            [begin(Conversation(key=f"{key} too", id=len(prepared) + 7, created_at=NOW, updated_at=NOW))]
        )

    prepared: list[tuple[Any, ...]] = []
    connection = sqlite_store.dialect.database.connection()
    connection.set_authorizer(lambda *asked: prepared.append(asked) or sqlite3.SQLITE_OK)
    everything_once("a")
    once = len(prepared)
    everything_once("b")
    assert once > 100
    assert {asked[:2] for asked in prepared[once:]} == {(sqlite3.SQLITE_PRAGMA, "synchronous")}
