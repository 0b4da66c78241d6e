"""A disk that fails: every operation of a turn in its turn, full disks, files that vanish (G9, G11, G16).

A turn is played again and again, and each time a later operation on the disk fails. In each case the caller was told
the truth, the database is whole, and the next turn succeeds. So it does in the same manager, after a restart, and after
the process was killed at that moment.
"""

import os
import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest
from attrs import define

from fsm import Reply, SessionManager, StoreError, TurnStatus
from fsm._core.effects import Step
from persistence import SQLStore
from tests.crash import TORTURE
from tests.crash.aftermath import KEY, Clock, Mortal, Rows, check_file, compile_once, quick_folder, takes_a_turn
from tests.crash.vfs import Fault, FragileStore, Vfs

pytestmark = pytest.mark.torture

__all__ = ["compile_once", "quick_folder"]

FAULTS = [
    pytest.param("write", apsw.SQLITE_IOERR_WRITE, id="write"),
    pytest.param("write", apsw.SQLITE_FULL, id="full"),
    pytest.param("sync", apsw.SQLITE_IOERR_FSYNC, id="sync"),
    pytest.param("open", apsw.SQLITE_CANTOPEN, id="open"),
    pytest.param("read", apsw.SQLITE_IOERR_READ, id="read"),
]
TRUNCATE = pytest.param("truncate", apsw.SQLITE_IOERR_TRUNCATE, id="truncate")
COMMITS = {"begin": 1, "heal": 2, "end": 3}


@define
class Played:
    """A turn that met a fault, and what came of it."""

    provider: Mortal
    before: Rows
    reply: Reply | None = None
    error: StoreError | None = None

    def check_truth(self, now: Rows) -> None:
        """No lie (G16): a reply means stored; an error carries the reply exactly when there is one."""
        now.check()
        assert now.messages[: len(self.before.messages)] == self.before.messages, "G4"
        if self.reply is not None:
            assert self.reply.status is TurnStatus.SUCCEEDED
            assert now.turns[self.reply.turn - 1].status is TurnStatus.SUCCEEDED, "G8"
            assert now.messages[now.turns[self.reply.turn - 1].last_message - 1].text == self.reply.text, "G8"
            return
        told = self.error.reply and self.error.reply.result
        healed = self.error.reply is not None and self.error.reply.healed
        answered = self.provider.results[-1] if self.provider.results else None
        if healed and len(self.provider.results) == 1:
            answered = None  # the dead session was dealt with, and the new one not asked yet
        assert told == answered, "G16"
        if answered is not None and not answered.is_error:
            assert self.error.reply.text == f"answer {len(self.provider.requests)}", "G16"


