"""A disk that can lose power and fail: a VFS for SQLite, and the real store on it.

:class:`Vfs` passes everything on to the real file system, so that SQLite's own locking and shared memory are at work.
On its way it notes each operation that changes the disk, in order, and it lets the one that a test names fail.
:class:`Disk` plays such notes again and returns the files after a loss of power. Synced data is there. Of other data
there is nothing, everything, or a random part, torn at sectors.

Two things are the same in every run, so that notes can be compared. Nothing is synced to the real disk, since its power
is not cut. SQLite's random numbers come from a counter.
"""

import itertools
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import apsw
from attrs import define, field, frozen
from peewee import PeeweeException
from playhouse.apsw_ext import APSWDatabase

from persistence import SQLStore
from persistence.dialects import Dialect, cause_of
from persistence.dialects.connections import PRAGMAS, Connections
from persistence.dialects.files import file_at
from persistence.dialects.sqlite import SQLite

Kind = Literal["create", "delete", "open", "read", "sync", "truncate", "write"]
Survival = Literal["nothing", "everything", "some"]

SECTOR = 512
NAMES = itertools.count()


@frozen
class Operation:
    """Something that was done to the disk.

    Attributes:
        kind: what.
        path: the file.
        offset: where it was written, or the size it was cut to.
        data: what was written.
        folder: whether the folder was synced along with it.
    """

    kind: Kind
    path: str
    offset: int = 0
    data: bytes = field(default=b"", repr=len)
    folder: bool = False


@define
class Fault:
    """The operations that are to fail.

    Attributes:
        kind: this kind of operation.
        nth: the how manieth of them from now on, counted from 1.
        code: the error that SQLite is told.
        lasting: whether all of this kind fail from then on.
        path_ends: only files whose path ends like this.
        met: how many have failed.
    """

    kind: Kind
    nth: int
    code: int
    lasting: bool = False
    path_ends: str = ""
    met: int = 0

    def meet(self, kind: Kind, path: str) -> None:
        """Raise if this operation is to fail."""
        if kind != self.kind or not path.endswith(self.path_ends):
            return
        self.nth -= 1
        if self.nth == 0 or (self.lasting and self.nth < 0):
            self.met += 1
            raise apsw.exception_for(self.code)


class Vfs(apsw.VFS):
    """The disk. ``operations`` is what was done to it; set ``fault`` to let something fail."""

    def __init__(self) -> None:
        self.name = f"crash-{next(NAMES)}"
        self.operations: list[Operation] = []
        self.fault: Fault | None = None
        self._known: set[str] = set()
        self._chance = itertools.count(1)
        super().__init__(self.name, "")

    def xOpen(self, name: Any, flags: list[int]) -> "_File":
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self.meet("open", path or "")
        file = _File(self, path, name, flags)
        if path and path not in self._known:
            self._known.add(path)
            self.operations.append(Operation("create", path))
        return file

    def xDelete(self, path: str, folder: bool) -> None:
        self.meet("delete", path)
        super().xDelete(path, False)
        self._known.discard(path)
        self.operations.append(Operation("delete", path, folder=folder))

    def xRandomness(self, count: int) -> bytes:
        return random.Random(next(self._chance)).randbytes(count)

    def meet(self, kind: Kind, path: str) -> None:
        """Let an operation fail, if it is to."""
        if self.fault is not None:
            self.fault.meet(kind, path)


