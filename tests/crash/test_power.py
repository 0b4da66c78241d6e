"""Loss of power on SQLite, at every operation on the disk, for every durability (G8, G9).

A script is played once on a disk that takes notes. From the notes, the disk is rebuilt as a loss of power after each
operation leaves it, and opened with the ordinary store. The database must be as it was after one of its commits. The
commit must not be older than the durability promises.
"""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field, frozen

from fsm import SessionManager, State
from fsm._core.effects import Step
from persistence import SQLStore
from persistence.dialects import Dialect
from tests.crash import TORTURE
from tests.crash.aftermath import KEY, Clock, Mortal, Rows, check_file, compile_once, quick_folder, takes_a_turn
from tests.crash.vfs import Disk, FragileSQLite, FragileStore, Operation, Survival, Vfs

pytestmark = pytest.mark.torture

__all__ = ["compile_once", "quick_folder"]

SEEDS = range(100 if TORTURE else 1)
CHECKPOINTS = {"wal_autocheckpoint": 4}
"""Lets SQLite empty its log into the database after almost every commit, instead of after a thousand pages."""


@frozen
class Mark:
    """When something was told to somebody.

    Attributes:
        at: after how many operations.
        version: what the conversation's version was.
        to: ``caller`` if a reply or a reset was returned; ``manager`` if a commit was.
    """

    at: int
    version: int
    to: str


@define
class Recording:
    """The notes of the disk, and the replies meanwhile."""

    vfs: Vfs = field(factory=Vfs)
    states: list[Rows | None] = field(factory=lambda: [None])
    marks: list[Mark] = field(factory=list)

    @property
    def operations(self) -> list[Operation]:
        return self.vfs.operations

    def mark(self, to: str) -> None:
        self.marks.append(Mark(len(self.operations), len(self.states) - 1, to))

    def promised(self, to: str | None, at: int) -> int:
        """The newest version that somebody was told of until then."""
        return max((mark.version for mark in self.marks if mark.at <= at and mark.to == to), default=0)


class NotingStore(FragileStore):
    """Notes what it holds after each commit."""

    recording: Recording

    def commit(self, step: Step) -> None:
        super().commit(step)
        self.recording.states.append(Rows.of(self))
        self.recording.mark("manager")


class UnsyncedStore(NotingStore):
    """The control: it never syncs."""

    def connect(self, url: str) -> Dialect:
        return _Unsynced(url, timeout=self._timeout, vfs=self._vfs, pragmas=self._pragmas)


class _Unsynced(FragileSQLite):
    def begin(self, *, synced: bool) -> None:
        self.database.connection().execute("PRAGMA synchronous = OFF")
        self.connections.mine.synced = synced
        super().begin(synced=synced)


def record(path: Path, kind: type[NotingStore] = NotingStore, **options: Any) -> Recording:
    """Play the script: two turns, one that heals, a reset, a failed one, and one after a restart."""
    recording, provider, clock = Recording(), Mortal(), Clock()

    def send(manager: SessionManager) -> None:
        reply = manager.send(KEY, "hello")
        recording.mark("caller")
        rows = recording.states[-1]
        assert (rows.turns[-1].status, rows.messages[-1].text) == (reply.status, reply.text or "hello")

    def restarted() -> Iterator[SessionManager]:
        with kind(path, recording.vfs, **options) as store:
            store.recording = recording
            yield SessionManager(store, provider, clock=clock)

    for manager in restarted():
        send(manager)
        send(manager)
        provider.dead = {"id-1"}
        send(manager)
        manager.reset(KEY)
        recording.mark("caller")
        provider.fails = True
        send(manager)
        provider.fails = False
    for manager in restarted():
        send(manager)
    last = recording.states[-1].conversation
    assert (last.version, last.turn_count, last.session_number, last.state) == (12, 5, 3, State.ACTIVE)
    return recording


