"""A store that raises whatever it likes while it commits: the caller gets a StoreError with the reply, and goes on."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

from fsm import AsyncSessionManager, Result, SessionManager, StoreError, TextDelta, TurnStatus
from fsm.events import EXPIRED
from fsm.providers import DemoProvider
from fsm.testing import ReferenceStore
from persistence import SQLStore
from tests.stores import Refusing, begins, ends, extends, heals

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(60)]

ANSWER = [TextDelta("one "), TextDelta("two"), Result(session_id="s-1")]
DEAD = Result(subtype=EXPIRED, is_error=True, session_id="s-1")
ERRORS = [
    ValueError("secret"),
    KeyError("secret"),
    RuntimeError("secret"),
    OSError(5, "secret"),
    UnicodeEncodeError("latin-1", "secret \u4e2d", 7, 8, "secret"),
    ZeroDivisionError(),
    MemoryError(),
    TimeoutError("secret"),
]


class Clock:
    """A clock that stands still until it is told to move."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture(params=["sqlite", "reference"])
def store(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A real store, and the reference store; the conversation k holds the session s-1."""
    made: Any = ReferenceStore() if request.param == "reference" else SQLStore(request.getfixturevalue("sqlite_url"))
    SessionManager(made, DemoProvider([ANSWER]), clock=Clock()).send("k", "before")
    yield made
    made.close()


def named(error: Exception) -> str:
    """An error's name, for the name of a test."""
    return type(error).__name__


@pytest.mark.parametrize("error", ERRORS, ids=named)
def test_an_error_of_any_kind_at_the_end_of_a_turn_comes_with_the_reply(store: Any, error: Exception) -> None:
    front = Refusing(store, ends, error)
    sessions = SessionManager(front, DemoProvider([ANSWER] * 3), clock=Clock())
    with pytest.raises(StoreError) as caught:
        sessions.send("k", "hello")
    assert caught.value.key == "k"
    assert caught.value.reply is not None
    assert (caught.value.reply.text, caught.value.reply.result) == ("one two", ANSWER[-1])
    assert type(error).__name__ in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is error
    front.relent()
    assert sessions.send("k", "and now").status is TurnStatus.SUCCEEDED
    assert [turn.status for turn in sessions.conversations.turns("k")] == [
        TurnStatus.SUCCEEDED,
        TurnStatus.INTERRUPTED,
        TurnStatus.SUCCEEDED,
    ]


@pytest.mark.parametrize("error", ERRORS, ids=named)
def test_an_error_of_any_kind_at_the_begin_of_a_turn_leaves_the_conversation_free(store: Any, error: Exception) -> None:
    front = Refusing(store, begins, error)
    provider = DemoProvider([ANSWER])
    sessions = SessionManager(front, provider, clock=Clock())
    with pytest.raises(StoreError) as caught:
        sessions.send("k", "hello", idempotency_key="once")
    assert (caught.value.key, caught.value.reply, caught.value.__cause__) == ("k", None, error)
    assert provider.requests == []
    front.relent()
    assert sessions.send("k", "hello", idempotency_key="once").replayed is False


@pytest.mark.parametrize("error", ERRORS, ids=named)
@pytest.mark.parametrize("when", ["heal", "extend", "leave", "reset"])
def test_an_error_of_any_kind_in_between_leaves_the_conversation_free(store: Any, error: Exception, when: str) -> None:
    clock = Clock()
    front = Refusing(store, {"heal": heals, "extend": extends, "leave": ends, "reset": ends}[when], error)
    script: list[Any] = [DEAD] if when == "heal" else [[TextDelta("one "), lambda: clock.advance(400), *ANSWER[1:]]]
    sessions = SessionManager(front, DemoProvider([*script, *[ANSWER] * 3]), clock=clock)
    with pytest.raises(StoreError) as caught:
        if when == "leave":
            with sessions.stream("k", "hello") as turn:
                next(turn)
        elif when == "reset":
            sessions.reset("k")
        else:
            sessions.send("k", "hello")
    assert caught.value.__cause__ is error
    if when in {"extend", "leave"}:
        assert caught.value.reply is not None
        assert caught.value.reply.text.startswith("one ")
    front.relent()
    assert sessions.send("k", "and now").status is TurnStatus.SUCCEEDED


@pytest.mark.parametrize("error", ERRORS, ids=named)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("when", ["begin", "end"])
def test_an_async_manager_tells_an_error_of_any_kind_alike(
    store: Any, error: Exception, backend: str, when: str
) -> None:
    async def talk() -> None:
        front = Refusing(store, begins if when == "begin" else ends, error)
        sessions = AsyncSessionManager(front, DemoProvider([ANSWER] * 3), clock=Clock())
        with pytest.raises(StoreError) as caught:
            await sessions.send("k", "hello")
        assert caught.value.__cause__ is error
        assert (caught.value.reply and caught.value.reply.text) == (None if when == "begin" else "one two")
        front.relent()
        assert (await sessions.send("k", "and now")).status is TurnStatus.SUCCEEDED

    anyio.run(talk, backend=backend)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_error_of_one_step_among_many_is_told_to_its_caller_alone(sqlite_url: str, backend: str) -> None:

    class Choosy(SQLStore):
        def commit(self, step: Any) -> None:
            if step.after.key == "bad":
                raise ValueError("secret")
            super().commit(step)

    told: dict[str, str] = {}
    lock = threading.Lock()

    async def send(sessions: AsyncSessionManager, key: str) -> None:
        try:
            status = (await sessions.send(key, "hello")).status.value
        except StoreError as error:
            status = type(error.__cause__).__name__
        with lock:
            told[key] = status

    async def talk() -> None:
        with Choosy(sqlite_url) as store:
            sessions = AsyncSessionManager(store, DemoProvider())
            async with anyio.create_task_group() as tasks:
                for key in ("a", "bad", "b"):
                    tasks.start_soon(send, sessions, key)

    anyio.run(talk, backend=backend)
    assert told == {"a": "succeeded", "bad": "ValueError", "b": "succeeded"}
