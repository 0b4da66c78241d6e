"""Creating and migrating the tables, and refusing a database that is newer than this library."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from fsm.errors import SchemaVersionError
from persistence.dialects import Dialect

if TYPE_CHECKING:
    from playhouse.migrations import Runner

__all__ = ["migrate"]

MIGRATIONS = Path(__file__).with_name("migrations")

_ONE_AT_A_TIME = threading.Lock()


def migrate(dialect: Dialect) -> None:
    """Bring the schema up to date; any number of processes may do it at once.

    Args:
        dialect: the database.

    Raises:
        SchemaVersionError: it was migrated by a newer version of this library. Nothing was changed.
    """
    from playhouse.migrations import Runner  # costs more than all the rest of this package

    # A migration binds the models to its database while it runs, and the models are the process's.
    with _ONE_AT_A_TIME:
        runner = Runner(dialect.database, str(MIGRATIONS), table_name="conversation_fsm_migration")
        if _is_current(runner):
            return
        with dialect.exclusive():
            if not _is_current(runner):
                runner.up()


def _is_current(runner: Runner) -> bool:
    status = runner.status()
    unknown = [migration.name for migration in status if migration.path is None]
    if unknown:
        raise SchemaVersionError(
            f"the database has the migration {unknown[-1]!r}, which this version of conversation-fsm does not know; "
            "install the version that wrote it, or a newer one"
        )
    return all(migration.applied for migration in status)
