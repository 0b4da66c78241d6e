"""The asynchronous manager, on asyncio and on trio: what differs from its twin, and what a cancellation leaves."""

import asyncio
import inspect
import random
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from fsm import (
    AsyncConversations,
    AsyncSessionManager,
    ConversationBusy,
    CorruptRecord,
    InvalidContent,
    InvalidInput,
    ProviderError,
    Request,
    Result,
    SessionManager,
    State,
    TextDelta,
    TurnStatus,
    TurnSuperseded,
)
from fsm._runtime.adapters import OnFailure, ProviderEvents
from fsm._runtime.engine import Engine
from fsm._runtime.loop_adapters import LoopAdapter
from fsm._runtime.scripts import Script
from fsm._runtime.settings import Settings
from fsm.content import text_block
from fsm.events import EXPIRED
from fsm.providers import DemoProvider
from fsm.testing import check_database
from persistence import SQLStore

pytestmark = pytest.mark.anyio

ANSWER = [TextDelta("one "), TextDelta("two"), Result(session_id="s-1")]
DEAD = [Result(subtype=EXPIRED, is_error=True, session_id="s-1")]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Each event loop in turn."""
    return request.param


@pytest.fixture
def store(sqlite_url: str) -> Iterator[SQLStore]:
    """A store on a file."""
    with SQLStore(sqlite_url) as store:
        yield store


class Polite(DemoProvider):
    """A provider that lets others run between any two events, and notes what became of its answers."""

    def __init__(self, *script: Any) -> None:
        super().__init__(script)
        self.closed = 0

    async def astream(self, request: Request) -> AsyncIterator[Any]:
        try:
            for event in self.stream(request):
                await anyio.lowlevel.checkpoint()
                yield event
            await anyio.lowlevel.checkpoint()
        finally:
            self.closed += 1


async def test_a_dead_session_is_healed_within_the_turn(store: SQLStore) -> None:
    provider = DemoProvider()
    manager = AsyncSessionManager(store, provider)
    await manager.send("k", "my name is Ada")
    provider.forget()
    reply = await manager.send("k", "what is my name?")
    assert "“my name is Ada”" in reply.text
    assert (reply.healed, reply.state) == (True, State.ACTIVE)
    assert [session.parent for session in await manager.conversations.sessions("k")] == [None, 1]
    assert [move.target for move in await manager.conversations.transitions("k")][1:] == [
        State.STALE,
        State.FRESH,
        State.ACTIVE,
    ]
    assert [message.role for message in await manager.conversations.messages("k", limit=2)] == ["user", "assistant"]
    assert [turn.healed for turn in await manager.conversations.turns("k")] == [False, True]
    assert [conversation.key for conversation in await manager.conversations.list()] == ["k"]
    assert (await manager.reset("k")).state is State.FRESH
    assert await manager.recover() == []


@pytest.mark.parametrize("read", ["messages", "turns", "sessions", "transitions"])
async def test_each_table_is_read_in_pages(store: SQLStore, read: str) -> None:
    manager = AsyncSessionManager(store, DemoProvider())
    for number in range(3):
        await manager.send("k", f"message {number}")
        await manager.reset("k")
    page = getattr(manager.conversations, read)
    rows = list(await page("k"))
    assert [row.number for row in rows] == list(range(1, len(rows) + 1))
    assert list(await page("k", limit=2)) == rows[-2:]
    assert list(await page("k", before=3)) == rows[:2]
    assert list(await page("k", limit=1, before=3)) == rows[1:2]


async def test_conversations_are_listed_in_pages_by_key(store: SQLStore) -> None:
    manager = AsyncSessionManager(store, DemoProvider())
    for key in ("c", "a", "b"):
        await manager.send(key, "hello")
    assert [conversation.key for conversation in await manager.conversations.list(limit=2)] == ["a", "b"]
    assert [conversation.key for conversation in await manager.conversations.list(after="b")] == ["c"]


async def test_send_passes_on_the_idempotency_key_and_the_metadata(store: SQLStore) -> None:
    """G13."""
    manager = AsyncSessionManager(store, Polite(ANSWER))
    first = await manager.send("k", "hello", idempotency_key="once", metadata={"tier": "gold"})
    again = await manager.send("k", "hello", idempotency_key="once")
    assert (again.turn, again.replayed, first.replayed) == (first.turn, True, False)
    assert (await manager.conversations.get("k")).metadata == {"tier": "gold"}


async def test_a_reset_is_asked_for_or_forced(store: SQLStore) -> None:
    """G10; without force the conversation is busy, and without a reason it was asked for."""
    manager = AsyncSessionManager(store, Polite(ANSWER))
    with pytest.raises(TurnSuperseded):
        async with manager.stream("k", "hello") as turn:
            with pytest.raises(ConversationBusy):
                await manager.reset("k")
            await manager.reset("k", force=True)
            [event async for event in turn]
    await manager.reset("k", reason="the user has left")
    assert [session.closed_reason for session in await manager.conversations.sessions("k")] == [
        "asked for",
        "the user has left",
        None,
    ]


async def test_the_provider_says_what_it_takes_and_what_it_wants(store: SQLStore) -> None:
    class Choosy(Polite):
        wants_transcript = True

        def check_content(self, content: tuple[Any, ...]) -> None:
            if content[0]["text"] == "bad":
                raise InvalidContent("say something else")

    provider = Choosy(ANSWER, ANSWER)
    manager = AsyncSessionManager(store, provider)
    with pytest.raises(InvalidContent):
        await manager.send("k", "bad")
    await manager.send("k", "hello")
    await manager.send("k", "again")
    assert [message.text for message in provider.requests[-1].history] == ["hello", "one two"]


async def test_a_stream_is_read_with_async_for_and_may_be_left(store: SQLStore) -> None:
    provider = Polite(ANSWER, ANSWER)
    manager = AsyncSessionManager(store, provider)
    async with manager.stream("k", "hello") as turn:
        assert [event async for event in turn] == ANSWER
    assert turn.reply.text == "one two"
    async with manager.stream("k", "again") as turn:
        async for _ in turn:
            break
    assert (turn.reply.status, turn.reply.text, provider.closed) == (TurnStatus.INTERRUPTED, "one ", 2)


async def test_a_synchronous_provider_is_read_in_threads(store: SQLStore) -> None:
    threads: list[threading.Thread] = []
    said = ["hello", "again"]

    class Synchronous:
        name = "synchronous"

        def stream(self, request: Request) -> Iterator[Any]:
            assert request.content == (text_block(said.pop(0)),)
            try:
                for event in ANSWER:
                    threads.append(threading.current_thread())
                    yield event
            finally:
                threads.append(threading.current_thread())

    manager = AsyncSessionManager(store, Synchronous())
    assert (await manager.send("k", "hello")).text == "one two"
    async with manager.stream("k", "again") as turn:
        async for _ in turn:
            break
    assert len(threads) == 6
    assert threading.main_thread() not in threads


async def test_a_synchronous_provider_may_be_left_before_it_was_asked(
    store: SQLStore, caplog: pytest.LogCaptureFixture
) -> None:
    class Plain:
        name = "plain"

        def stream(self, request: Request) -> list[Any]:
            return ANSWER

    manager = AsyncSessionManager(store, Plain())
    async with manager.stream("k", "hello"):
        pass
    async with manager.stream("k", "hello") as turn:
        await anext(turn)
    assert turn.reply.text == "one "
    assert "provider.close_failed" not in caplog.messages


async def test_no_more_turns_run_at_once_than_the_manager_was_told(store: SQLStore) -> None:
    running = most = 0
    full = anyio.Event()

    class Counting(Polite):
        async def astream(self, request: Request) -> AsyncIterator[Any]:
            nonlocal running, most
            running += 1
            most = max(most, running)
            if running == 3:
                full.set()
            await full.wait()
            try:
                for event in ANSWER:
                    yield event
            finally:
                running -= 1

    manager = AsyncSessionManager(store, Counting(), max_turns=3, on_busy="wait")
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for number in range(12):
                tasks.start_soon(manager.send, f"k{number}", "hello")
    assert most == 3
    assert len(await manager.conversations.list()) == 12


async def test_no_more_threads_call_the_store_than_the_manager_was_told(sqlite_url: str) -> None:
    calling = most = 0
    lock, full = threading.Lock(), threading.Event()

    class Counting(SQLStore):
        def load(self, key: str) -> Any:
            nonlocal calling, most
            with lock:
                calling += 1
                most = max(most, calling)
            if most == 2:
                full.set()
            full.wait(60)
            time.sleep(0.02)  # time for a third, which must not come
            found = super().load(key)
            with lock:
                calling -= 1
            return found

    with Counting(sqlite_url, group_commit=False) as store:
        manager = AsyncSessionManager(store, Polite(), threads=2)
        async with anyio.create_task_group() as tasks:
            for number in range(6):
                tasks.start_soon(manager.send, f"k{number}", "hello")
    assert most == 2


async def test_many_turns_of_one_conversation_wait_for_each_other(store: SQLStore) -> None:
    manager = AsyncSessionManager(store, Polite(*[ANSWER] * 8), on_busy="wait")
    async with anyio.create_task_group() as tasks:
        for number in range(8):
            tasks.start_soon(manager.send, "k", f"{number}")
            await anyio.lowlevel.checkpoint()
    assert [turn.status for turn in await manager.conversations.turns("k")] == [TurnStatus.SUCCEEDED] * 8
    said = [message.text for message in await manager.conversations.messages("k") if message.role == "user"]
    assert said == [str(number) for number in range(8)]


async def test_a_busy_conversation_says_so(store: SQLStore) -> None:
    manager = AsyncSessionManager(store, Polite(ANSWER))
    async with manager.stream("k", "hello"):
        with pytest.raises(ConversationBusy):
            await manager.send("k", "me too")


async def test_a_provider_that_raises_is_told(store: SQLStore) -> None:
    with pytest.raises(ProviderError, match="raised RuntimeError") as caught:
        await AsyncSessionManager(store, Polite([TextDelta("a"), RuntimeError()])).send("k", "hello")
    assert caught.value.reply.text == "a"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (
            {"provider": object()},
            "provider is of type object, which is not a provider with a method 'astream' or 'stream'",
        ),
        ({"max_turns": 0}, "max_turns is 0"),
        ({"threads": 0}, "threads is 0"),
        ({"lease": 0}, "lease"),
    ],
)
async def test_a_manager_that_could_not_work_is_refused(store: SQLStore, options: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        AsyncSessionManager(store, **{"provider": DemoProvider(), **options})


async def test_one_turn_and_one_thread_are_enough(store: SQLStore) -> None:
    manager = AsyncSessionManager(store, DemoProvider(), max_turns=1, threads=1)
    assert (await manager.send("k", "hello")).status is TurnStatus.SUCCEEDED


def test_both_managers_behave_alike_if_they_are_told_nothing() -> None:
    synchronous, asynchronous = (inspect.signature(kind).parameters for kind in (SessionManager, AsyncSessionManager))
    assert {name: asynchronous[name].default for name in synchronous} == {
        name: parameter.default for name, parameter in synchronous.items()
    }


async def test_a_load_that_fails_does_not_affect_other_tasks(store: SQLStore) -> None:
    manager = AsyncSessionManager(store, DemoProvider())
    for key in ("bad", "good"):
        await manager.send(key, "hello")
    store.dialect.database.execute_sql("UPDATE conversation SET metadata = '[1]' WHERE key = 'bad'")
    outcomes: dict[str, Any] = {}

    async def send(key: str) -> None:
        try:
            outcomes[key] = (await manager.send(key, "and now")).status
        except CorruptRecord as error:
            outcomes[key] = error.key

    async with anyio.create_task_group() as tasks:
        for key in ("first", "bad", "good"):
            tasks.start_soon(send, key)
    assert outcomes == {"first": TurnStatus.SUCCEEDED, "bad": "bad", "good": TurnStatus.SUCCEEDED}


async def test_a_store_that_stands_in_for_another_is_not_gone_past(store: SQLStore) -> None:
    class Passing:
        def __init__(self) -> None:
            self.committed = 0

        def commit(self, step: Any) -> None:
            self.committed += 1
            store.commit(step)

        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

    passing = Passing()
    manager = AsyncSessionManager(passing, DemoProvider())
    await manager.send("k", "hello")
    assert passing.committed == (await manager.conversations.get("k")).version == 2


class Ticking:
    """Events of which each is counted."""

    def __init__(self, events: ProviderEvents, tick: Callable[[], None]) -> None:
        self._events = events
        self._tick = tick

    async def read(self) -> object:
        event = await self._events.read()
        self._tick()
        await anyio.lowlevel.checkpoint()
        return event

    async def close(self) -> None:
        await self._events.close()

    def close_later(self, on_failure: OnFailure) -> None:
        self._events.close_later(on_failure)

    async def settle(self) -> None:
        await self._events.settle()


class Countdown(LoopAdapter):
    """Cancels at the nth thing that is awaited, before or after it is done."""

    def __init__(self, store: SQLStore, provider: Any, at: int, cancels: list[Callable[[], None]]) -> None:
        super().__init__(store, provider, threads=4, max_turns=4)
        self.left = at
        self._cancels = cancels

    def _tick(self) -> None:
        self.left -= 1
        if self.left == 0:
            self._cancels[0]()

    async def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._tick()
        result = await super().call(function, *args, **kwargs)
        self._tick()
        return result

    async def run(self, script: Script[Any]) -> Any:
        self._tick()
        result = await super().run(script)
        self._tick()
        return result

    def events(self, request: Request) -> ProviderEvents:
        return Ticking(super().events(request), self._tick)


async def cancelled_at(
    store: SQLStore, at: int, run: Callable[[Awaitable[Any], list[Callable[[], None]]], Awaitable[bool]]
) -> bool:
    """Cancel a turn that heals at its nth await; check what is left; return whether it was reached at all."""
    key = f"k{at}"
    provider = Polite(ANSWER, DEAD, ANSWER, ANSWER)
    await AsyncSessionManager(store, provider).send(key, "hello")
    cancels: list[Callable[[], None]] = []
    countdown = Countdown(store, provider, at, cancels)
    engine = Engine(store, countdown, Settings.of(store, provider, ("astream",)))

    async def send() -> None:
        turn = await engine.begin(key, "again")
        try:
            while await turn.pull() is not None:
                pass
        finally:
            await turn.close()

    came_through = await run(send(), cancels)
    assert came_through == (countdown.left <= 0)
    conversation = await AsyncConversations(store).get(key)
    assert conversation.running is None, f"cancelled at await {at}"
    statuses = [turn.status for turn in store.turns(conversation)]
    assert statuses[0] is TurnStatus.SUCCEEDED
    assert set(statuses[1:]) <= {TurnStatus.INTERRUPTED, TurnStatus.SUCCEEDED}
    answers = [message.text for message in store.messages(conversation) if message.turn == 2][1:]
    assert answers in ([], ["one "], ["one two"])
    reply = await AsyncSessionManager(store, Polite(ANSWER)).send(key, "and now")
    assert reply.status is TurnStatus.SUCCEEDED
    return countdown.left <= 0


async def test_a_cancellation_at_any_await_ends_the_turn_and_comes_through(store: SQLStore) -> None:
    """G9: each await of a turn that heals, in turn."""

    async def in_scope(turn: Awaitable[Any], cancels: list[Callable[[], None]]) -> bool:
        with anyio.CancelScope() as scope:
            cancels.append(scope.cancel)
            await turn
            await anyio.lowlevel.checkpoint()
        return scope.cancelled_caught

    at = 1
    while await cancelled_at(store, at, in_scope):
        at += 1
    assert at > 10


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_asyncios_own_cancel_at_any_await_ends_the_turn_and_comes_through(store: SQLStore) -> None:
    """G9: `task.cancel()` goes through every shield, once."""

    async def in_task(turn: Awaitable[Any], cancels: list[Callable[[], None]]) -> bool:
        async def run() -> None:
            await turn
            await anyio.lowlevel.checkpoint()

        task = asyncio.ensure_future(run())
        cancels.append(task.cancel)
        await asyncio.wait([task])
        return task.cancelled()

    at = 1
    while await cancelled_at(store, at, in_task):
        at += 1
    assert at > 10


@pytest.mark.parametrize("seed", range(5))
async def test_many_turns_at_once_are_cancelled_at_random_and_every_conversation_is_whole(
    store: SQLStore, seed: int
) -> None:
    """G1 to G9: a cancellation does not end the turn of another task, and answers are stored."""
    assert store.supports_batches
    chance = random.Random(seed)
    manager = AsyncSessionManager(store, DemoProvider())
    answered: dict[str, list[int]] = {}

    async def talk(key: str) -> None:
        while len(answered.setdefault(key, [])) < 5:
            with anyio.move_on_after(chance.choice([None, 0.02]) and chance.uniform(0, 0.02)):
                answered[key].append((await manager.send(key, "hello")).turn)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for number in range(30):
                tasks.start_soon(talk, f"k{number}")
    assert check_database(store).conversations == 30
    statuses = set()
    for key, turns in answered.items():
        stored = {turn.number: turn.status for turn in await manager.conversations.turns(key)}
        statuses |= set(stored.values())
        assert {stored[turn] for turn in turns} == {TurnStatus.SUCCEEDED}
    assert statuses == {TurnStatus.SUCCEEDED, TurnStatus.INTERRUPTED}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("seed", range(5))
async def test_many_tasks_at_once_are_cancelled_by_asyncio_and_every_conversation_is_whole(
    store: SQLStore, seed: int
) -> None:
    chance = random.Random(seed)
    manager = AsyncSessionManager(store, DemoProvider())
    async with asyncio.timeout(60):
        for _ in range(4):
            tasks = [asyncio.ensure_future(manager.send(f"k{number}", "hello")) for number in range(30)]
            for task in chance.sample(tasks, 15):
                await asyncio.sleep(chance.choice([0, 0, 0.001]))
                task.cancel()
            await asyncio.wait(tasks)
            assert sum(task.cancelled() for task in tasks) <= 15
            assert all(task.result().status is TurnStatus.SUCCEEDED for task in tasks if not task.cancelled())
    await manager.recover()
    assert check_database(store).conversations > 15
    assert store.running() == []
    for number in range(30):
        assert (await manager.send(f"k{number}", "and now")).status is TurnStatus.SUCCEEDED
