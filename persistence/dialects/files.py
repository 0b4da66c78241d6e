"""Database files: creating one, and recognising one that was moved.

When a process closes any descriptor of a file, POSIX drops all of its locks on the file, and so SQLite's. So this
module never closes a descriptor of a file that SQLite may have open. A missing file is made under another name, closed,
and only then given its name.
"""

from __future__ import annotations

import errno
import os
import uuid
from contextlib import suppress

from fsm.errors import StoreError

__all__ = ["create_private", "file_at"]

_KEPT: list[int] = []
"""Descriptors that must not be closed: of files on a file system without hard links."""


def file_at(path: str) -> tuple[int, int] | None:
    """Return the device and inode of the file at a path, or None if there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def create_private(path: str) -> None:
    """Create a missing file, readable by its owner only; SQLite gives its companions the same mode.

    A file that exists is not touched.

    Raises:
        StoreError: the file can't be created.
    """
    try:
        target = os.path.realpath(path)
        if not os.path.lexists(target):
            _create(target)
        _check_writable(target)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise StoreError(
            f"the database file {path!r} can't be opened for writing: {why}; check the path and who may write there"
        ) from error


def _check_writable(target: str) -> None:
    """Raise OSError if a file can't be written; the file is not opened."""
    if os.path.isdir(target):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not os.access(target, os.R_OK | os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _create(target: str) -> None:
    beside = f"{os.path.dirname(target)}/.{uuid.uuid4().hex}"
    os.close(os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with suppress(FileExistsError):  # another process was first
            os.link(beside, target)
    except OSError:
        with suppress(FileExistsError):
            _KEPT.append(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    finally:
        os.unlink(beside)