class Bench:
    """Plays one turn in a conversation that is there already, again and again from the same beginning.

    Args:
        folder: where.
        dies: whether the session is dead, so that the turn heals.
        pragmas: settings of SQLite.
    """

    def __init__(self, folder: Path, *, dies: bool, pragmas: dict[str, Any] | None = None) -> None:
        self.path = folder / "now" / "chat.db"
        self.vfs = Vfs()
        self._origin = folder / "origin"
        self._killed = folder / "killed"
        self._dies = dies
        self._pragmas = pragmas
        self._origin.mkdir()
        with SQLStore(f"sqlite:///{self._origin}/chat.db") as store:
            SessionManager(store, Mortal("old"), clock=Clock()).send(KEY, "hello")

    def provider(self, names: str = "id") -> Mortal:
        provider = Mortal(names)
        provider.dead = {"old-1"} if self._dies else set()
        return provider

    def play(self, fault: Fault) -> bool:
        """Play the turn with this fault; return whether it was met."""
        self.begin_again()
        self.vfs.fault = fault
        store = self._open()
        if store is not None:
            with store:
                self.play_on(store)
        return fault.met > 0

    def begin_again(self) -> None:
        """Put the files back as they were."""
        self.vfs.fault = None
        shutil.rmtree(self.path.parent, ignore_errors=True)
        shutil.copytree(self._origin, self.path.parent)

    def play_on(self, store: SQLStore) -> Played:
        """Play the turn in this store, look, and go on without the fault."""
        clock, provider = Clock(), self.provider()
        manager = SessionManager(store, provider, clock=clock)
        played = Played(provider, self.before)
        try:
            played.reply = manager.send(KEY, "are you there?")
        except StoreError as error:
            played.error = error
        killed = self._kill(played)
        self.relieve(store)
        found = Rows.of(store)
        assert found is not None
        played.check_truth(found)
        assert killed.conversation.version - found.conversation.version in {0, 1}
        self._goes_on(manager, store, provider)
        store.close()
        self._restarts(self.path, provider.dead)
        return played

    def relieve(self, store: SQLStore) -> None:
        """The fault is gone."""
        self.vfs.fault = None
        if isinstance(store, HungryStore):
            store.spare = None

    @property
    def before(self) -> Rows:
        """The records that were stored at the beginning."""
        if not hasattr(self, "_before"):
            with SQLStore(f"sqlite:///{self._origin}/chat.db") as store:
                self._before = Rows.of(store)
        return self._before

    def _open(self) -> FragileStore | None:
        """Open the store; it may fail, but only with an error of the library, and not once the fault is gone."""
        try:
            return FragileStore(self.path, self.vfs, pragmas=self._pragmas)
        except StoreError:
            self.vfs.fault = None
            self._restarts(self.path, self.provider().dead)
            return None

    @staticmethod
    def _goes_on(manager: SessionManager, store: SQLStore, provider: Mortal) -> None:
        """Two turns more: a dead id costs one of them at most, and that one heals (G11)."""
        takes_a_turn(manager, store, provider)
        asked = len(provider.requests)
        takes_a_turn(manager, store, provider)
        assert len(provider.requests) == asked + 1, "G11: a loop"
        check_file(store)

    def _kill(self, played: Played) -> Rows:
        """What if the process was killed right now? The system has what was written, and shared memory is lost.

        A commit that was refused because its sync failed may be found then, for it was written; whole, and only it.
        """
        shutil.rmtree(self._killed, ignore_errors=True)
        self._killed.mkdir()
        for path in self.path.parent.iterdir():
            if not path.name.endswith("-shm"):
                shutil.copy(path, self._killed)
        with SQLStore(f"sqlite:///{self._killed}/chat.db", durability="relaxed") as store:
            found = Rows.of(store)
        assert found is not None
        assert found.messages[: len(self.before.messages)] == self.before.messages, "G4"
        if played.reply is not None:
            played.check_truth(found)
        found.check()
        self._restarts(self._killed / "chat.db", played.provider.dead)
        return found

    def _restarts(self, path: Path, dead: set[str | None]) -> None:
        """Another process opens the file and goes on."""
        provider, clock = self.provider("new"), Clock()
        provider.dead = set(dead)
        clock.leap()
        with SQLStore(f"sqlite:///{path}", durability="relaxed") as store:
            check_file(store)
            self._goes_on(SessionManager(store, provider, clock=clock), store, provider)


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "for good"])
@pytest.mark.parametrize("dies", [False, True], ids=["plain", "heals"])
@pytest.mark.parametrize(("kind", "code"), FAULTS)
def test_g9_g11_g16_any_operation_may_fail(quick_folder: Path, kind: Any, code: int, dies: bool, lasting: bool) -> None:
    """G9, G11, G16: the first operation of its kind, the second, and so on, until the turn has no more of them."""
    bench = Bench(quick_folder, dies=dies)
    tried = fail_each(bench, kind, code, lasting=lasting)
    print(f"{kind} {code}, {'heals' if dies else 'plain'}, {'for good' if lasting else 'once'}: {tried} failures")
    assert tried > (20 if kind == "write" else 0)


