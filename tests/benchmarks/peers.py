"""A durable turn here and with peers, at equal durability: the user's message synced, and then the answer.

``make bench-peers`` runs this in an environment of its own. Each peer stores a turn in two calls, as its own runner
does, in conversations of 10, 100 and 1,000 messages. One that can't be imported or used is told, and left out.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import uuid
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fsm import SessionManager
from persistence import SQLStore
from tests.benchmarks.measuring import Row, compare
from tests.benchmarks.report import line, machine
from tests.benchmarks.turns import Terse

SIZES = (10, 100, 1000)
TURNS = 20
ROUNDS = 5
ASKED, ANSWERED = "Where is my parcel?", "Your parcel is on its way."

Turn = Callable[[], Awaitable[None]]
"""Stores one turn."""


async def ours(folder: Path, messages: int) -> Turn:
    """The whole manager, both commits synced."""
    manager = SessionManager(SQLStore(f"sqlite:///{folder}/ours.db", durability="strict"), Terse())
    for _ in range(messages // 2):
        manager.send("k", ASKED)

    async def turn() -> None:
        manager.send("k", ASKED)

    return turn


async def openai_sqlite(folder: Path, messages: int) -> Turn:
    """OpenAI Agents, SQLiteSession."""
    from agents import SQLiteSession

    session = SQLiteSession("k", folder / "openai.db")

    async def turn() -> None:
        await session.add_items([{"role": "user", "content": ASKED}])
        await session.add_items([{"role": "assistant", "content": ANSWERED}])

    return await _filled(turn, messages)


async def openai_sqlalchemy(folder: Path, messages: int) -> Turn:
    """OpenAI Agents, SQLAlchemySession."""
    from agents.extensions.memory import SQLAlchemySession

    url = f"sqlite+aiosqlite:///{folder}/alchemy.db"
    session = SQLAlchemySession.from_url("k", url=url, create_tables=True)

    async def turn() -> None:
        await session.add_items([{"role": "user", "content": ASKED}])
        await session.add_items([{"role": "assistant", "content": ANSWERED}])

    return await _filled(turn, messages)


async def langgraph(folder: Path, messages: int) -> Turn:
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


async def adk(folder: Path, messages: int) -> Turn:
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


async def strands(folder: Path, messages: int) -> Turn:
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


PEERS: dict[str, tuple[str, Callable[[Path, int], Awaitable[Turn]]]] = {
    "conversation-fsm, SessionManager": ("conversation-fsm", ours),
    "OpenAI Agents, SQLiteSession": ("openai-agents", openai_sqlite),
    "OpenAI Agents, SQLAlchemySession": ("openai-agents", openai_sqlalchemy),
    "LangGraph, SqliteSaver": ("langgraph", langgraph),
    "ADK, DatabaseSessionService": ("google-adk", adk),
    "Strands, FileSessionManager (not synced)": ("strands-agents", strands),
}


def main() -> int:
    """Measure all of them, and print a table."""
    print(machine(), flush=True)
    with asyncio.Runner() as runner:
        for size in SIZES:
            turns: dict[str, Turn] = {}
            for name, (package, make) in PEERS.items():
                folder = Path(tempfile.mkdtemp())
                try:
                    turns[f"{name} {version(package)}"] = runner.run(make(folder, size))
                except Exception as error:  # noqa: BLE001  # a peer that can't be used is left out, and told
                    print(f"  {name}: left out ({type(error).__name__}: {str(error)[:100]})", flush=True)

            def measure(turn: Turn) -> float:
                import time

                async def several() -> float:
                    began = time.perf_counter()
                    for _ in range(TURNS):
                        await turn()
                    return (time.perf_counter() - began) / TURNS

                return runner.run(several())

            found = compare({name: lambda _, turn=turn: measure(turn) for name, turn in turns.items()}, ROUNDS)
            base = next(iter(found.values())).median
            print(f"A durable turn in a conversation of {size:,} messages")
            for name, one in found.items():
                ratio = None if one.median == base else one.median / base
                print(line(Row("peers", name, one.median * 1e6, "µs", ratio)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
