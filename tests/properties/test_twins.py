"""Stream and batch, sync and async, SQLite and PostgreSQL: the same events make the same rows (G12)."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsm import AsyncSessionManager, FSMError, SessionManager
from fsm.providers import DemoProvider
from persistence import SQLStore
from tests.properties import scripts as s

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)

MESSAGES = st.lists(st.tuples(s.TWO_ACTS, st.sampled_from([None, "i-1"]), st.booleans()), min_size=1, max_size=5)
"""For each message: what the provider does, its idempotency key, and whether a reset follows."""


class Run:
    """One way to play a script, with a provider that does what it says and a clock that ticks with the messages."""

    def __init__(self, store: SQLStore, script: list[Any], key: str) -> None:
        self.store = store
        self.script = script
        self.key = key
        self.now = EPOCH
        acts = [
            [*act.events, RuntimeError("as the script says")] if act.raises else list(act.events)
            for message in script
            for act in message[0]
        ]
        self.options: dict[str, Any] = {"provider": DemoProvider(acts), "clock": lambda: self.now}
        self.came: list[Any] = []

    def messages(self) -> Iterator[tuple[dict[str, Any], bool]]:
        """The arguments of each message, and whether a reset follows."""
        for number, (_, idempotency_key, reset) in enumerate(self.script):
            self.now += timedelta(seconds=1)
            content = "the same" if idempotency_key else f"message {number}"
            yield {"key": self.key, "content": content, "idempotency_key": idempotency_key}, reset

    def note(self, reply: Any) -> None:
        """The outcome of a message."""
        error = type(reply).__name__ if isinstance(reply, FSMError) else None
        reply = reply.reply if error else reply
        self.came.append((error, reply and attrs.evolve(reply, key="")))

    def rows(self) -> Any:
        """Everything that is stored, but for what must differ: the store's own name for it, and the caller's."""
        conversation = self.store.load(self.key)
        return (
            self.came,
            attrs.evolve(conversation, id=0, key=""),
            self.store.sessions(conversation),
            self.store.turns(conversation),
            self.store.messages(conversation),
            [attrs.evolve(move, key="") for move in self.store.transitions(conversation)],
            self.store.dead(conversation, s.IDS[:2]) | self.store.dead(conversation, s.IDS[2:]),
        )


def sync_batch(run: Run) -> None:
    """`send`."""
    manager = SessionManager(run.store, **run.options)
    for message, reset in run.messages():
        try:
            run.note(manager.send(**message))
        except FSMError as error:
            run.note(error)
        if reset:
            manager.reset(run.key)


def sync_stream(run: Run) -> None:
    """`stream`, read to its end."""
    manager = SessionManager(run.store, **run.options)
    for message, reset in run.messages():
        try:
            with manager.stream(**message) as turn:
                list(turn)
            run.note(turn.reply)
        except FSMError as error:
            run.note(error)
        if reset:
            manager.reset(run.key)


async def async_batch(run: Run) -> None:
    """`await send`."""
    manager = AsyncSessionManager(run.store, **run.options)
    for message, reset in run.messages():
        try:
            run.note(await manager.send(**message))
        except FSMError as error:
            run.note(error)
        if reset:
            await manager.reset(run.key)


async def async_stream(run: Run) -> None:
    """`async with stream`, read to its end."""
    manager = AsyncSessionManager(run.store, **run.options)
    for message, reset in run.messages():
        try:
            async with manager.stream(**message) as turn:
                [event async for event in turn]
            run.note(turn.reply)
        except FSMError as error:
            run.note(error)
        if reset:
            await manager.reset(run.key)


def on(backend: str, play: Callable[[Run], Any]) -> Callable[[Run], Any]:
    """Play on an event loop."""
    return lambda run: anyio.run(play, run, backend=backend)


WAYS = {
    "sync batch": sync_batch,
    "sync stream": sync_stream,
    "asyncio batch": on("asyncio", async_batch),
    "asyncio stream": on("asyncio", async_stream),
    "trio batch": on("trio", async_batch),
    "trio stream": on("trio", async_stream),
}


@pytest.fixture
def stores(sqlite_url: str, postgresql_url: str) -> Iterator[list[SQLStore]]:
    """One of each kind."""
    with SQLStore(sqlite_url, durability="relaxed") as sqlite, SQLStore(postgresql_url, durability="relaxed") as other:
        yield [sqlite, other]


def test_g12_every_way_to_play_a_script_stores_the_same_rows(stores: list[SQLStore]) -> None:
    """G12: twelve ways, equal replies, errors and rows."""
    count = 0

    @settings(max_examples=settings().max_examples // 10)
    @given(script=MESSAGES)
    def check(script: list[Any]) -> None:
        nonlocal count
        count += 1
        played = {}
        for store in stores:
            for name, play in WAYS.items():
                run = Run(store, script, f"{name} {count}")
                play(run)
                played[store, name] = run.rows()
        first, *others = played.values()
        for other in others:
            assert other == first

    check()
