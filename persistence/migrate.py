"""Creating and migrating the tables, and refusing a database that is newer than this library."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fsm.errors import SchemaVersionError
from fsm.fork import renew_in_child
from persistence.dialects.base import Dialect

if TYPE_CHECKING:
    from playhouse.migrations import Runner

__all__ = ["migrate"]

MIGRATIONS = Path(__file__).with_name("migrations")


class _Turns:
    """Lets one thread of the process migrate at a time, because a migration binds the models to its database.

    A forked child starts with a free lock.
    """

    def __init__(self) -> None:
        self.renew()
        renew_in_child(self)

    def renew(self) -> None:
        """Start with a free lock."""
        self.lock = threading.Lock()


_TURNS = _Turns()


def migrate(dialect: Dialect) -> None:
    """Bring the schema up to date; any number of processes may do it at once.

    Args:
        dialect: the database.

    Raises:
        SchemaVersionError: it was migrated by a newer version of this library. Nothing was changed.
    """
    import playhouse.migrations  # takes longer than the rest of this package

    with _TURNS.lock, _unheard(playhouse.migrations.logger):
        runner = playhouse.migrations.Runner(dialect.database, str(MIGRATIONS), table_name="conversation_fsm_migration")
        if _is_current(runner):
            return
        with dialect.exclusive():
            if not _is_current(runner):
                runner.up()


@contextmanager
def _unheard(logger: logging.Logger) -> Iterator[None]:
    """Keep peewee from logging the migrations of this thread, but not those of the application."""
    me = threading.get_ident()

    def is_from_elsewhere(record: logging.LogRecord) -> bool:
        return record.thread != me

    logger.addFilter(is_from_elsewhere)
    try:
        yield
    finally:
        logger.removeFilter(is_from_elsewhere)


def _is_current(runner: Runner) -> bool:
    status = runner.status()
    unknown = [migration.name for migration in status if migration.path is None]
    if unknown:
        raise SchemaVersionError(
            f"the database has the migration {unknown[-1]!r}, which this version of conversation-fsm does not know; "
            "install the version that wrote it, or a newer one"
        )
    return all(migration.applied for migration in status)
