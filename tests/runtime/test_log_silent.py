"""An application that logs at INFO hears of this library under its own name, and nothing of the libraries below."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest

from fsm import AsyncSessionManager, Result, SessionManager
from fsm.events import EXPIRED
from fsm.providers import DemoProvider
from persistence import SQLStore

DEAD = Result(subtype=EXPIRED, is_error=True, session_id="s-1")


class Kept(logging.Handler):
    """Keeps all records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def heard() -> Iterator[list[logging.LogRecord]]:
    """Return the log records of an application with ``logging.basicConfig``."""
    root, handler = logging.getLogger(), Kept()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield handler.records
    root.setLevel(level)
    root.removeHandler(handler)


def provider() -> DemoProvider:
    """Its session dies once, and once its turn fails."""
    return DemoProvider([Result(session_id="s-1"), DEAD, Result(session_id="s-2"), Result(is_error=True)])


def synchronous(store: SQLStore) -> None:
    """Turns, a heal, a reset and reads."""
    sessions = SessionManager(store, provider())
    for text in ("one", "two", "three"):
        sessions.send("k", text)
    sessions.reset("k")
    sessions.recover()
    sessions.conversations.messages("k")


def asynchronous(store: SQLStore) -> None:
    """The same, on an event loop."""

    async def talk() -> None:
        sessions = AsyncSessionManager(store, provider())
        for text in ("one", "two", "three"):
            await sessions.send("k", text)
        await sessions.reset("k")
        await sessions.recover()
        await sessions.conversations.messages("k")

    anyio.run(talk)


@pytest.mark.parametrize("run", [synchronous, asynchronous])
def test_an_application_that_logs_at_info_hears_only_of_this_library(
    url: str, heard: list[logging.LogRecord], run: Callable[[SQLStore], Any]
) -> None:
    with SQLStore(url) as store:
        run(store)
    mine = [record for record in heard if record.name == "fsm"]
    assert {"turn.run_completed", "session.heal_started"} <= {record.getMessage() for record in mine}
    others = {(record.name, record.getMessage()) for record in heard if record.name.partition(".")[0] != "fsm"}
    # asyncio says which selector it has; that is the application's loop.
    assert {name for name, _ in others} <= {"asyncio"}, others
