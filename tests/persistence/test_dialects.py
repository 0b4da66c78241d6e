"""The dialects: which database a URL means."""

import pytest

from persistence.dialects import connect


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"], ids=["long", "short"])
def test_a_url_of_a_server_means_that_server_under_both_names(scheme: str) -> None:
    """It is not connected to yet."""
    pytest.importorskip("psycopg")
    dialect = connect(f"{scheme}://ada@db.example.org/chat", timeout=3.0)
    assert type(dialect).__name__ == "PostgreSQL"
    assert dialect.database.database == "postgresql://ada@db.example.org/chat"
    assert dialect.database.connect_params["connect_timeout"] == 3
