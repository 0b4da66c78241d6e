"""The commit that begins a turn: what others see before it returns, and what is left of it if it is cut off."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

from fsm import AsyncSessionManager, ConversationBusy, Result, SessionManager, TextDelta, TurnStatus
from fsm._core.effects import Step
from fsm.providers import DemoProvider
from fsm.testing import ReferenceStore, check_database
from persistence import SQLStore
from tests.stores import Passing, begins

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(120)]

ANSWER = [TextDelta("yes"), Result(session_id="s-1")]


@pytest.fixture(params=["sqlite", "postgresql", "reference"])
def store(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A real store on each kind of database, and the reference store."""
    if request.param == "reference":
        yield ReferenceStore()
        return
    with SQLStore(request.getfixturevalue(f"{request.param}_url")) as store:
        yield store


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Each event loop in turn."""
    return request.param


@pytest.fixture(params=[0, 1], ids=["new", "known"])
def turns(request: pytest.FixtureRequest) -> int:
    """How many turns the conversation has had before."""
    return request.param


def talked(store: Any, turns: int) -> None:
    """Let the conversation have its turns."""
    for _ in range(turns):
        SessionManager(store, DemoProvider([ANSWER])).send("k", "before")


def once(act: Callable[[], object], *, stored_first: bool) -> Callable[[Step, Callable[[], None]], None]:
    """Act at the next begin of a turn, before or after it is stored."""
    left = [act]

    def around(step: Step, commit: Callable[[], None]) -> None:
        if not (begins(step) and left):
            commit()
            return
        now = left.pop()
        if stored_first:
            commit()
        now()

    return around


def interrupt() -> None:
    """Interrupt the running call as Ctrl+C does."""
    raise KeyboardInterrupt


# What others see


def test_a_turn_that_has_just_been_stored_is_not_taken_for_abandoned_by_another_thread(store: Any, turns: int) -> None:
    talked(store, turns)
    front = Passing(store)
    provider = DemoProvider([ANSWER, ANSWER])
    sessions = SessionManager(front, provider)
    told: list[object] = []

    def second() -> None:
        try:
            told.append(sessions.send("k", "me too"))
        except ConversationBusy as error:
            told.append(type(error))

    def meanwhile() -> None:
        thread = threading.Thread(target=second, daemon=True)
        thread.start()
        thread.join(30)

    front.around = once(meanwhile, stored_first=True)
    assert sessions.send("k", "me first").status is TurnStatus.SUCCEEDED
    assert told == [ConversationBusy]
    assert [turn.status for turn in sessions.conversations.turns("k")] == [TurnStatus.SUCCEEDED] * (turns + 1)


def test_recover_does_not_end_a_turn_that_has_just_been_stored(store: Any, turns: int) -> None:
    talked(store, turns)
    front = Passing(store)
    sessions = SessionManager(front, DemoProvider([ANSWER]))
    ended: list[object] = []

    def meanwhile() -> None:
        thread = threading.Thread(target=lambda: ended.append(sessions.recover()), daemon=True)
        thread.start()
        thread.join(30)

    front.around = once(meanwhile, stored_first=True)
    assert sessions.send("k", "me first").status is TurnStatus.SUCCEEDED
    assert ended == [[]]


@pytest.mark.anyio
async def test_a_turn_that_has_just_been_stored_is_not_taken_for_abandoned_by_another_task(
    store: Any, turns: int
) -> None:
    await anyio.to_thread.run_sync(talked, store, turns)
    front = Passing(store)
    sessions = AsyncSessionManager(front, DemoProvider([ANSWER, ANSWER]))
    told: list[object] = []

    async def second() -> None:
        try:
            told.append(await sessions.send("k", "me too"))
        except ConversationBusy as error:
            told.append(type(error))

    with anyio.fail_after(60):
        async with anyio.from_thread.BlockingPortal() as portal:
            front.around = once(lambda: portal.call(second), stored_first=True)
            assert (await sessions.send("k", "me first")).status is TurnStatus.SUCCEEDED
    assert told == [ConversationBusy]
    assert [turn.status for turn in await sessions.conversations.turns("k")] == [TurnStatus.SUCCEEDED] * (turns + 1)


# What is left of a begin that was cut off


def test_a_begin_that_was_cut_off_before_it_was_stored_leaves_its_key_free(store: Any, turns: int) -> None:
    talked(store, turns)
    provider = DemoProvider([ANSWER])
    sessions = SessionManager(Passing(store, once(interrupt, stored_first=False)), provider)
    with pytest.raises(KeyboardInterrupt):
        sessions.send("k", "hello", idempotency_key="once")
    conversation = store.load("k")
    assert (conversation.turn_count if conversation else 0) == turns, "the begin was stored after all"
    reply = sessions.send("k", "hello", idempotency_key="once")
    assert (reply.status, reply.replayed, reply.text) == (TurnStatus.SUCCEEDED, False, "yes")
    assert len(provider.requests) == 1
    check_database(store)


def test_a_begin_that_was_cut_off_after_it_was_stored_is_interrupted_and_its_key_is_spent(
    store: Any, turns: int
) -> None:
    talked(store, turns)
    provider = DemoProvider([ANSWER])
    sessions = SessionManager(Passing(store, once(interrupt, stored_first=True)), provider)
    with pytest.raises(KeyboardInterrupt):
        sessions.send("k", "hello", idempotency_key="once")
    assert sessions.conversations.get("k").running is None
    assert sessions.conversations.turns("k")[-1].status is TurnStatus.INTERRUPTED
    again = sessions.send("k", "hello", idempotency_key="once")
    assert (again.status, again.replayed, again.text) == (TurnStatus.INTERRUPTED, True, "")
    assert provider.requests == []
    assert sessions.send("k", "hello", idempotency_key="twice").text == "yes"
    check_database(store)


@pytest.mark.anyio
@pytest.mark.parametrize("stored_first", [True, False])
async def test_a_scope_that_is_cancelled_while_its_begin_is_stored_leaves_an_interrupted_turn(
    store: Any, turns: int, stored_first: bool
) -> None:
    await anyio.to_thread.run_sync(talked, store, turns)
    provider = DemoProvider([ANSWER])
    front = Passing(store)
    sessions = AsyncSessionManager(front, provider)
    with anyio.fail_after(60):
        async with anyio.from_thread.BlockingPortal() as portal:
            scope = anyio.CancelScope()

            def around(step: Step, commit: Callable[[], None]) -> None:
                front.around = None
                if stored_first:
                    commit()
                portal.call(scope.cancel)
                if not stored_first:
                    commit()

            front.around = around
            with scope:
                await sessions.send("k", "hello", idempotency_key="once")
            assert scope.cancelled_caught
        assert (await sessions.conversations.get("k")).running is None
        asked = len(provider.requests)
        again = await sessions.send("k", "hello", idempotency_key="once")
        assert (again.status, again.replayed) == (TurnStatus.INTERRUPTED, True)
        assert len(provider.requests) == asked
        assert (await sessions.send("k", "hello", idempotency_key="twice")).status is TurnStatus.SUCCEEDED
    check_database(store)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_that_is_cancelled_while_its_begin_is_refused_leaves_its_key_free(store: Any, turns: int) -> None:
    """asyncio's own cancellation does not wait for the thread in which the commit is under way."""
    await anyio.to_thread.run_sync(talked, store, turns)
    provider = DemoProvider([ANSWER])
    front = Passing(store)
    sessions = AsyncSessionManager(front, provider)
    loop = asyncio.get_running_loop()
    done = threading.Event()

    def around(step: Step, commit: Callable[[], None]) -> None:
        front.around = None
        loop.call_soon_threadsafe(task.cancel)
        try:
            raise OSError("the disk is gone for a moment")
        finally:
            done.set()

    async with asyncio.timeout(60):
        front.around = around
        task = asyncio.ensure_future(sessions.send("k", "hello", idempotency_key="once"))
        await asyncio.wait([task])
        await anyio.to_thread.run_sync(done.wait)
        conversation = await anyio.to_thread.run_sync(store.load, "k")
        assert (conversation.turn_count if conversation else 0) == turns, "the begin was stored after all"
        reply = await sessions.send("k", "hello", idempotency_key="once")
    assert (reply.status, reply.replayed, len(provider.requests)) == (TurnStatus.SUCCEEDED, False, 1)
    check_database(store)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("stored_first", [True, False])
async def test_a_task_that_is_cancelled_while_its_begin_is_stored_spends_its_key(
    store: Any, turns: int, stored_first: bool
) -> None:
    await anyio.to_thread.run_sync(talked, store, turns)
    provider = DemoProvider([ANSWER])
    front = Passing(store)
    sessions = AsyncSessionManager(front, provider)
    loop = asyncio.get_running_loop()
    done = threading.Event()

    def around(step: Step, commit: Callable[[], None]) -> None:
        front.around = None
        if stored_first:
            commit()
        loop.call_soon_threadsafe(task.cancel)
        if not stored_first:
            commit()
        done.set()

    async with asyncio.timeout(60):
        front.around = around
        task = asyncio.ensure_future(sessions.send("k", "hello", idempotency_key="once"))
        await asyncio.wait([task])
        assert task.cancelled()
        await anyio.to_thread.run_sync(done.wait)
        again = await sessions.send("k", "hello", idempotency_key="once")
        assert (again.status, again.replayed) == (TurnStatus.INTERRUPTED, True)
        assert provider.requests == []
        assert (await sessions.send("k", "hello", idempotency_key="twice")).text == "yes"
    check_database(store)
