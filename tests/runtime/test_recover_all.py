"""`recover()` ends every running turn that may be ended, however many there are and whatever stands before them."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from fsm import AsyncSessionManager, SessionManager, TurnStatus
from fsm.providers import DemoProvider
from fsm.testing import ReferenceStore, check_database
from persistence import SQLStore
from tests.outside import outside

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(180)]

DEAD, LIVE = 150, 100

linux_only = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="nothing is concluded without /proc")


@pytest.fixture(params=["sqlite", "postgresql", "reference"])
def store(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A real store on each kind of database, and the reference store."""
    if request.param == "reference":
        yield ReferenceStore()
        return
    with SQLStore(request.getfixturevalue(f"{request.param}_url")) as store:
        yield store


@pytest.fixture
def held() -> Iterator[ExitStack]:
    """Streams that are open until the end of the test."""
    with ExitStack() as stack:
        yield stack


def an_hour_ago() -> datetime:
    """A clock that is behind."""
    return datetime.now(UTC) - timedelta(hours=1)


def at_noon() -> datetime:
    """A clock that stands still."""
    return datetime(2026, 1, 1, 12, tzinfo=UTC)


def begin(held: ExitStack, sessions: SessionManager, name: str, count: int) -> set[str]:
    """Begin turns and leave them open; the keys of their conversations."""
    keys = {f"{name}{number:03}" for number in range(count)}
    for key in sorted(keys):
        held.enter_context(sessions.stream(key, "hello"))
    return keys


def die_in_turns(url: str, name: str, count: int, lease: float, stands_still: bool) -> None:
    """Begin turns and end the process in the middle of them, without a word to the store."""
    options: dict[str, Any] = {"clock": at_noon} if stands_still else {}
    held = ExitStack()
    begin(held, SessionManager(SQLStore(url), DemoProvider(), lease=lease, **options), name, count)
    print("returned null", flush=True)
    os._exit(0)


def test_all_turns_whose_lease_is_over_are_ended_at_once(store: Any, held: ExitStack) -> None:
    dead = begin(held, SessionManager(store, DemoProvider(), clock=an_hour_ago), "dead", DEAD)
    sessions = SessionManager(store, DemoProvider())
    assert {conversation.key for conversation in sessions.recover()} == dead
    assert store.running() == []
    assert all(sessions.conversations.turns(key)[0].status is TurnStatus.INTERRUPTED for key in dead)
    assert sessions.recover() == []
    held.close()
    check_database(store)


def test_an_async_manager_ends_all_turns_whose_lease_is_over(store: Any, held: ExitStack) -> None:
    dead = begin(held, SessionManager(store, DemoProvider(), clock=an_hour_ago), "dead", DEAD)
    ended = anyio.run(AsyncSessionManager(store, DemoProvider()).recover)
    assert {conversation.key for conversation in ended} == dead
    assert store.running() == []


def test_turns_whose_leases_end_at_the_same_moment_are_all_ended(store: Any, held: ExitStack) -> None:
    dead = begin(held, SessionManager(store, DemoProvider(), clock=at_noon, lease=1), "dead", DEAD + LIVE)
    later = SessionManager(store, DemoProvider(), clock=lambda: at_noon() + timedelta(seconds=1))
    assert {conversation.key for conversation in later.recover()} == dead


def test_live_turns_are_left_alone_and_hide_no_dead_ones(store: Any, held: ExitStack) -> None:
    now = datetime.now(UTC)

    def manager(lease: float, since: float = 0) -> SessionManager:
        return SessionManager(store, DemoProvider(), lease=lease, clock=lambda: now - timedelta(seconds=since))

    begin(held, manager(600), "live", LIVE)
    dead = begin(held, manager(600, since=3600), "dead", DEAD)
    alive = begin(held, manager(30), "next", LIVE)
    assert len(alive) == LIVE
    assert {conversation.key for conversation in manager(600).recover()} == dead
    assert len(store.running(limit=1000)) == 2 * LIVE


@linux_only
@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_turns_of_a_process_that_is_gone_are_ended_behind_many_live_ones(
    request: pytest.FixtureRequest, held: ExitStack, backend: str
) -> None:
    url = request.getfixturevalue(f"{backend}_url")
    with SQLStore(url) as store:
        sessions = SessionManager(store, DemoProvider(), lease=600)
        live = begin(held, sessions, "live", LIVE)
        outside(die_in_turns, url, "dead", DEAD, 3600, False)
        assert {conversation.key for conversation in sessions.recover()} == {f"dead{n:03}" for n in range(DEAD)}
        assert {conversation.key for conversation in store.running(limit=1000)} == live
        held.close()
        check_database(store)


@linux_only
@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_turns_of_a_process_that_is_gone_are_ended_among_live_ones_with_the_same_lease(
    request: pytest.FixtureRequest, held: ExitStack, backend: str
) -> None:
    url = request.getfixturevalue(f"{backend}_url")
    with SQLStore(url) as store:
        sessions = SessionManager(store, DemoProvider(), lease=600, clock=at_noon)
        live = begin(held, sessions, "a", LIVE) | begin(held, sessions, "c", LIVE)
        outside(die_in_turns, url, "b", DEAD, 600, True)
        assert {conversation.key for conversation in sessions.recover()} == {f"b{n:03}" for n in range(DEAD)}
        assert {conversation.key for conversation in store.running(limit=1000)} == live
        held.close()
