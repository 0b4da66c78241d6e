"""The tables of the first release."""

from __future__ import annotations

from typing import Any

from peewee import SqliteDatabase

from persistence.schema import CLUSTERED, TABLES


def up(_: Any, db: Any) -> None:
    """Create all tables and indexes; on SQLite with strict types, and small tables clustered by their keys."""
    on_sqlite = isinstance(db, SqliteDatabase)
    with db.bind_ctx(TABLES):
        for table in TABLES:
            table._meta.strict_tables = on_sqlite
            table._meta.without_rowid = on_sqlite and table in CLUSTERED
            table.create_table(safe=False)
