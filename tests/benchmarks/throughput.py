"""Many conversations at once on the asynchronous manager: turns a second, and the processor time of a turn."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import anyio

from fsm import AsyncSessionManager
from persistence import SQLStore
from tests.benchmarks.measuring import Row
from tests.benchmarks.turns import Terse
from tests.conftest import embedded_postgresql

__all__ = ["throughput"]


async def _talk(store: SQLStore, conversations: int, turns: int) -> tuple[float, float]:
    """Turns a second, and seconds of the processor a turn."""
    manager = AsyncSessionManager(store, Terse(), max_turns=conversations)
    began, worked = time.perf_counter(), time.process_time()

    async def one(key: str) -> None:
        for _ in range(turns):
            await manager.send(key, "Where is my parcel?")

    async with anyio.create_task_group() as group:
        for number in range(conversations):
            group.start_soon(one, f"{conversations} {number}")
    total = conversations * turns
    return total / (time.perf_counter() - began), (time.process_time() - worked) / total


def throughput(folder: Path, sizes: Sequence[int] = (1, 10, 100, 1000), *, turns: int = 2000) -> Iterator[Row]:
    """On SQLite with a transaction for each step and with shared ones, synced once a turn; and on PostgreSQL."""
    with embedded_postgresql() as server:
        for size in sizes:
            each = max(2, turns // size // (4 if size == 1 else 1))
            group = f"{size:,} conversations at once"
            found: dict[str, tuple[float, float]] = {}
            for name, grouped in (("a transaction each", False), ("shared transactions", True)):
                rates = []
                for take in range(3):
                    url = f"sqlite:///{folder}/{size}-{grouped}-{take}.db"
                    with SQLStore(url, group_commit=grouped) as store:
                        rates.append(anyio.run(_talk, store, size, each))
                found[name] = sorted(rates)[1]
            with SQLStore(server.get_uri()) as store:
                found["PostgreSQL, without fsync"] = anyio.run(_talk, store, size, each)
            base = found["a transaction each"][0]
            for name, (rate, worked) in found.items():
                shared = name == "shared transactions"
                ratio = rate / base if shared else None
                reach = -3.0 if shared and size == 100 else None
                label = f"SQLite, {name}" if "SQL" not in name else name
                yield Row(
                    group, f"{label} ({worked * 1e6:,.0f} µs of the processor a turn)", rate, "turns/s", ratio, reach
                )
