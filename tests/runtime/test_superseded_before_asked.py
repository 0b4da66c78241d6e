"""A turn that was begun and is read later looks again at who holds the conversation before its provider is asked."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio.to_thread
import pytest

from fsm import AsyncSessionManager, Result, SessionManager, TextDelta, TurnStatus, TurnSuperseded
from fsm.events import EXPIRED
from fsm.providers import DemoProvider
from fsm.testing import ReferenceStore, check_database
from persistence import SQLStore

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(120)]

LATER = [1, 1.5, 5, 15, 19, 25, 60, 250]
"""Seconds between the begin of a turn and its first event, all of them less than half of a lease."""


class Clock:
    """A clock that stands still until it is told to move."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Each event loop in turn."""
    return request.param


@pytest.fixture(params=["sqlite", "reference"])
def store(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A real store, and the reference store."""
    if request.param == "reference":
        yield ReferenceStore()
        return
    with SQLStore(request.getfixturevalue("sqlite_url")) as store:
        yield store


def answers() -> DemoProvider:
    """A provider that binds the session s-1."""
    return DemoProvider([[TextDelta("yes"), Result(session_id="s-1")]] * 3)


@pytest.mark.parametrize("seconds", LATER)
def test_a_turn_that_was_superseded_before_it_was_read_does_not_ask_its_provider(store: Any, seconds: float) -> None:
    clock, provider = Clock(), answers()
    sessions = SessionManager(store, provider, clock=clock)
    sessions.send("k", "before")
    with pytest.raises(TurnSuperseded), sessions.stream("k", "hello") as turn:
        SessionManager(store, answers(), clock=clock).reset("k", force=True)
        clock.advance(seconds)
        next(turn)
    assert len(provider.requests) == 1
    assert sessions.conversations.turns("k")[-1].status is TurnStatus.SUPERSEDED
    check_database(store)


@pytest.mark.parametrize("seconds", LATER)
def test_a_turn_that_is_read_late_does_not_resume_a_session_that_has_died_meanwhile(store: Any, seconds: float) -> None:
    """Somebody else has ended it, and found the session dead (G2)."""
    clock, provider = Clock(), answers()
    sessions = SessionManager(store, provider, clock=clock)
    sessions.send("k", "before")
    with pytest.raises(TurnSuperseded), sessions.stream("k", "hello") as turn:
        script = [Result(subtype=EXPIRED, is_error=True), [TextDelta("new"), Result(session_id="s-2")]]
        other = SessionManager(store, DemoProvider(script), clock=clock)
        other.reset("k", force=True)
        other.send("k", "in between")
        clock.advance(seconds)
        next(turn)
    assert len(provider.requests) == 1
    check_database(store)


@pytest.mark.anyio
@pytest.mark.parametrize("seconds", LATER)
async def test_a_superseded_turn_of_the_async_manager_does_not_ask_its_provider(store: Any, seconds: float) -> None:
    clock, provider = Clock(), answers()
    sessions = AsyncSessionManager(store, provider, clock=clock)
    await sessions.send("k", "before")
    with pytest.raises(TurnSuperseded):
        async with sessions.stream("k", "hello") as turn:
            other = SessionManager(store, answers(), clock=clock)
            await anyio.to_thread.run_sync(lambda: other.reset("k", force=True))
            clock.advance(seconds)
            await anext(turn)
    assert len(provider.requests) == 1
    check_database(store)


@pytest.mark.parametrize("seconds", [0, *LATER])
def test_a_turn_that_still_holds_its_conversation_is_answered_however_late_it_is_read(
    store: Any, seconds: float
) -> None:
    clock, provider = Clock(), answers()
    sessions = SessionManager(store, provider, clock=clock)
    with sessions.stream("k", "hello") as turn:
        clock.advance(seconds)
        events = list(turn)
    assert (turn.reply.status, len(provider.requests)) == (TurnStatus.SUCCEEDED, 1)
    assert isinstance(events[-1], Result)
