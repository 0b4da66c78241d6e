"""The modules that importing the library loads, and those that it does not."""

import os
import subprocess
import sys

import pytest

import fsm


def loaded(statement: str) -> set[str]:
    """The modules that a new process has loaded after a statement."""
    script = f"import sys; {statement}; print(*sys.modules)"
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, env=unmeasured)
    return set(done.stdout.split())


@pytest.mark.parametrize("statement", ["import fsm, persistence", "import fsm.providers, persistence"])
def test_no_sdk_is_loaded_before_a_provider_is_constructed(statement: str) -> None:
    """The SDK alone costs over a second."""
    assert not loaded(statement) & {"anthropic", "pydantic", "httpx2", "click", "rich", "hypothesis"}


def test_no_database_is_loaded_before_a_store_is_opened() -> None:
    """peewee loads psycopg, where that is installed, whatever it is used for."""
    database = {"peewee", "playhouse", "psycopg", "sqlite3"}
    assert not loaded("import fsm; from persistence import SQLStore") & database
    assert loaded("from persistence import SQLStore; SQLStore('sqlite:///:memory:')") >= {"peewee", "sqlite3"}


def test_no_event_loop_is_loaded_before_the_asynchronous_manager_is_asked_for() -> None:
    """It takes longer to import than the library."""
    assert not loaded("import fsm, persistence") & {"anyio", "asyncio", "fsm.aio"}
    assert "fsm.aio" in loaded("from fsm import AsyncSessionManager")
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        fsm.Nothing  # noqa: B018


def test_the_core_needs_no_database() -> None:
    assert not loaded("import fsm, fsm.providers") & {"persistence", "peewee", "playhouse", "sqlite3"}
