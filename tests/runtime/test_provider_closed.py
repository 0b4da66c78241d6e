"""A provider's stream is closed however its turn ends, a refused write among the ways."""

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from fsm import AsyncSessionManager, Request, Result, SessionManager, StoreError, TextDelta, TurnSuperseded
from fsm.events import EXPIRED
from fsm.providers import DemoProvider
from fsm.testing import ReferenceStore
from persistence import SQLStore
from tests.stores import Refusing, begins, ends, extends, heals

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(120)]

DEAD = Result(subtype=EXPIRED, is_error=True, session_id="s-1")


class Clock:
    """A clock that stands still until it is told to move."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Stream:
    """Events that stay open until they are closed; nothing but a call of its method closes them."""

    def __init__(self, events: list[Any]) -> None:
        self._events = iter(events)
        self.closed = threading.Event()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        event = next(self._events)
        if callable(event):
            event()
            return next(self)
        return event

    def close(self) -> None:
        self.closed.set()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        await anyio.lowlevel.checkpoint()
        try:
            return next(self)
        except StopIteration:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.close()


class Watched:
    """Answers with one stream after the other, and keeps them all."""

    name = "demo"

    def __init__(self, *answers: list[Any]) -> None:
        self._answers = iter(answers)
        self.streams: list[Stream] = []

    def stream(self, request: Request) -> Iterator[Any]:
        self.streams.append(Stream(next(self._answers)))
        return self.streams[-1]

    def all_closed(self) -> bool:
        """Whether each stream has been closed, or is within half a minute."""
        return all(stream.closed.wait(30) for stream in self.streams)


class AsyncWatched(Watched):
    """The same, for an event loop."""

    def astream(self, request: Request) -> AsyncIterator[Any]:
        self.streams.append(Stream(next(self._answers)))
        return self.streams[-1]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Each event loop in turn."""
    return request.param


@pytest.fixture(params=["sqlite", "reference"])
def store(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A real store, and the reference store; the conversation k holds the session s-1."""
    if request.param == "reference":
        made: Any = ReferenceStore()
    else:
        made = SQLStore(request.getfixturevalue("sqlite_url"))
    SessionManager(made, DemoProvider([Result(session_id="s-1")]), clock=Clock()).send("k", "before")
    yield made
    made.close()


def answer(clock: Clock) -> list[Any]:
    """A long answer, in the middle of which the lease is to be extended."""
    return [TextDelta("one "), lambda: clock.advance(400), TextDelta("two "), Result(session_id="s-1"), TextDelta("x")]


REFUSED: dict[str, tuple[Callable[..., bool], bool]] = {
    "its end": (ends, False),
    "a longer lease": (extends, False),
    "a heal": (heals, True),
    "the end of a healed turn": (ends, True),
}


def answers(clock: Clock, *, dies: bool) -> list[list[Any]]:
    """The text of the provider."""
    return [[DEAD, TextDelta("x")], answer(clock)] if dies else [answer(clock)]


@pytest.mark.parametrize(("refused", "dies"), REFUSED.values(), ids=REFUSED)
def test_the_stream_is_closed_when_the_store_refuses(store: Any, refused: Callable[..., bool], dies: bool) -> None:
    clock = Clock()
    provider = Watched(*answers(clock, dies=dies))
    front = Refusing(store, refused, StoreError("the disk is full"))
    with pytest.raises(StoreError, match="the disk is full"):
        SessionManager(front, provider, clock=clock).send("k", "hello")
    assert provider.streams
    assert provider.all_closed()


@pytest.mark.anyio
@pytest.mark.parametrize("kind", [Watched, AsyncWatched])
@pytest.mark.parametrize(("refused", "dies"), REFUSED.values(), ids=REFUSED)
async def test_the_stream_is_closed_when_the_store_of_an_async_manager_refuses(
    store: Any, refused: Callable[..., bool], dies: bool, kind: type[Watched]
) -> None:
    clock = Clock()
    provider = kind(*answers(clock, dies=dies))
    front = Refusing(store, refused, StoreError("the disk is full"))
    with pytest.raises(StoreError, match="the disk is full"):
        await AsyncSessionManager(front, provider, clock=clock).send("k", "hello")
    assert provider.streams
    assert await anyio.to_thread.run_sync(provider.all_closed)


def test_the_stream_is_closed_when_the_turn_was_superseded(store: Any) -> None:
    provider = Watched([TextDelta("one "), TextDelta("two "), Result(session_id="s-1")])
    clock = Clock()
    sessions = SessionManager(store, provider, clock=clock)
    with pytest.raises(TurnSuperseded), sessions.stream("k", "hello") as turn:
        next(turn)
        sessions.reset("k", force=True)
        list(turn)
    assert provider.all_closed()


def test_the_stream_is_closed_when_the_turn_is_left_and_the_store_refuses_its_end(store: Any) -> None:
    provider = Watched([TextDelta("one "), TextDelta("two ")])
    front = Refusing(store, ends, StoreError("the disk is full"))
    with (
        pytest.raises(StoreError, match="the disk is full"),
        SessionManager(front, provider, clock=Clock()).stream("k", "hello") as turn,
    ):
        next(turn)
    assert provider.all_closed()


def test_a_provider_is_not_asked_when_the_store_refuses_the_begin(store: Any) -> None:
    provider = Watched()
    front = Refusing(store, begins, StoreError("the disk is full"))
    with pytest.raises(StoreError, match="the disk is full"):
        SessionManager(front, provider, clock=Clock()).send("k", "hello")
    assert provider.streams == []
