"""The connections to SQLite files that a forked child inherits and must neither use nor close."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fsm.errors import StoreError
from fsm.fork import leave_to_parent

__all__ = ["INHERITED"]


class _Inherited:
    """The inherited connections of this process. Only the hook that runs in a forked child writes here."""

    def __init__(self) -> None:
        self._files: set[tuple[int, int] | None] = set()

    def keep(self, connections: Iterable[Any], file: tuple[int, int] | None) -> None:
        """Keep connections to a file from being closed in this process, even when it ends.

        Closing one would write to the file, and remove the log that the parent is writing.
        """
        for connection in connections:
            leave_to_parent(connection)
            self._files.add(file)

    def check(self, file: tuple[int, int] | None, path: str) -> None:
        """Refuse a file to which SQLite has a connection from before the fork.

        Raises:
            StoreError: there is one. SQLite would take the locks of the parent for its own, and commits would be lost.
        """
        if file in self._files:
            raise StoreError(
                f"this process was forked while a connection to the database file {path!r} was in use, so it can't "
                "open the file safely. Fork outside of calls of the store, or start the child as a new program"
            )


INHERITED = _Inherited()
"""The inherited connections of this process."""
