"""CockroachDB, as far as it can be tried without a server: its dialect compiles the same statements."""

from playhouse.cockroachdb import CockroachDatabase
from playhouse.postgres_ext import Psycopg3Database

from persistence.queries import Statement, Statements


def compiled(database: object) -> dict[str, Statement]:
    """All statements of a database."""
    statements = Statements(database)
    return {name: found for name, found in vars(statements).items() if isinstance(found, Statement)} | statements.page


def test_its_statements_are_those_of_postgresql() -> None:
    """Word by word."""
    theirs = compiled(CockroachDatabase("name", prefer_psycopg3=True))
    assert len(theirs) > 20
    assert theirs == compiled(Psycopg3Database("name"))
