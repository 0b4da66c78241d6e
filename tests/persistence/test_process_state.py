"""Other stores, other processes, forks and ``close`` lose nothing of a database file that a process has open."""

import functools
import gc
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fsm import Closed, Conversation, SessionManager, StoreError
from fsm.providers import DemoProvider
from persistence import SQLStore
from persistence.dialects import files
from tests.persistence.test_store import NOW, begin

pytestmark = [pytest.mark.thorough, pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")]

LOOK = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); print(c.execute(sys.argv[2]).fetchone()[0]); c.close()"
COUNT = "SELECT count(*) FROM conversation"


def from_outside(url: str, sql: str = COUNT) -> int:
    """Return the number that another process reads, which opens the file and closes it."""
    path = url.removeprefix("sqlite:///")
    return int(subprocess.run([sys.executable, "-c", LOOK, path, sql], check=True, capture_output=True).stdout)


def one(number: int) -> Any:
    """The first step of a conversation."""
    return begin(Conversation(key=f"k{number:03}", id=number, created_at=NOW, updated_at=NOW))


def in_child(act: Callable[[], object]) -> int:
    """Act in a forked child, which ends as a program does that returns from its last line; its exit code."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        code = 1
        try:
            act()
            gc.collect()
            code = 0
        except BaseException as error:  # noqa: BLE001  # told on stderr, and by the exit code
            os.write(2, f"in the child: {type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Workers:
    """Threads that commit and read until they are stopped.

    Attributes:
        stored: the ids of the conversations that were acknowledged.
        errors: what came up.
    """

    def __init__(self, store: SQLStore) -> None:
        self.stored: list[int] = []
        self.errors: list[object] = []
        self._store = store
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, act: Callable[[int], object], *numbers: int) -> None:
        """Act in a thread for each number."""
        for number in numbers:
            self._threads.append(threading.Thread(target=self._guarded, args=(act, number)))
            self._threads[-1].start()

    def _guarded(self, act: Callable[[int], object], number: int) -> None:
        try:
            act(number)
        except Exception as error:  # noqa: BLE001  # the test tells it
            self.errors.append(error)

    def write(self, worker: int) -> None:
        """Commit and read."""
        number = worker * 10_000_000
        while not self._stop.is_set():
            number += 1
            self._store.commit(one(number))
            self.stored.append(number)
            self._store.load("k001")

    def join(self) -> None:
        """See that every thread ends."""
        for thread in self._threads:
            thread.join(timeout=60)
            assert not thread.is_alive()

    def stop(self) -> None:
        """See that every thread ends and that nothing was raised."""
        self._stop.set()
        self.join()
        assert self.errors == []

    def check(self) -> None:
        """See that all that was acknowledged is there."""
        assert {conversation.id for conversation in self._store.conversations()} == set(self.stored)


def by_name(url: str) -> str:
    return url


def by_relative_name(url: str) -> str:
    return f"sqlite:///{os.path.relpath(url.removeprefix('sqlite:///'))}"


def by_symlink(url: str) -> str:
    path = Path(url.removeprefix("sqlite:///"))
    path.with_name("link.db").symlink_to(path)
    return f"sqlite:///{path.with_name('link.db')}"


def by_hard_link(url: str) -> str:
    path = Path(url.removeprefix("sqlite:///"))
    path.with_name("hard.db").hardlink_to(path)
    return f"sqlite:///{path.with_name('hard.db')}"


@pytest.mark.parametrize("then", ["left open", "closed"])
@pytest.mark.parametrize("named", [by_name, by_relative_name, by_symlink, by_hard_link])
def test_a_second_store_on_a_file_and_an_outside_process_lose_nothing(
    sqlite_url: str, named: Callable[[str], str], then: str
) -> None:
    """The second store dropped the locks of the process; the outsider then deleted the log that was in use."""
    first = SQLStore(sqlite_url)
    first.commit(one(1))
    other = named(sqlite_url)
    second = SQLStore(other)
    second.commit(one(2))
    if then == "closed":
        second.close()
        second = SQLStore(other)
    assert from_outside(sqlite_url) == 2
    for number in range(3, 9):
        first.commit(one(number))
        second.commit(one(100 + number))
    assert from_outside(sqlite_url) == 14
    first.close()
    second.close()
    assert from_outside(sqlite_url) == 14


def test_a_file_that_an_application_has_open_with_sqlite3_keeps_its_locks(sqlite_url: str) -> None:
    """A store that is opened beside it does not close a descriptor of the file."""
    SQLStore(sqlite_url).close()
    own = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))
    own.execute("CREATE TABLE mine (a)")
    SQLStore(sqlite_url).close()
    assert from_outside(sqlite_url) == 0
    with own:
        own.execute("INSERT INTO mine VALUES (1)")
    assert from_outside(sqlite_url, "SELECT count(*) FROM mine") == 1
    own.close()


@pytest.mark.parametrize("links", ["linked", "no links"])
def test_a_new_file_is_private_and_leaves_nothing_beside_it(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: str
) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    if links == "no links":
        monkeypatch.setattr(files.os, "link", refuse)
    previous = os.umask(0)
    try:
        with SQLStore(sqlite_url) as store:
            store.commit(one(1))
            found = {file.name: oct(file.stat().st_mode & 0o777) for file in tmp_path.iterdir()}
    finally:
        os.umask(previous)
    assert found == dict.fromkeys(["chat.db", "chat.db-wal", "chat.db-shm"], "0o600")


def test_the_target_of_a_symlink_is_created_private(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "chat.db")
    with SQLStore(f"sqlite:///{tmp_path}/link.db"):
        assert oct((tmp_path / "chat.db").stat().st_mode & 0o777) == "0o600"


def test_many_who_create_a_file_at_once_share_it(sqlite_url: str) -> None:
    barrier = threading.Barrier(8)

    def create(number: int) -> None:
        barrier.wait(timeout=30)
        with SQLStore(sqlite_url) as store:
            store.commit(one(number))

    with SQLStore("sqlite://") as unused:
        workers = Workers(unused)
        workers.start(create, *range(8))
        workers.stop()
    assert from_outside(sqlite_url) == 8


# Closing


def test_close_waits_for_the_calls_of_other_threads_and_refuses_later_ones(url: str) -> None:
    """A connection that is closed while it is used may crash the process."""
    store = SQLStore(url)
    workers = Workers(store)
    workers.start(workers.write, 1, 2, 3)
    time.sleep(0.1)
    store.close()
    store.close()
    workers.join()
    assert [type(error) for error in workers.errors] == [Closed] * 3
    with SQLStore(url) as again:
        assert len(workers.stored) <= again.count() <= len(workers.stored) + 3
    with pytest.raises(Closed, match="open another store"):
        store.load("k001")


# Forks


def test_a_child_and_its_parent_write_while_an_outside_process_opens_and_closes_the_file(sqlite_url: str) -> None:
    """A child that inherits SQLite's table of locks believes that it holds those of its parent."""
    store = SQLStore(sqlite_url)
    store.commit(one(1))
    ready, go = os.pipe(), os.pipe()

    def child() -> None:
        store.commit(one(2))
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        for number in range(3, 9):
            store.commit(one(number))

    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            child()
            code = 0
        finally:
            os._exit(code)
    os.read(ready[0], 1)
    store.close()
    assert from_outside(sqlite_url) == 2
    os.write(go[1], b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert from_outside(sqlite_url) == 8
    with SQLStore(sqlite_url) as again:
        again.commit(one(9))
        assert again.count() == 9


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux shows what a process has open")
def test_a_child_inherits_no_descriptor_of_a_file(sqlite_url: str) -> None:
    with SQLStore(sqlite_url) as store:
        store.commit(one(1))
        try:
            store.commit(begin(Conversation(key="k", id=2**70, created_at=NOW, updated_at=NOW)))
        except StoreError as error:
            kept = error  # with the frames in which it came up
        workers = Workers(store)
        workers.start(workers.write, 1, 2)

        def look() -> None:
            found = {os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()}
            assert not [name for name in found if sqlite_url.removeprefix("sqlite:///") in name]

        assert in_child(look) == 0
        assert kept
        workers.stop()


def test_closing_an_inherited_store_in_a_child_leaves_the_parent_as_it_was(url: str) -> None:
    with SQLStore(url) as store:
        store.commit(one(1))
        for number in range(2, 6):
            assert in_child(store.close) == 0
            store.commit(one(number))
        assert len(store.conversations()) == 5


def test_a_child_that_ends_like_any_program_leaves_the_connections_of_its_parent(url: str) -> None:
    """psycopg would say goodbye to the server, on the parent's connection."""
    script = f"""
import os, sys
from persistence import SQLStore
from tests.persistence.test_process_state import one
store = SQLStore({url!r})
store.commit(one(1))
connection = getattr(store.dialect.database, "_idle", None)
pid = connection and connection[0].connection.info.backend_pid
if not os.fork():
    sys.exit(0)  # with all that the interpreter does at its end
os.wait()
store.commit(one(2))
assert store.epoch == 0, store.epoch
assert len(store.conversations()) == 2
print("done")
"""
    program = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(program, check=False, capture_output=True, text=True, timeout=60)
    assert done.stdout == "done\n", done.stderr


def test_new_work_in_a_child_has_connections_of_its_own(url: str) -> None:
    with SQLStore(url) as store:
        store.commit(one(1))

        def work() -> None:
            store.commit(one(2))
            with SQLStore(url) as other:
                other.commit(one(3))
            SessionManager(store, DemoProvider()).send("k", "hello")
            assert len(store.conversations()) == 4

        assert in_child(work) == 0
        store.commit(one(4))
        assert len(store.conversations()) == 5


def test_a_child_has_a_copy_of_what_is_in_memory() -> None:
    with SQLStore("sqlite:///:memory:") as store:
        store.commit(one(1))

        def work() -> None:
            store.commit(one(2))
            assert len(store.conversations()) == 2

        assert in_child(work) == 0
        assert len(store.conversations()) == 1


@pytest.mark.parametrize("where", ["sqlite", "postgresql", "memory"])
def test_forks_at_any_moment_lose_nothing_and_hang_nowhere(request: pytest.FixtureRequest, where: str) -> None:
    url = "sqlite:///:memory:" if where == "memory" else request.getfixturevalue(f"{where}_url")
    store = SQLStore(url)
    workers = Workers(store)

    def work(number: int) -> None:
        store.commit(one(number))
        assert store.load(f"k{number:03}") is not None
        store.close()

    def fork(first: int) -> None:
        for number in range(first, first + 8):
            assert in_child(functools.partial(work, number)) == 0
            if where != "memory":
                workers.stored.append(number)

    workers.start(workers.write, 1, 2, 3, 4)
    workers.start(fork, 200)
    fork(100)
    workers.stop()
    workers.check()
    store.close()


def test_a_child_that_is_forked_inside_a_call_is_refused_the_file_and_leaves_it_alone(sqlite_url: str) -> None:
    """A connection was in use, and SQLite can't be told to forget it."""
    with SQLStore(sqlite_url) as store:
        store.commit(one(1))

        def fork(*_: Any) -> int:
            store.dialect.connections.mine.cursor.connection.set_authorizer(None)
            child = os.fork()
            if not child:
                told = b"opened"
                try:
                    SQLStore(sqlite_url)
                except StoreError as error:
                    told = str(error).encode()
                os.write(outcome[1], told)
                os._exit(0)
            os.waitpid(child, 0)
            return sqlite3.SQLITE_OK

        outcome = os.pipe()
        store.dialect.database.connection().set_authorizer(fork)
        store.commit(one(2))
        assert b"was forked while a connection to the database file" in os.read(outcome[0], 1000)
        store.commit(one(3))
        assert from_outside(sqlite_url) == 3


def test_a_connection_that_waits_for_a_lock_is_waited_for_by_a_fork(sqlite_url: str) -> None:
    with SQLStore(sqlite_url) as store:
        other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        waiting = threading.Thread(target=store.commit, args=(one(1),))
        waiting.start()
        time.sleep(0.1)
        timer = threading.Timer(0.2, other.execute, ["ROLLBACK"])
        timer.start()

        def child() -> None:
            assert [conversation.id for conversation in store.conversations()] == [1]

        code = in_child(child)
        waiting.join(timeout=30)
        timer.join(timeout=30)
        assert code == 0
        other.close()
