"""CockroachDB, as far as it can be tried without a server: its dialect compiles the same statements."""

from playhouse.cockroachdb import CockroachDatabase
from playhouse.postgres_ext import Psycopg3Database

from persistence.queries import Statements


def test_its_statements_are_those_of_postgresql() -> None:
    theirs = Statements(CockroachDatabase("name", prefer_psycopg3=True)).named()
    assert len(theirs) > 20
    assert theirs == Statements(Psycopg3Database("name")).named()
