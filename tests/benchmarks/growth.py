"""Whether a turn costs more in a long conversation, or among many conversations."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from fsm import Conversation, SessionManager
from fsm.context import ContextWindow, rebuild
from persistence import SQLStore
from tests.benchmarks.measuring import Row, compare, timed
from tests.benchmarks.turns import Terse, steps

__all__ = ["context_window", "long_conversations", "many_conversations"]

REACH = 1.2


def _fill(path: Path, conversation: Conversation, messages: int) -> None:
    """Give a conversation of one turn so many messages, in bulk; its turns are copies of the first."""
    turns = messages // 2
    with closing(sqlite3.connect(path)) as connection, connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(turn)")]
        copied = ", ".join(
            {"number": "n", "first_message": "2 * n - 1", "last_message": "2 * n"}.get(name, f'"{name}"')
            for name in columns
        )
        count = "WITH RECURSIVE count(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM count WHERE n < ?)"
        connection.execute(
            f"{count} INSERT INTO turn SELECT {copied} FROM count, turn WHERE conversation = ? AND number = 1",
            (turns, conversation.id),
        )
        columns = [row[1] for row in connection.execute("PRAGMA table_info(message)")]
        copied = ", ".join({"number": "2 * (n - 1) + number", "turn": "n"}.get(name, f'"{name}"') for name in columns)
        connection.execute(
            f"{count} INSERT INTO message SELECT {copied} FROM count, message WHERE conversation = ? AND turn = 1",
            (turns, conversation.id),
        )
        connection.execute(
            "UPDATE conversation SET turn_count = ?, message_count = ? WHERE id = ?",
            (turns, 2 * turns, conversation.id),
        )


def _turns(manager: SessionManager, key: str, turns: int) -> float:
    return timed(lambda: [manager.send(key, "Where is my parcel?") for _ in range(turns)], turns)


def _rows(group: str, unit: str, sizes: Sequence[int], seconds: Sequence[float]) -> Iterator[Row]:
    for size, found in zip(sizes, seconds, strict=True):
        ratio = None if size == sizes[0] else found / seconds[0]
        yield Row(group, f"{size:,} {unit}", found * 1e6, "µs", ratio, None if ratio is None else REACH)


def long_conversations(
    folder: Path, sizes: Sequence[int] = (10, 1000, 100_000), *, turns: int = 100, rounds: int = 7
) -> Iterator[Row]:
    """A turn in conversations of so many messages."""
    path = folder / "long.db"
    with SQLStore(f"sqlite:///{path}", durability="relaxed") as store:
        manager = SessionManager(store, Terse())
        for size in sizes:
            manager.send(f"{size}", "Where is my parcel?")
            _fill(path, manager.conversations.get(f"{size}"), size)
        found = compare({f"{size}": lambda _, key=f"{size}": _turns(manager, key, turns) for size in sizes}, rounds)
        yield from _rows(
            "A turn by length of the conversation", "messages", sizes, [one.median for one in found.values()]
        )


def context_window(folder: Path, messages: int = 100_000, *, rounds: int = 7) -> Iterator[Row]:
    """A context window of 50 messages, out of few and out of many."""
    path = folder / "window.db"
    window = ContextWindow(max_messages=50)
    sizes = (100, messages)
    with SQLStore(f"sqlite:///{path}", durability="relaxed") as store:
        manager = SessionManager(store, Terse())
        for size in sizes:
            manager.send(f"{size}", "Where is my parcel?")
            _fill(path, manager.conversations.get(f"{size}"), size)

        def build(key: str) -> float:
            conversation = manager.conversations.get(key)
            return timed(
                lambda: rebuild(store.context(conversation, first_session=1, last_session=1, limit=51), window), 1
            )

        found = compare({f"{size}": lambda _, key=f"{size}": build(key) for size in sizes}, rounds * 5)
        group = "A context window of 50 messages"
        yield from _rows(group, "messages stored", sizes, [one.median for one in found.values()])


def many_conversations(
    folder: Path, sizes: Sequence[int] = (1, 10_000, 1_000_000), *, turns: int = 100, rounds: int = 7
) -> Iterator[Row]:
    """A turn in a database of so many conversations; all but one are copies, made in bulk."""
    stores = {}
    for size in sizes:
        path = folder / f"many-{size}.db"
        stores[size] = SQLStore(f"sqlite:///{path}", durability="relaxed")
        for step in steps(1, 1):
            stores[size].commit(step)
        _copy(path, size)
    managers = {size: SessionManager(store, Terse()) for size, store in stores.items()}
    found = compare(
        {f"{size}": lambda number, one=one: _turns(one, f"new {number}", turns) for size, one in managers.items()},
        rounds,
    )
    for store in stores.values():
        store.close()
    yield from _rows(
        "A turn by number of conversations", "conversations", sizes, [one.median for one in found.values()]
    )


def _copy(path: Path, conversations: int) -> None:
    """Copy the one conversation, and its rows in every table."""
    with closing(sqlite3.connect(path)) as connection, connection:
        count = "WITH RECURSIVE count(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM count WHERE n < ?)"
        for table, names in (
            ("conversation", {"id": "n", "key": "'conversation ' || n"}),
            ("session", {"conversation": "n"}),
            ("turn", {"conversation": "n"}),
            ("message", {"conversation": "n"}),
            ("transition", {"conversation": "n"}),
        ):
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            copied = ", ".join(names.get(name, f'"{name}"') for name in columns)
            mine = "id" if table == "conversation" else "conversation"
            if conversations > 1:
                connection.execute(
                    f'{count} INSERT INTO "{table}" SELECT {copied} FROM count, "{table}" WHERE {mine} = 1',
                    (conversations,),
                )
