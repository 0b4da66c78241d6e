"""PostgreSQL as it is run: a server that can only read, a small pool, connections that nobody uses, encodings."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from fsm import Conversation, SessionManager, StoreError
from fsm.providers import DemoProvider
from persistence import SQLStore
from tests.persistence.test_store import NOW, begin

pytestmark = pytest.mark.thorough


def one(number: int) -> Any:
    """The first step of a conversation."""
    return begin(Conversation(key=f"k{number:03}", id=number, created_at=NOW, updated_at=NOW))


Made = Callable[..., str]


@pytest.fixture
def make(postgresql: str) -> Iterator[Made]:
    """Make databases, and return their URLs."""
    names: list[str] = []

    def make(options: str = "") -> str:
        names.append(f"test_{uuid.uuid4().hex}")
        connection.execute(f"CREATE DATABASE {names[-1]} {options}")
        server = conninfo_to_dict(postgresql)
        host = "".join(f"%{byte:02X}" for byte in str(server["host"]).encode())
        return f"postgresql://{server['user']}@{host}/{names[-1]}"

    with psycopg.connect(postgresql, autocommit=True) as connection:
        yield make
        for name in names:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def connections(url: str) -> list[int]:
    """The server processes of everybody else."""
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchall()
    return [pid for (pid,) in found]


def cut(url: str) -> None:
    """End all connections of everybody else."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def make_reader(url: str, name: str, reader: str) -> None:
    """Change new connections as a failover does; open ones stay as they are."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = {reader}")


def hold(store: SQLStore, taken: threading.Event, done: threading.Event) -> None:
    """Hold a connection until told otherwise."""
    with store.dialect.connection():
        taken.set()
        done.wait(30)


def used_at_once(store: SQLStore, count: int) -> None:
    """Have so many threads use the store at the same time."""
    barrier = threading.Barrier(count)

    def meet() -> None:
        with store.dialect.connection():
            barrier.wait()

    threads = [threading.Thread(target=meet) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)


def test_after_a_failover_connections_that_can_only_read_are_given_up(make: Made) -> None:
    url = make()
    name = url.rpartition("/")[2]
    with SQLStore(url, timeout=0.5) as store:
        store.commit(one(1))
        make_reader(url, name, "on")
        cut(url)
        used_at_once(store, 5)
        with pytest.raises(StoreError, match=r"read-only transaction.*; nothing of this step was stored"):
            store.commit(one(2))
        epoch = store.epoch
        make_reader(url, name, "off")
        store.commit(one(3))
        assert store.load("k002") is None
        assert [conversation.id for conversation in store.conversations()] == [1, 3]
        assert epoch > 0


def test_a_commit_waits_until_there_is_a_writer_again(make: Made) -> None:
    url = make()
    name = url.rpartition("/")[2]
    with SQLStore(url, timeout=20) as store:
        store.commit(one(1))
        make_reader(url, name, "on")
        cut(url)
        timer = threading.Timer(0.4, make_reader, (url, name, "off"))
        timer.start()
        store.commit(one(2))
        timer.join(timeout=30)
        assert len(store.conversations()) == 2


def test_the_epoch_changes_when_a_connection_is_lost_and_not_else(make: Made) -> None:
    url = make()
    with SQLStore(url) as store:
        store.commit(one(1))
        used_at_once(store, 3)
        assert store.epoch == 0
        cut(url)
        assert store.load("k001") is not None
        read = store.epoch
        assert read > 0
        cut(url)
        store.commit(one(2))
        assert store.epoch > read
        store.dialect.database.idle[-1].connection.close()
        seen = store.epoch
        store.load("k001")
        assert store.epoch == seen + 1


def test_the_epoch_of_a_file_does_not_change(sqlite_url: str) -> None:
    with SQLStore(sqlite_url) as store:
        store.commit(one(1))
        store.dialect.close()
        store.commit(one(2))
        assert store.epoch == 0


def test_a_pool_opens_no_more_connections_than_it_may(make: Made) -> None:
    url = make()
    with SQLStore(url, pool_size=2) as store:
        managers = [SessionManager(store, DemoProvider()) for _ in range(6)]
        threads = [
            threading.Thread(target=manager.send, args=(f"k{number}", "hello"))
            for number, manager in enumerate(managers)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert len(store.conversations()) == 6
        assert len(connections(url)) <= 2


@pytest.mark.parametrize("timeout", [0, 0.05])
def test_who_waits_for_a_connection_in_vain_is_told_what_to_raise(make: Made, timeout: float) -> None:
    with SQLStore(make(), pool_size=1, timeout=timeout) as store:
        taken, done = threading.Event(), threading.Event()

        thread = threading.Thread(target=hold, args=(store, taken, done))
        thread.start()
        assert taken.wait(30)
        with pytest.raises(StoreError, match="all 1 connections are in use; raise pool_size"):
            store.commit(one(1))
        done.set()
        thread.join(timeout=30)
        store.commit(one(1))


def test_connections_that_nobody_uses_are_closed_after_a_while(make: Made) -> None:
    url = make()
    with SQLStore(url, pool_idle=0.2) as store:
        used_at_once(store, 4)
        assert len(connections(url)) == 4
        deadline = time.monotonic() + 30
        while (left := connections(url)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert left == []
        store.commit(one(1))
        assert store.epoch == 0


def test_those_that_are_not_needed_any_more_become_idle_while_one_is_used(make: Made) -> None:
    url = make()
    with SQLStore(url, pool_idle=0.5) as store:
        used_at_once(store, 4)
        deadline = time.monotonic() + 30
        while (count := len(connections(url))) > 1 and time.monotonic() < deadline:
            store.load("k")
            time.sleep(0.02)
        assert count == 1


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_can_not_hold_every_text_is_refused_when_it_is_opened(make: Made, encoding: str) -> None:
    url = make(f"ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    with pytest.raises(StoreError, match=f"has the encoding {encoding}.* create one with: CREATE DATABASE"):
        SQLStore(url)
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)


@pytest.mark.parametrize("where", ["environment", "role"])
def test_texts_are_sent_as_utf_8_whatever_else_the_client_is_told(
    make: Made, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    url = make()
    if where == "environment":
        monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    else:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {url.rpartition('/')[2]} SET client_encoding = LATIN1")
    with SQLStore(url) as store:
        SessionManager(store, DemoProvider()).send("日本", "\U0001f600")
        found = store.load("日本")
        assert found is not None
        assert store.messages(found)[0].text == "\U0001f600"


@pytest.mark.parametrize(
    ("options", "suffix", "prepared"),
    [({}, "", True), ({"prepare": False}, "", False), ({}, "?prepare_threshold=none", False)],
    ids=["by default", "argument", "URL"],
)
def test_statements_are_prepared_unless_that_is_switched_off(
    make: Made, options: dict[str, Any], suffix: str, prepared: bool
) -> None:
    with SQLStore(make() + suffix, pool_size=1, **options) as store:
        for _ in range(10):
            store.load("k")
        sql = "SELECT count(*) FROM pg_prepared_statements"
        with store.dialect.connection():
            ((count,),) = store.dialect.database.execute_sql(sql).fetchall()
        assert (count > 0) == prepared


def test_a_statement_that_was_lost_is_not_prepared_again(make: Made) -> None:
    with SQLStore(make(), pool_size=1) as store:
        for number in range(1, 12):
            store.commit(one(number))
        assert store.dialect.database.prepares
        with store.dialect.connection():
            store.dialect.database.connection().pgconn.exec_(b"DEALLOCATE ALL")
        store.commit(one(20))
        assert not store.dialect.database.prepares
        assert len(store.conversations()) == 12
        assert store.epoch == 0
