"""The dialects: which database a URL means."""

from typing import Any

import pytest

from persistence.dialects import Pooling, connect


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"], ids=["long", "short"])
def test_a_url_of_a_server_means_that_server_under_both_names(scheme: str) -> None:
    pytest.importorskip("psycopg")
    dialect: Any = connect(f"{scheme}://ada@db.example.org/chat", timeout=3.0, pool=Pooling())
    assert type(dialect).__name__ == "PostgreSQL"
    assert dialect.shown == "postgresql://ada@db.example.org/chat"
    assert dialect.parameters == {
        "user": "ada",
        "host": "db.example.org",
        "dbname": "chat",
        "connect_timeout": 3,
        "client_encoding": "UTF8",
    }
