"""The tables of the first release."""

from __future__ import annotations

from typing import Any

from persistence.models import TABLES


def up(_: Any, db: Any) -> None:
    """Create all tables and indexes."""
    with db.bind_ctx(TABLES):
        for table in TABLES:
            table.create_table(safe=False)