class _File(apsw.VFSFile):
    """One file; those without a path are SQLite's own and are not noted."""

    def __init__(self, disk: Vfs, path: str | None, name: Any, flags: list[int]) -> None:
        self._disk = disk
        self._path = path or ""
        self._syncs_folder = bool(path) and not os.path.exists(path)
        super().__init__("", name, flags)

    def xRead(self, amount: int, offset: int) -> bytes:
        self._disk.meet("read", self._path)
        return super().xRead(amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.meet("write", self._path)
        super().xWrite(data, offset)
        self._note(Operation("write", self._path, offset, bytes(data)))

    def xTruncate(self, size: int) -> None:
        self._disk.meet("truncate", self._path)
        super().xTruncate(size)
        self._note(Operation("truncate", self._path, size))

    def xSync(self, flags: int) -> None:
        self._disk.meet("sync", self._path)
        self._note(Operation("sync", self._path, folder=self._syncs_folder))
        self._syncs_folder = False  # as SQLite does: with the first sync of a journal that it created

    def _note(self, operation: Operation) -> None:
        if self._path:
            self._disk.operations.append(operation)


@define
class _Content:
    """The content of a file: the synced part, and the operations since the last sync."""

    safe: bytes = b""
    pending: list[Operation] = field(factory=list)

    def sync(self) -> None:
        self.safe = _written(self.safe, self.pending)
        self.pending.clear()

    def after(self, survival: Survival, chance: random.Random) -> bytes:
        if survival == "nothing":
            return self.safe
        return _written(self.safe, self.pending if survival == "everything" else _some(self.pending, chance))


class Disk:
    """The disk that notes tell of, and what a loss of power leaves of it."""

    def __init__(self) -> None:
        self._files: dict[str, _Content] = {}
        self._safe: dict[str, _Content] = {}
        self._pending: list[tuple[str, _Content | None]] = []

    def apply(self, operation: Operation) -> None:
        """Do what was done."""
        match operation.kind:
            case "create":
                self._files[operation.path] = _Content()
                self._pending.append((operation.path, self._files[operation.path]))
            case "delete":
                del self._files[operation.path]
                self._pending.append((operation.path, None))
            case "sync":
                self._files[operation.path].sync()
            case _:
                self._files[operation.path].pending.append(operation)
        if operation.folder:
            self._safe = _named(self._safe, self._pending)
            self._pending.clear()

    def after_power_loss(self, survival: Survival, chance: random.Random) -> dict[str, bytes]:
        """The files by path. Changes of names survive in order, as in the journal of a file system."""
        kept = {"nothing": 0, "everything": len(self._pending), "some": chance.randint(0, len(self._pending))}
        names = _named(self._safe, self._pending[: kept[survival]])
        return {path: content.after(survival, chance) for path, content in names.items()}


def _named(names: dict[str, _Content], pending: list[tuple[str, _Content | None]]) -> dict[str, _Content]:
    names = dict(names)
    for path, content in pending:
        names.pop(path, None)
        if content is not None:
            names[path] = content
    return names


def _written(content: bytes, operations: list[Operation]) -> bytes:
    written = bytearray(content)
    for operation in operations:
        start, end = operation.offset, operation.offset + len(operation.data)
        if operation.kind == "truncate":
            del written[start:]
        written.extend(bytes(max(0, end - len(written))))
        written[start:end] = operation.data
    return bytes(written)


def _some(operations: list[Operation], chance: random.Random) -> list[Operation]:
    """Some of them; of a write, some of its sectors."""
    share = chance.choice((0.1, 0.5, 0.9))
    pieces = (piece for operation in operations for piece in _sectors(operation))
    return [piece for piece in pieces if chance.random() < share]


def _sectors(operation: Operation) -> Iterator[Operation]:
    if operation.kind == "truncate":
        yield operation
        return
    start, end = operation.offset, operation.offset + len(operation.data)
    while start < end:
        stop = min(end, (start // SECTOR + 1) * SECTOR)
        yield Operation(
            "write", operation.path, start, operation.data[start - operation.offset : stop - operation.offset]
        )
        start = stop


# The real store on it. What follows makes apsw look like Python's sqlite3 to peewee and to the store.


@contextmanager
def _as_sqlite3() -> Iterator[None]:
    """Python's sqlite3 tells a lack of memory as Python does."""
    try:
        yield
    except apsw.NoMemError as error:
        raise MemoryError from error


class _Cursor(apsw.Cursor):
    @property
    def rowcount(self) -> int:
        return self.connection.changes()

    def execute(self, *args: Any, **options: Any) -> apsw.Cursor:
        with _as_sqlite3():
            return super().execute(*args, **options)

    def fetchall(self) -> list[Any]:
        with _as_sqlite3():
            return super().fetchall()


class _Connection(apsw.Connection):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.cursor_factory = _Cursor
        self.convert_binding = lambda _cursor, _number, value: str(value) if isinstance(value, datetime) else value

    @property
    def in_transaction(self) -> bool:
        return not self.getautocommit()


class _Database(APSWDatabase):
    def __init__(self, connections: Connections, path: str, timeout: float, pragmas: dict[str, Any], vfs: str) -> None:
        self._connections = connections
        super().__init__(path, pragmas=pragmas, timeout=timeout, vfs=vfs)

    def _connect(self) -> _Connection:
        with _as_sqlite3():
            connection = _Connection(self.database, vfs=self.connect_params["vfs"])
        self._add_conn_hooks(connection)
        self._connections.keep(connection, file_at(self.database))
        return connection

    def _close(self, conn: Any) -> None:
        self._connections.mine.cursor = None
        super()._close(conn)


class FragileSQLite(SQLite):
    """The real dialect, over apsw."""

    def __init__(self, path: str, *, timeout: float, vfs: Vfs, pragmas: dict[str, Any]) -> None:
        super().__init__(path, timeout=timeout)
        pragmas = {**PRAGMAS, **pragmas}
        self.database = _Database(self.connections, path, timeout, pragmas, vfs.name)

    def may_retry(self, error: PeeweeException) -> bool:
        return getattr(cause_of(error), "result", 0) in {apsw.SQLITE_BUSY, apsw.SQLITE_LOCKED}


class FragileStore(SQLStore):
    """The real store, on a disk that can lose power and fail.

    Args:
        path: the file.
        vfs: the disk.
        pragmas: more settings of SQLite.
        options: the store's.
    """

    def __init__(self, path: Path, vfs: Vfs, *, pragmas: dict[str, Any] | None = None, **options: Any) -> None:
        self._vfs = vfs
        self._pragmas = pragmas or {}
        super().__init__(str(path), **options)

    def connect(self, url: str) -> Dialect:
        return FragileSQLite(url, timeout=self._timeout, vfs=self._vfs, pragmas=self._pragmas)


__all__ = ["Disk", "Fault", "FragileSQLite", "FragileStore", "Operation", "Survival", "Vfs"]
