"""A conversation that was deleted by SQL while its turn ran does not come back with the late result."""

import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any

import anyio
import anyio.to_thread
import psycopg
import pytest

from fsm import AsyncSessionManager, ConversationNotFound, FSMError, Result, SessionManager, TextDelta, TurnStatus
from fsm.events import EXPIRED
from fsm.providers import DemoProvider
from persistence import SQLStore

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(60)]

ANSWER = [TextDelta("one "), TextDelta("two"), Result(session_id="s-1")]
DEAD = [Result(subtype=EXPIRED, is_error=True, session_id="s-1")]
TABLES = ["transition", "message", "turn", "dead_id", "session", "conversation"]
"""The children before what they belong to."""


def delete(url: str) -> None:
    """Delete everything, as an operator would."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
            for table in TABLES:
                connection.execute(f'DELETE FROM "{table}"')
    else:
        with psycopg.connect(url) as connection:
            for table in TABLES:
                connection.execute(f'DELETE FROM "{table}"')


def check_gone(store: SQLStore, error: FSMError, text: str) -> None:
    """The caller has the answer, and the store has nothing."""
    assert error.key == "k"
    assert error.reply is not None
    assert error.reply.text == text
    assert store.load("k") is None
    assert list(store.conversations()) == []


@pytest.mark.parametrize("turns", [0, 1], ids=["new", "known"])
def test_a_late_result_does_not_bring_a_deleted_conversation_back(url: str, turns: int) -> None:
    with SQLStore(url) as store:
        sessions = SessionManager(store, DemoProvider([ANSWER] * 4))
        for _ in range(turns):
            sessions.send("k", "before")
        with pytest.raises(FSMError) as caught, sessions.stream("k", "hello") as turn:
            next(turn)
            delete(url)
            list(turn)
        check_gone(store, caught.value, "one two")
        assert sessions.send("k", "and now").turn == 1


@pytest.mark.parametrize("turns", [0, 1], ids=["new", "known"])
def test_a_turn_that_is_left_does_not_bring_a_deleted_conversation_back(url: str, turns: int) -> None:
    with SQLStore(url) as store:
        sessions = SessionManager(store, DemoProvider([ANSWER] * 4))
        for _ in range(turns):
            sessions.send("k", "before")
        with suppress(FSMError), sessions.stream("k", "hello") as turn:
            next(turn)
            delete(url)
        assert turn.reply.text == "one "
        assert store.load("k") is None
        assert sessions.send("k", "and now").turn == 1


def test_a_heal_does_not_bring_a_deleted_conversation_back(url: str) -> None:
    def dying(_: Any) -> list[Any]:
        delete(url)
        return DEAD

    with SQLStore(url) as store:
        provider = DemoProvider([ANSWER, dying, ANSWER, ANSWER])
        sessions = SessionManager(store, provider)
        sessions.send("k", "before")
        with pytest.raises(FSMError):
            sessions.send("k", "hello")
        assert store.load("k") is None
        assert len(provider.requests) == 2, "the provider was asked for a conversation that is gone"


@pytest.mark.parametrize("turns", [0, 1], ids=["new", "known"])
def test_a_late_result_does_not_get_into_a_new_conversation_of_the_key(url: str, turns: int) -> None:
    with SQLStore(url) as store:
        sessions = SessionManager(store, DemoProvider([ANSWER] * 4))
        other = SessionManager(store, DemoProvider([[TextDelta("new"), Result(session_id="s-2")]] * 2))
        for _ in range(turns):
            sessions.send("k", "before")
        with pytest.raises(FSMError) as caught, sessions.stream("k", "hello") as turn:
            next(turn)
            delete(url)
            other.send("k", "begin again")
            list(turn)
        assert caught.value.reply is not None
        assert caught.value.reply.text == "one two"
        assert [message.text for message in sessions.conversations.messages("k")] == ["begin again", "new"]
        assert [found.status for found in sessions.conversations.turns("k")] == [TurnStatus.SUCCEEDED]
        assert other.send("k", "and now").text == "new"


@pytest.mark.parametrize("turns", [0, 1], ids=["new", "known"])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_late_result_of_an_async_manager_does_not_bring_a_deleted_conversation_back(
    url: str, turns: int, backend: str
) -> None:
    async def talk(store: SQLStore) -> FSMError:
        sessions = AsyncSessionManager(store, DemoProvider([ANSWER] * 4))
        for _ in range(turns):
            await sessions.send("k", "before")
        with pytest.raises(FSMError) as caught:
            async with sessions.stream("k", "hello") as turn:
                await anext(turn)
                await anyio.to_thread.run_sync(delete, url)
                async for _ in turn:
                    pass
        return caught.value

    with SQLStore(url) as store:
        check_gone(store, anyio.run(talk, store, backend=backend), "one two")


OTHER_COMMANDS: dict[str, Callable[[SessionManager], object]] = {
    "reset": lambda sessions: sessions.reset("k"),
    "messages": lambda sessions: sessions.conversations.messages("k"),
    "turns": lambda sessions: sessions.conversations.turns("k"),
}


@pytest.mark.parametrize("command", OTHER_COMMANDS.values(), ids=OTHER_COMMANDS)
def test_a_deleted_conversation_is_not_found(url: str, command: Callable[[SessionManager], object]) -> None:
    with SQLStore(url) as store:
        sessions = SessionManager(store, DemoProvider([ANSWER]))
        sessions.send("k", "before")
        delete(url)
        with pytest.raises(ConversationNotFound):
            command(sessions)
