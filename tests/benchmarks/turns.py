"""A durable turn, two commits in every table, against the bare driver that runs the same statements."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anyio.to_thread

from fsm import AsyncSessionManager, Conversation, Event, Request, Result, SessionManager, TextDelta
from fsm._core import decisions as decide
from fsm._core.effects import Step
from fsm._core.turn import Answer
from persistence import SQLStore
from persistence.queries import Statements
from persistence.store import IS_SYNCED, Durability
from tests.benchmarks.measuring import Row, compare, timed

__all__ = ["Bare", "Terse", "postgresql_turns", "sqlite_turns", "steps"]

NOW = datetime(2026, 1, 1, tzinfo=UTC)
REACH: Mapping[Durability, float] = {"relaxed": 1.3, "acknowledged": 1.2, "strict": 1.2}
MANAGED: Mapping[Durability, float] = {"relaxed": 2.0, "acknowledged": 1.5, "strict": 1.5}
SYNCED_ON_A_LOOP = 1.6
"""The most that a synced turn on asyncio may take, as a multiple of the same turn of the synchronous manager."""
WHAT = {"relaxed": "not synced", "acknowledged": "synced once", "strict": "synced twice"}


class Terse:
    """A provider that costs nothing."""

    name = "terse"

    def stream(self, _: Request) -> Iterator[Event]:
        yield TextDelta("Your parcel is on its way.")
        yield Result(session_id="s-1", stop_reason="end_turn", usage={"input_tokens": 12, "output_tokens": 7})

    async def astream(self, request: Request) -> Any:
        for event in self.stream(request):
            yield event


def steps(turns: int, number: int) -> list[Step]:
    """Turns of a new conversation, each two steps."""
    conversation = Conversation(key=f"conversation {number}", id=number, created_at=NOW, updated_at=NOW)
    made = []
    result = Result(session_id="s-1", stop_reason="end_turn", usage={"input_tokens": 12, "output_tokens": 7})
    answer = Answer((("assistant", ({"type": "text", "text": "Your parcel is on its way."},), None),), result)
    for turn in range(1, turns + 1):
        now = NOW + timedelta(seconds=turn)
        begun = decide.begin(
            conversation,
            content=({"type": "text", "text": "Where is my parcel?"},),
            provider="terse",
            owner="owner",
            now=now,
            lease=timedelta(minutes=10),
        )
        ended = decide.finish(begun.after, turn=turn, owner="owner", result=result, answer=answer, now=now)
        made += [begun, ended]
        conversation = ended.after
    return made


def _script(sql: Statements, made: Sequence[Step], begin: Callable[[Step], list[str]]) -> list[tuple[str, Any]]:
    """All that the store would run for these steps."""
    script = list[tuple[str, Any]]()
    for step in made:
        script += [(text, ()) for text in begin(step)]
        script += [(statement.sql, values) for statement, values in sql.writes(step)]
        script.append(("COMMIT", ()))
    return script


def sqlite_turns(folder: Path, *, turns: int = 200, rounds: int = 31) -> Iterator[Row]:
    """On SQLite, for each durability: the bare driver, the store, both managers, and a hop to a thread."""
    for durability, reach in REACH.items():
        url = f"sqlite:///{folder}/{durability}"
        with (
            SQLStore(f"{url}-store.db", durability=durability) as store,
            SQLStore(f"{url}-manager.db", durability=durability) as other,
            SQLStore(f"{url}-async.db", durability=durability) as third,
            asyncio.Runner() as runner,
            closing(Bare(f"{folder}/{durability}-bare.db", durability)) as bare,
        ):
            manager = SessionManager(other, Terse())
            found = compare(
                {
                    "bare sqlite3": lambda number: _played(bare, turns, number),
                    "the store": lambda number: _stored(store, turns, number),
                    "the whole manager": partial(_managed, manager, turns),
                    "on asyncio": partial(_awaited, runner, AsyncSessionManager(third, Terse()), turns),
                    "a hop": lambda _: runner.run(_hops(turns)),
                },
                rounds,
            )
        base = found["bare sqlite3"].median
        group = f"A turn on SQLite, {WHAT[durability]}"
        yield Row(group, "bare sqlite3, the same statements", base * 1e6, "µs")
        yield Row(group, "SQLStore", found["the store"].median * 1e6, "µs", found["the store"].median / base, reach)
        whole = found["the whole manager"].median
        name = "SessionManager, with its reads and decisions"
        yield Row(group, name, whole * 1e6, "µs", whole / base, MANAGED[durability])
        hop, awaited = found["a hop"].median, found["on asyncio"].median
        unsynced = durability == "relaxed"
        most = round(1.2 * (whole + 2 * hop) / whole, 2) if unsynced else SYNCED_ON_A_LOOP
        group = f"A turn on asyncio, {WHAT[durability]}"
        yield Row(group, "SessionManager", whole * 1e6, "µs")
        yield Row(group, "AsyncSessionManager", awaited * 1e6, "µs", awaited / whole, most)
        yield Row(group, "one hop to a thread and back", hop * 1e6, "µs", hop / whole)


def _managed(manager: SessionManager, turns: int, number: int) -> float:
    return timed(lambda: [manager.send(f"k{number}", "Where is my parcel?") for _ in range(turns)], turns)


def _awaited(runner: asyncio.Runner, manager: AsyncSessionManager, turns: int, number: int) -> float:
    async def several() -> float:
        began = time.perf_counter()
        for _ in range(turns):
            await manager.send(f"k{number}", "Where is my parcel?")
        return (time.perf_counter() - began) / turns

    return runner.run(several())


async def _hops(count: int) -> float:
    """Return the seconds of one way to a thread and back."""
    began = time.perf_counter()
    for _ in range(count):
        await anyio.to_thread.run_sync(bool)
    return (time.perf_counter() - began) / count


def _played(bare: Bare, turns: int, number: int) -> float:
    script = bare.script(steps(turns, number + 1))
    return timed(lambda: bare.run(script), turns)


def _stored(store: SQLStore, turns: int, number: int) -> float:
    made = steps(turns, number + 1)
    return timed(lambda: [store.commit(step) for step in made], turns)


class Bare:
    """The driver alone, on a database with the same tables and settings.

    Args:
        path: the file.
        durability: as of the store.
    """

    def __init__(self, path: str, durability: Durability) -> None:
        with SQLStore(f"sqlite:///{path}") as store:
            self._sql = store.transactions.sql
        self._is_synced = IS_SYNCED[durability]
        self._was_synced = True
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA foreign_keys = 1")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._cursor = self._connection.cursor()

    def script(self, made: Sequence[Step]) -> list[tuple[str, Any]]:
        """All that the store would run for these steps."""
        return _script(self._sql, made, self._begin)

    def _begin(self, step: Step) -> list[str]:
        """Like the store, it says how to sync only when that changes."""
        synced = self._is_synced(step)
        if self._was_synced is synced:
            return ["BEGIN IMMEDIATE"]
        self._was_synced = synced
        return [f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}", "BEGIN IMMEDIATE"]

    def run(self, script: Sequence[tuple[str, Any]]) -> None:
        """Run it."""
        execute = self._cursor.execute
        for sql, values in script:
            execute(sql, values)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def postgresql_turns(*, turns: int = 100, rounds: int = 7) -> Iterator[Row]:
    """On PostgreSQL: psycopg statement by statement, and the store."""
    import psycopg

    from tests.conftest import embedded_postgresql

    with embedded_postgresql() as server:
        url = server.get_uri()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET fsync = on")
            connection.execute("SELECT pg_reload_conf()")

            def begin(step: Step) -> list[str]:
                return ["BEGIN", f"SET LOCAL synchronous_commit TO {'ON' if step.must_be_durable else 'OFF'}"]

            with SQLStore(url) as store:

                def bare(number: int) -> float:
                    script = _script(store.transactions.sql, steps(turns, 2 * number + 1), begin)
                    return timed(lambda: [connection.execute(sql, values) for sql, values in script], turns)

                found = compare({"bare": bare, "store": lambda number: _stored(store, turns, 2 * number + 1)}, rounds)
        base, ours = found["bare"].median, found["store"].median
        yield Row("A turn on PostgreSQL, synced once", "psycopg, the same statements", base * 1e6, "µs")
        yield Row("A turn on PostgreSQL, synced once", "SQLStore", ours * 1e6, "µs", ours / base, 1.5)