@pytest.mark.parametrize(("kind", "code"), [*FAULTS, TRUNCATE])
def test_g8_g16_a_failing_checkpoint_takes_nothing_back(quick_folder: Path, kind: Any, code: int) -> None:
    """G8, G16: SQLite empties its log into the database right after a commit; that may fail, the commit has not."""
    tried = fail_each(Bench(quick_folder, dies=True, pragmas={"wal_autocheckpoint": 1}), kind, code)
    print(f"{kind} {code}, checkpoints: {tried} failures")
    assert tried > (20 if kind == "write" else 0)


def fail_each(bench: Bench, kind: Any, code: int, *, lasting: bool = False) -> int:
    """Let each operation of a kind fail, and return how many there were."""
    nth = 1
    while True:
        try:
            if not bench.play(Fault(kind, nth, code, lasting=lasting)):
                return nth - 1
        except Exception as error:
            raise AssertionError(
                f"{kind} {nth} failed with {code}, {lasting=}: {type(error).__name__}: {error}"
            ) from error
        nth += 1


class HungryStore(FragileStore):
    """Has little memory for its commits."""

    spare: int | None = None
    refusals = 0

    def commit(self, step: Step) -> None:
        if self.spare is not None:
            apsw.hard_heap_limit(apsw.memory_used() + self.spare)
        try:
            super().commit(step)
        except StoreError:
            self.refusals += 1
            raise
        finally:
            apsw.hard_heap_limit(0)


@pytest.mark.parametrize("dies", [False, True], ids=["plain", "heals"])
def test_g16_a_lack_of_memory_is_told_as_any_refusal_is(quick_folder: Path, dies: bool) -> None:
    """G9, G16: with no memory to spare, with a little more, and so on, until it is enough."""
    bench = Bench(quick_folder, dies=dies)
    tried, spare, refused = 0, 0, 1
    while refused:
        bench.begin_again()
        with HungryStore(bench.path, bench.vfs) as store:
            store.spare = spare
            bench.play_on(store)
            refused = store.refusals
        tried += 1
        spare += 64 if TORTURE else 2048
    print(f"memory, {'heals' if dies else 'plain'}: {tried} limits")
    assert tried > 10


class StubbornStore(FragileStore):
    """From the commit that a test names on, the disk refuses to be written."""

    refuse_at = 0
    code = 0

    def commit(self, step: Step) -> None:
        self.refuse_at -= 1
        if self.refuse_at == 0:
            self._vfs.fault = Fault("write", 1, self.code, lasting=True)
        super().commit(step)


@pytest.mark.parametrize("code", [apsw.SQLITE_FULL, apsw.SQLITE_READONLY], ids=["full disk", "read-only file"])
@pytest.mark.parametrize("at", COMMITS)
def test_g16_a_disk_that_cant_be_written_at_a_commit_is_told_with_the_reply(
    quick_folder: Path, at: str, code: int
) -> None:
    """G16: at the commit that begins, heals or ends a turn; and the next turn is safe."""
    bench = Bench(quick_folder, dies=True)
    bench.begin_again()
    with StubbornStore(bench.path, bench.vfs) as store:
        store.refuse_at, store.code = COMMITS[at], code
        played = bench.play_on(store)
    check_told(played, at)


def check_told(played: Played, at: str) -> None:
    """The caller got the error, with what the provider had said by then."""
    assert played.error is not None
    reply = played.error.reply
    if at == "begin":
        assert reply is None
    elif at == "heal":
        assert reply.result.subtype == "error_during_execution"
        assert not reply.text
    else:
        assert (reply.text, reply.status, reply.healed) == ("answer 2", TurnStatus.SUCCEEDED, True)