class Rescue:
    """Opens what a loss of power has left, each different disk once."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "chat.db"
        self._known: dict[frozenset[tuple[str, bytes]], Rows | None] = {}

    @property
    def opened(self) -> int:
        """How many different disks there were."""
        return len(self._known)

    def open(self, files: dict[str, bytes]) -> Rows | None:
        """Return the stored records, after a check that the file is whole and the conversation goes on (G1, G4 to G7,
        G9)."""
        disk = frozenset(files.items())
        if disk not in self._known:
            self._known[disk] = self._open(files)
        return self._known[disk]

    def _open(self, files: dict[str, bytes]) -> Rows | None:
        for old in self._path.parent.iterdir():
            old.unlink()
        for path, content in files.items():
            self._path.with_name(Path(path).name).write_bytes(content)
        provider, clock = Mortal("new"), Clock()
        provider.dead = {"id-1", "id-3", "id-4", "id-5"}
        clock.leap()
        with SQLStore(f"sqlite:///{self._path}", durability="relaxed") as store:
            found = Rows.of(store)
            check_file(store)
            if found is not None:
                found.check()
            takes_a_turn(SessionManager(store, provider, clock=clock), store, provider)
        return found


def lose_power(recording: Recording, rescue: Rescue, survival: Survival, *, promise: str | None, seed: int = 0) -> int:
    """Lose power after every operation, and see whether what was promised is there.

    Args:
        recording: what was done.
        rescue: looks at what is left.
        survival: how much of what was not synced survives.
        promise: to whom what was told must not be lost; None for nobody.
        seed: decides what survives.

    Returns:
        How often power was lost.
    """
    disk, count = Disk(), len(recording.operations)
    for at in range(count + 1):
        files = disk.after_power_loss(survival, random.Random(f"{seed}/{at}"))
        where = f"power lost after {at} of {count} operations; of what was not synced, {survival} survives; seed {seed}"
        check_found(recording, where, lambda files=files: rescue.open(files), recording.promised(promise, at))
        if at < count:
            disk.apply(recording.operations[at])
    return count + 1


def check_found(recording: Recording, where: str, find: Callable[[], Rows | None], promised: int) -> None:
    """Check that the database is as it was after one of the commits, and that the commit is not older than promised."""
    try:
        found = find()
    except Exception as error:
        raise AssertionError(f"{where}: {type(error).__name__}: {error}") from error
    version = found.conversation.version if found else 0
    assert version >= promised, f"{where}: version {promised} was told of, version {version} is there; the rest is lost"
    assert found == recording.states[version], f"{where}: what is stored is not what was committed"


@pytest.fixture
def rescue(quick_folder: Path) -> Rescue:
    return Rescue(quick_folder)


PROMISES = {"acknowledged": "caller", "strict": "manager", "relaxed": None}


@pytest.mark.parametrize("pragmas", [{}, CHECKPOINTS], ids=["log", "checkpoints"])
@pytest.mark.parametrize("durability", PROMISES)
def test_g8_g9_loss_of_power_loses_nothing_that_was_promised(
    tmp_path: Path, rescue: Rescue, durability: Any, pragmas: Any
) -> None:
    """G8, G9: acknowledged replies and resets survive; strict, begun turns too; relaxed, at least consistently."""
    recording = record(tmp_path / "chat.db", durability=durability, pragmas=pragmas)
    promise = PROMISES[durability]
    tried = lose_power(recording, rescue, "nothing", promise=promise)
    tried += sum(lose_power(recording, rescue, "some", promise=promise, seed=seed) for seed in SEEDS)
    print(f"{durability}: power lost {tried} times, {rescue.opened} different disks opened")
    assert tried == (1 + len(SEEDS)) * (len(recording.operations) + 1) > 400


@pytest.mark.parametrize("pragmas", [{}, CHECKPOINTS], ids=["log", "checkpoints"])
def test_g8_g9_a_killed_process_loses_no_commit_whatever_the_durability(
    tmp_path: Path, rescue: Rescue, pragmas: Any
) -> None:
    """G8, G9: what the process has written, the system still has."""
    recording = record(tmp_path / "chat.db", durability="relaxed", pragmas=pragmas)
    assert lose_power(recording, rescue, "everything", promise="manager") > 200


@pytest.mark.parametrize(
    ("kind", "durability", "promise"),
    [
        pytest.param(UnsyncedStore, "acknowledged", "caller", id="synchronous=OFF"),
        pytest.param(NotingStore, "relaxed", "caller", id="relaxed as acknowledged"),
        pytest.param(NotingStore, "acknowledged", "manager", id="acknowledged as strict"),
    ],
)
def test_control_a_store_that_promises_more_than_it_syncs_is_caught(
    tmp_path: Path, rescue: Rescue, kind: type[NotingStore], durability: Any, promise: str
) -> None:
    """Otherwise the tests above would prove nothing."""
    recording = record(tmp_path / "chat.db", kind, durability=durability)
    with pytest.raises(AssertionError, match="the rest is lost"):
        lose_power(recording, rescue, "nothing", promise=promise)


def test_control_the_rebuilt_disk_is_the_real_one_as_long_as_power_is_there(tmp_path: Path) -> None:
    recording, disk = record(tmp_path / "chat.db"), Disk()
    for operation in recording.operations:
        disk.apply(operation)
    everything = disk.after_power_loss("everything", random.Random(0))
    assert everything == {str(path): path.read_bytes() for path in tmp_path.iterdir()}
