"""A turn here and with peers, at equal durability, in conversations of 10, 100 and 1,000 messages.

``make bench-peers`` runs this in a separate environment. Two things are compared. *Storing* a turn is two calls: the
user's message, and then the answer; nothing is read or decided. A *whole turn* is what a runner does around its model:
read what it needs to know, store the message, store the answer. One that can't be imported or used is told, and left
out.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fsm import AsyncSessionManager, SessionManager
from persistence import SQLStore
from tests.benchmarks.measuring import Row, compare
from tests.benchmarks.report import line, machine
from tests.benchmarks.turns import Bare, Terse, steps

SIZES = (10, 100, 1000)
TURNS = 20
ROUNDS = 11
NEAREST, REACH = "OpenAI Agents, SQLiteSession", -2.0
ASKED, ANSWERED = "Where is my parcel?", "Your parcel is on its way."

Turn = Callable[[], Awaitable[None]]
"""Stores one turn."""

Make = Callable[[Path, int, bool], Awaitable[Turn]]
"""Makes what stores turns: in a folder, in a conversation of so many messages, synced or not."""


async def our_store(folder: Path, messages: int, synced: bool) -> Turn:
    """The store alone; both commits synced, or neither."""
    store = SQLStore(f"sqlite:///{folder}/store.db", durability="strict" if synced else "relaxed")
    made = iter(steps(messages // 2 + TURNS * (ROUNDS + 1), 1))

    async def turn() -> None:
        store.commit(next(made))
        store.commit(next(made))

    return await _filled(turn, messages)


async def our_statements(folder: Path, messages: int, synced: bool) -> Turn:
    """The driver alone with the store's statements: the least that writing these rows takes."""
    bare = Bare(f"{folder}/bare.db", "strict" if synced else "relaxed")
    made = steps(messages // 2 + TURNS * (ROUNDS + 1), 1)
    scripts = iter([bare.script(made[begun : begun + 2]) for begun in range(0, len(made), 2)])

    async def turn() -> None:
        bare.run(next(scripts))

    return await _filled(turn, messages)


async def our_manager(folder: Path, messages: int, synced: bool) -> Turn:
    """The whole manager."""
    store = SQLStore(f"sqlite:///{folder}/manager.db", durability="strict" if synced else "relaxed")
    manager = SessionManager(store, Terse())

    async def turn() -> None:
        manager.send("k", ASKED)

    return await _filled(turn, messages)


async def our_async_manager(folder: Path, messages: int, synced: bool) -> Turn:
    """The same on the event loop."""
    store = SQLStore(f"sqlite:///{folder}/async.db", durability="strict" if synced else "relaxed")
    manager = AsyncSessionManager(store, Terse())

    async def turn() -> None:
        await manager.send("k", ASKED)

    return await _filled(turn, messages)


def _sqlite_session(folder: Path, synced: bool) -> Any:
    """OpenAI Agents, SQLiteSession; SQLite syncs each commit unless it is told not to."""
    from agents import SQLiteSession

    class Unsynced(SQLiteSession):
        @staticmethod
        def _configure_connection(connection: Any) -> None:
            SQLiteSession._configure_connection(connection)
            connection.execute("PRAGMA synchronous = NORMAL")

    return (SQLiteSession if synced else Unsynced)("k", folder / "openai.db")


async def openai_stores(folder: Path, messages: int, synced: bool) -> Turn:
    """OpenAI Agents, SQLiteSession: two calls."""
    session = _sqlite_session(folder, synced)

    async def turn() -> None:
        await session.add_items([{"role": "user", "content": ASKED}])
        await session.add_items([{"role": "assistant", "content": ANSWERED}])

    return await _filled(turn, messages)


async def openai_sqlite(folder: Path, messages: int, synced: bool) -> Turn:
    """OpenAI Agents, SQLiteSession, as its runner uses it."""
    session = _sqlite_session(folder, synced)

    async def turn() -> None:
        await session.get_items()
        await session.add_items([{"role": "user", "content": ASKED}])
        await session.add_items([{"role": "assistant", "content": ANSWERED}])

    return await _filled(turn, messages)


async def openai_sqlalchemy(folder: Path, messages: int, _: bool) -> Turn:
    """OpenAI Agents, SQLAlchemySession."""
    from agents.extensions.memory import SQLAlchemySession

    url = f"sqlite+aiosqlite:///{folder}/alchemy.db"
    session = SQLAlchemySession.from_url("k", url=url, create_tables=True)

    async def turn() -> None:
        await session.get_items()
        await session.add_items([{"role": "user", "content": ASKED}])
        await session.add_items([{"role": "assistant", "content": ANSWERED}])

    return await _filled(turn, messages)


async def langgraph(folder: Path, messages: int, _: bool) -> Turn:
    """LangGraph, SqliteSaver: a graph of one node whose state is the messages."""
    import sqlite3

    from langgraph.checkpoint.sqlite import SqliteSaver
    from langgraph.graph import START, MessagesState, StateGraph

    saver = SqliteSaver(sqlite3.connect(folder / "langgraph.db", check_same_thread=False))
    graph = StateGraph(MessagesState)
    graph.add_node("model", lambda _: {"messages": [("assistant", ANSWERED)]})
    graph.add_edge(START, "model")
    compiled = graph.compile(checkpointer=saver)
    config = {"configurable": {"thread_id": "k"}}

    async def turn() -> None:
        compiled.invoke({"messages": [("user", ASKED)]}, config)

    return await _filled(turn, messages)


async def adk(folder: Path, messages: int, _: bool) -> Turn:
    """Google ADK, DatabaseSessionService."""
    from google.adk.events import Event
    from google.adk.sessions import DatabaseSessionService
    from google.genai import types

    service = DatabaseSessionService(f"sqlite+aiosqlite:///{folder}/adk.db")
    session = await service.create_session(app_name="app", user_id="u", session_id="k")

    async def turn() -> None:
        for author, role, text in (("user", "user", ASKED), ("agent", "model", ANSWERED)):
            content = types.Content(role=role, parts=[types.Part(text=text)])
            await service.append_event(session, Event(author=author, content=content, invocation_id=uuid.uuid4().hex))

    return await _filled(turn, messages)


async def strands(folder: Path, messages: int, _: bool) -> Turn:
    """Strands, FileSessionManager: a file for each message, not synced."""
    from strands.session.file_session_manager import FileSessionManager
    from strands.types.session import Session, SessionAgent, SessionMessage, SessionType

    manager = FileSessionManager(session_id="k", storage_dir=str(folder))
    if manager.read_session("k") is None:
        manager.create_session(Session(session_id="k", session_type=SessionType.AGENT))
    manager.create_agent("k", SessionAgent("a", {}, {}))
    count = 0

    async def turn() -> None:
        nonlocal count
        for role, text in (("user", ASKED), ("assistant", ANSWERED)):
            message: Any = {"role": role, "content": [{"text": text}]}
            manager.create_message("k", "a", SessionMessage.from_message(message, count))
            count += 1

    return await _filled(turn, messages)


async def _filled(turn: Turn, messages: int) -> Turn:
    for _ in range(messages // 2):
        await turn()
    return turn


OURS, AGENTS = "conversation-fsm", "openai-agents"
BARE = "bare sqlite3, the statements of SQLStore"

GROUPS: dict[str, tuple[bool, dict[str, tuple[str, Make]]]] = {
    "Storing a turn, not synced": (
        False,
        {"SQLStore": (OURS, our_store), BARE: (OURS, our_statements), NEAREST: (AGENTS, openai_stores)},
    ),
    "Storing a turn, synced twice": (
        True,
        {"SQLStore": (OURS, our_store), BARE: (OURS, our_statements), NEAREST: (AGENTS, openai_stores)},
    ),
    "A whole turn, not synced": (
        False,
        {
            "SessionManager": (OURS, our_manager),
            "AsyncSessionManager": (OURS, our_async_manager),
            NEAREST: (AGENTS, openai_sqlite),
            "Strands, FileSessionManager": ("strands-agents", strands),
        },
    ),
    "A whole turn, synced twice": (
        True,
        {
            "SessionManager": (OURS, our_manager),
            "AsyncSessionManager": (OURS, our_async_manager),
            NEAREST: (AGENTS, openai_sqlite),
            "OpenAI Agents, SQLAlchemySession": (AGENTS, openai_sqlalchemy),
            "LangGraph, SqliteSaver": ("langgraph", langgraph),
            "ADK, DatabaseSessionService": ("google-adk", adk),
        },
    ),
}
"""The comparisons: whether commits are synced, and the variants, this library's first."""


def _measure(runner: asyncio.Runner, turn: Turn) -> float:
    async def several() -> float:
        began = time.perf_counter()
        for _ in range(TURNS):
            await turn()
        return (time.perf_counter() - began) / TURNS

    return runner.run(several())


def _made(runner: asyncio.Runner, group: str, size: int) -> dict[str, Turn]:
    synced, members = GROUPS[group]
    turns: dict[str, Turn] = {}
    for name, (package, make) in members.items():
        try:
            turns[f"{name} ({package} {version(package)})"] = runner.run(make(Path(tempfile.mkdtemp()), size, synced))
        except Exception as error:  # noqa: BLE001  # a peer that can't be used is left out, and told
            print(f"  {name}: left out ({type(error).__name__}: {str(error)[:100]})", flush=True)
    return turns


def main() -> int:
    """Measure all of them, and print a table."""
    print(machine(), flush=True)
    with asyncio.Runner() as runner:
        for group in GROUPS:
            for size in SIZES:
                turns = _made(runner, group, size)
                found = compare(
                    {name: lambda _, turn=turn: _measure(runner, turn) for name, turn in turns.items()}, ROUNDS
                )
                base = next(iter(found.values())).median
                print(f"{group}, in a conversation of {size:,} messages")
                for name, one in found.items():
                    ratio = None if one.median == base else one.median / base
                    reach = REACH if name.startswith(NEAREST) else None
                    print(line(Row(group, name, one.median * 1e6, "µs", ratio, reach)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