def drop_tables(path: Path) -> None:
    """A mistake of an operator."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            connection.execute(f'DROP TABLE "{table}"')


def restore_tables(path: Path, backup: Path) -> None:
    """How the operator mends it."""
    with closing(sqlite3.connect(path)) as connection, closing(sqlite3.connect(backup)) as source:
        source.backup(connection)


def remove_file(path: Path) -> None:
    """A mistake of an operator."""
    for name in list(path.parent.iterdir()):
        name.unlink()


def restore_file(path: Path, backup: Path) -> None:
    """How the operator mends it."""
    shutil.copy(backup, path)


def replace_file(path: Path) -> None:
    """Restore a backup under a running process."""
    backup = path.with_name("backup.db")
    with closing(sqlite3.connect(path)) as connection, closing(sqlite3.connect(backup)) as target:
        connection.backup(target)
    for name in (path, *path.parent.glob("chat.db-*")):
        name.unlink()
    os.replace(backup, path)


@pytest.mark.parametrize(
    ("spoil", "mend"),
    [(drop_tables, restore_tables), (remove_file, restore_file), (replace_file, None)],
    ids=["tables dropped", "file removed", "file replaced"],
)
@pytest.mark.parametrize("at", COMMITS)
def test_g16_a_database_that_is_dropped_in_mid_turn_is_told_with_the_reply(
    quick_folder: Path, at: str, spoil: Callable[[Path], None], mend: Callable[[Path, Path], None] | None
) -> None:
    """G16: nothing is written to where nobody will find it; once it is put back, the same manager goes on."""
    backup, path = quick_folder / "backup" / "chat.db", quick_folder / "now" / "chat.db"
    backup.parent.mkdir()
    path.parent.mkdir()
    with SQLStore(f"sqlite:///{path}") as store:
        provider = Mortal()
        manager = SessionManager(store, provider)
        manager.send(KEY, "hello")
        restore_tables(backup, path)
        before = Rows.of(store)
        provider.dead, provider.requests, provider.results = {"id-1"}, [], []
        provider.on_request = lambda number: spoil(path) if number == COMMITS[at] - 1 else None
        if at == "begin":
            spoil(path)
        with pytest.raises(StoreError) as raised:
            manager.send(KEY, "are you there?")
        provider.on_request = None
        check_told(Played(provider, before, error=raised.value), at)
        if mend is not None:
            mend(path, backup)
        found = Rows.of(store)
        assert found.messages[: len(before.messages)] == before.messages
        takes_a_turn(manager, store, provider)
    with SQLStore(f"sqlite:///{path}") as store:
        check_file(store)
        takes_a_turn(SessionManager(store, provider), store, provider)


def test_g16_a_file_that_is_gone_is_not_silently_begun_anew(quick_folder: Path) -> None:
    """G16: as long as it is gone, everything is refused; put back, all is well."""
    path = quick_folder / "chat.db"
    with SQLStore(f"sqlite:///{path}") as store:
        manager = SessionManager(store, Mortal())
        manager.send(KEY, "hello")
        restore_tables(quick_folder / "backup.db", path)
        path.unlink()
        for _ in range(2):
            with pytest.raises(StoreError, match=r"chat\.db"):
                manager.send(KEY, "are you there?")
        assert not path.exists()
        restore_file(path, quick_folder / "backup.db")
        assert manager.send(KEY, "are you there?").turn == 2


def test_g8_the_file_stays_the_same_when_the_process_changes_its_folder(
    quick_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G8: each thread opens the file for itself, perhaps later."""
    monkeypatch.chdir(quick_folder)
    with SQLStore("sqlite:///chat.db") as store:
        manager = SessionManager(store, Mortal())
        manager.send(KEY, "hello")
        (quick_folder / "elsewhere").mkdir()
        monkeypatch.chdir("elsewhere")
        thread = threading.Thread(target=manager.send, args=(KEY, "and from a thread"))
        thread.start()
        thread.join()
        assert manager.send(KEY, "are you there?").turn == 3
    assert not list((quick_folder / "elsewhere").iterdir())
    monkeypatch.chdir("/")
