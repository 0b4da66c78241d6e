"""A fork at any moment: what the child inherits does nothing by itself, new work starts clean, and nothing hangs."""

import asyncio
import gc
import json
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from fsm import AsyncSessionManager, ConversationBusy, Request, Result, SessionManager, TextDelta, TurnStatus
from fsm._core.effects import Step
from fsm.providers import DemoProvider
from fsm.testing import check_database
from persistence import SQLStore
from tests.outside import outside
from tests.stores import Passing

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here"),
]

PATIENCE = 20.0
"""After how many seconds a child counts as hung."""


def in_child(job: Callable[[], Any]) -> Any:
    """Fork, and do a job in the child; what it returned, what it raised, or that it hung."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            told = json.dumps(job())
        except BaseException as error:  # noqa: BLE001  # the child must not go on as if it were the test
            told = json.dumps(f"{type(error).__name__}: {error}")
        with suppress(BaseException):
            os.write(writing, told.encode())
        os._exit(0)
    os.close(writing)
    ready, _, _ = select.select([reading], [], [], PATIENCE)
    told = os.read(reading, 65536).decode() if ready else '"hung"'
    os.close(reading)
    if not ready:
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return json.loads(told or '"died"')


class Watched:
    """Two words and a result; it notes in a file in which process its stream is closed."""

    name = "watched"

    def __init__(self, notes: str) -> None:
        self.notes = Path(notes)

    def stream(self, request: Request) -> Iterator[Any]:
        try:
            yield TextDelta("one ")
            yield TextDelta("two")
            yield Result(session_id=request.session_id or f"{request.key} {request.session_number}")
        finally:
            with self.notes.open("a") as notes:
                notes.write(f"{os.getpid()}\n")


class AsyncWatched(Watched):
    """The same, on an event loop."""

    async def astream(self, request: Request) -> Any:
        for event in self.stream(request):
            await anyio.lowlevel.checkpoint()
            yield event


def closed_by(notes: str) -> list[int]:
    """The processes that closed a stream."""
    path = Path(notes)
    return [int(line) for line in path.read_text().split()] if path.exists() else []


# A turn that is streamed while its process forks


def fork_while_streaming(url: str, notes: str, how: str) -> dict[str, Any]:
    """The child closes or drops the turn that it has inherited; the parent reads on."""
    store = SQLStore(url)
    sessions = SessionManager(store, Watched(notes))
    sessions.send("k", "before")
    stream = sessions.stream("k", "hello")
    turn = stream.__enter__()
    next(turn)
    held = [stream, turn]
    del stream, turn
    known = store.load("k")

    def child() -> Any:
        if how == "closed":
            held[0].__exit__(None, None, None)
        elif how == "left by an error":
            with suppress(ZeroDivisionError):
                held[0].__exit__(ZeroDivisionError, ZeroDivisionError(), None)
        elif how == "read":
            with suppress(Exception):
                list(held[1])
        elif how == "dropped":
            held.clear()
        gc.collect()
        return "done"

    told = in_child(child)
    same = store.load("k") == known
    rest = [getattr(event, "text", None) for event in held[1]]
    held[0].__exit__(None, None, None)
    check_database(store)
    return {
        "told": told,
        "same": same,
        "rest": rest[:1],
        "status": held[1].reply.status.value,
        "text": held[1].reply.text,
        "closed by others": [pid for pid in closed_by(notes) if pid != os.getpid()],
    }


@pytest.mark.parametrize("how", ["closed", "left by an error", "dropped", "read"])
def test_a_turn_that_a_child_has_inherited_is_its_parents(url: str, tmp_path: Path, how: str) -> None:
    found = outside(fork_while_streaming, url, str(tmp_path / "notes"), how)
    assert found == {
        "told": "done",
        "same": True,
        "rest": ["two"],
        "status": "succeeded",
        "text": "one two",
        "closed by others": [],
    }


# A manager that a child has inherited


def work_in_a_child(url: str, notes: str) -> dict[str, Any]:
    """The child talks with the manager of its parent, whose turn runs; then the parent goes on."""
    store = SQLStore(url)
    sessions = SessionManager(store, Watched(notes))
    sessions.send("k", "before")

    def child() -> Any:
        replies = [sessions.send("child", f"hello {number}").status.value for number in range(3)]
        try:
            sessions.send("k", "me too")
        except ConversationBusy:
            replies.append("busy")
        replies.append(str(len(sessions.recover())))
        return replies

    with sessions.stream("k", "hello") as turn:
        next(turn)
        told = in_child(child)
        list(turn)
    after = sessions.send("child", "and now").turn
    check_database(store)
    return {"told": told, "status": turn.reply.status.value, "after": after}


def test_a_manager_that_a_child_has_inherited_takes_new_turns(url: str, tmp_path: Path) -> None:
    found = outside(work_in_a_child, url, str(tmp_path / "notes"))
    assert found == {"told": ["succeeded"] * 3 + ["busy", "0"], "status": "succeeded", "after": 4}


def grandchildren(url: str) -> Any:
    """A child forks too."""
    store = SQLStore(url)
    sessions = SessionManager(store, DemoProvider())
    sessions.send("k", "before")

    def child() -> Any:
        return [sessions.send("k", "child").turn, in_child(lambda: sessions.send("k", "grandchild").turn)]

    return [in_child(child), sessions.send("k", "parent").turn, len(store.messages(store.load("k")))]  # type: ignore[arg-type]


def test_a_child_of_a_child_takes_new_turns_too(url: str) -> None:
    assert outside(grandchildren, url) == [[2, 3], 4, 8]


# A fork while other threads are at work


def fork_inside_a_commit(url: str, times: int) -> dict[str, Any]:
    """Another thread stands in the middle of a commit, with whatever locks that takes."""
    store = SQLStore(url)
    inside = threading.Event()

    def slow(step: Step, commit: Callable[[], None]) -> None:
        if step.after.key == "slow":
            inside.set()
            time.sleep(0.2)
        commit()

    sessions = SessionManager(Passing(store, slow), DemoProvider())
    told = []
    for number in range(times):
        inside.clear()
        thread = threading.Thread(target=sessions.send, args=("slow", f"hello {number}"))
        thread.start()
        inside.wait()
        told.append(in_child(lambda number=number: sessions.send(f"child {number}", "hello").status.value))
        thread.join()
    check_database(store)
    return {"told": told, "slow": len(store.turns(store.load("slow")))}  # type: ignore[arg-type]


def test_a_fork_while_another_thread_is_inside_a_commit_hangs_nobody(url: str) -> None:
    assert outside(fork_inside_a_commit, url, 5) == {"told": ["succeeded"] * 5, "slow": 5}


def fork_among_threads(url: str, forks: int) -> dict[str, Any]:
    """Four threads talk all the while."""
    store = SQLStore(url)
    sessions = SessionManager(store, DemoProvider())
    stop = threading.Event()
    answered: list[tuple[str, int]] = []
    raised: list[str] = []

    def talk(key: str) -> None:
        while not stop.is_set():
            try:
                answered.append((key, sessions.send(key, "hello").turn))
            except Exception as error:  # noqa: BLE001  # it is what the test asks for
                raised.append(f"{type(error).__name__}: {error}")
                return

    threads = [threading.Thread(target=talk, args=(f"k{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    told = [
        in_child(lambda number=number: [sessions.send(f"child {number}", "hello").turn for _ in range(3)][-1])
        for number in range(forks)
    ]
    stop.set()
    for thread in threads:
        thread.join()
    for key, number in answered:
        conversation = store.load(key)
        assert conversation is not None
        (turn,) = store.turns(conversation, limit=1, before=number + 1)
        assert (turn.number, turn.status) == (number, TurnStatus.SUCCEEDED)
    check_database(store)
    return {"told": told, "raised": raised, "some": len(answered) > 20}


def test_forks_among_threads_that_talk_lose_nothing_and_hang_nobody(url: str) -> None:
    assert outside(fork_among_threads, url, 30) == {"told": [3] * 30, "raised": [], "some": True}


def fork_while_a_thread_waits(url: str) -> Any:
    """A thread waits for a conversation; in the child nobody does."""
    store = SQLStore(url)
    sessions = SessionManager(store, DemoProvider(), on_busy="wait", busy_timeout=60)
    waiting = threading.Thread(target=sessions.send, args=("k", "waiting"))
    with sessions.stream("k", "hello") as turn:
        waiting.start()
        time.sleep(0.2)
        told = in_child(lambda: sessions.send("other", "hello").status.value)
        list(turn)
    waiting.join()
    sent = in_child(lambda: sessions.send("k", "child").turn)
    return [told, sent, [found.status.value for found in sessions.conversations.turns("k")]]


def test_a_fork_while_a_thread_waits_for_a_conversation_leaves_no_gap_in_the_queue(url: str) -> None:
    assert outside(fork_while_a_thread_waits, url) == ["succeeded", 3, ["succeeded"] * 3]


# A fork of a program with an event loop


def fork_from_a_loop(url: str, notes: str) -> dict[str, Any]:
    """Turns run on the loop; the child runs another loop, and then none."""
    store = SQLStore(url)
    sessions = AsyncSessionManager(store, AsyncWatched(notes))

    def child() -> Any:
        async def talk(key: str) -> str:
            return (await sessions.send(key, "hello")).status.value

        replies = [asyncio.run(talk("child")), asyncio.run(talk("child"))]
        replies.append(SessionManager(store, DemoProvider()).send("demo", "hello").status.value)
        return replies

    async def main() -> dict[str, Any]:
        await sessions.send("k", "before")
        others = [asyncio.ensure_future(sessions.send(f"k{number}", "hello")) for number in range(10)]
        await asyncio.sleep(0)
        async with sessions.stream("k", "hello") as turn:
            await anext(turn)
            told = in_child(child)
            async for _ in turn:
                pass
        statuses = {(await other).status.value for other in others}
        return {"told": told, "status": turn.reply.status.value, "others": sorted(statuses)}

    found = asyncio.run(main())
    check_database(store)
    return {**found, "closed by others": len(set(closed_by(notes)) - {os.getpid()})}


def test_a_fork_from_an_asyncio_program_leaves_parent_and_child_at_work(url: str, tmp_path: Path) -> None:
    found = outside(fork_from_a_loop, url, str(tmp_path / "notes"))
    assert found == {
        "told": ["succeeded"] * 3,
        "status": "succeeded",
        "others": ["succeeded"],
        "closed by others": 1,  # by the child, of its own turns
    }
