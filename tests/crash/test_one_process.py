"""One process that does everything at once on one file: nothing acknowledged is lost, and nothing hangs.

There are two stores, two synchronous managers with four threads each, and an asynchronous manager in three event
loops. There are forks and stores that are opened and closed, and another process opens and closes the file.
"""

import json
import os
import select
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from attrs import Factory, define

from fsm import AsyncSessionManager, Reply, Request, Result, SessionManager, TextDelta, TurnStatus
from fsm.content import text_of
from fsm.testing import check_database
from persistence import SQLStore
from tests.crash import TORTURE
from tests.outside import outside

SECONDS = 60 if TORTURE else 6
GRACE = 60
"""Seconds in which all that is under way may come to its end; not a limit of speed."""

Ack = tuple[str, int, str]
"""A conversation, the number of a turn in it, and the text that its caller got."""

VISITOR = """
import sqlite3, sys, time
while True:
    connection = sqlite3.connect(sys.argv[1], timeout=30)
    connection.execute("SELECT count(*) FROM message").fetchone()
    connection.close()
    time.sleep(0.005)
"""


class Echo:
    """Answers each message with its own text."""

    name = "echo"

    def stream(self, request: Request) -> Iterator[Any]:
        yield TextDelta("you said ")
        yield TextDelta(text_of(request.content))
        yield Result(session_id=request.session_id or f"{request.key} {request.session_number}")

    async def astream(self, request: Request) -> AsyncIterator[Any]:
        for event in self.stream(request):
            await anyio.lowlevel.checkpoint()
            yield event


@define
class Told:
    """The replies of callers, and their errors."""

    acks: list[Ack] = Factory(list)
    raised: list[str] = Factory(list)
    forks: int = 0

    def take(self, reply: Reply, text: str) -> None:
        """Note a reply."""
        assert reply.text == f"you said {text}"
        assert reply.status is TurnStatus.SUCCEEDED
        self.acks.append((reply.key, reply.turn, reply.text))


def guarded(told: Told, job: Callable[[], object]) -> Callable[[], None]:
    """A job for a thread, whose errors are noted."""

    def run() -> None:
        try:
            job()
        except BaseException as error:  # noqa: BLE001  # nothing may go wrong in silence
            told.raised.append(f"{type(error).__name__}: {error}")

    return run


def talk(sessions: SessionManager, name: str, told: Told, until: float) -> None:
    """One thread talks in a conversation that only it uses, and in a shared one."""
    number = 0
    while time.monotonic() < until:
        number += 1
        text = f"{name} {number}"
        told.take(sessions.send(name if number % 4 else "shared", text), text)


async def talk_on_a_loop(sessions: AsyncSessionManager, name: str, told: Told, until: float) -> None:
    """One event loop: three tasks."""

    async def task(part: int) -> None:
        number = 0
        while time.monotonic() < until:
            number += 1
            text = f"{name} {part} {number}"
            told.take(await sessions.send(f"{name} {part}" if number % 4 else "shared", text), text)

    async with anyio.create_task_group() as tasks:
        for part in range(3):
            tasks.start_soon(task, part)


def fork(sessions: SessionManager, name: str, told: Told) -> None:
    """A child that talks with the manager that it has inherited, and tells what it was told."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        mine = Told()
        for number in range(3):
            text = f"{name} {number}"
            guarded(mine, lambda text=text: mine.take(sessions.send(name, text), text))()
        with suppress(BaseException):
            os.write(writing, json.dumps([mine.acks, mine.raised]).encode())
        os._exit(0)
    os.close(writing)
    ready, _, _ = select.select([reading], [], [], GRACE)
    if not ready:
        os.kill(pid, signal.SIGKILL)
    said = os.read(reading, 65536) if ready else b""
    os.close(reading)
    os.waitpid(pid, 0)
    acks, raised = json.loads(said) if said else ([], [f"{name} hung or died"])
    told.acks += [(key, turn, text) for key, turn, text in acks]
    told.raised += raised
    told.forks += 1


@contextmanager
def visited(path: str) -> Iterator[None]:
    """Another process opens and closes the file all the while."""
    visitor = subprocess.Popen([sys.executable, "-c", VISITOR, path])
    try:
        yield
        assert visitor.poll() is None, "the file can't be read from outside"
    finally:
        visitor.kill()
        visitor.wait()


def stress(path: str, seconds: float) -> dict[str, Any]:
    """All of it; what was lost and what was raised."""
    url, told = f"sqlite:///{path}", Told()
    with ExitStack() as stack:
        stores = [stack.enter_context(SQLStore(url, timeout=GRACE)) for _ in range(2)]
        stack.enter_context(visited(path))
        options: dict[str, Any] = {"on_busy": "wait", "busy_timeout": GRACE}
        managers = [SessionManager(store, Echo(), **options) for store in stores]
        on_loops = AsyncSessionManager(stores[0], Echo(), **options)
        until = time.monotonic() + seconds
        jobs: list[Callable[[], object]] = [
            lambda number=number: talk(managers[number % 2], f"thread {number}", told, until) for number in range(8)
        ]
        jobs += [
            lambda number=number, backend=backend: anyio.run(
                talk_on_a_loop, on_loops, f"loop {number}", told, until, backend=backend
            )
            for number, backend in enumerate(("asyncio", "trio", "asyncio"))
        ]
        threads = [threading.Thread(target=guarded(told, job)) for job in jobs]
        for thread in threads:
            thread.start()
        number = 0
        while time.monotonic() < until:
            number += 1
            fork(managers[number % 2], f"child {number}", told)
            with SQLStore(url, timeout=GRACE) as another:  # it comes and goes
                another.load("shared")
            time.sleep(0.1)
        for thread in threads:
            thread.join()
    with closing(sqlite3.connect(path)) as connection:
        ((whole,),) = connection.execute("PRAGMA integrity_check").fetchall()
    with SQLStore(url) as store:
        lost = [ack for ack in told.acks if not is_there(store, *ack)]
        check_database(store)
        running = len(store.running())
    return {
        "whole": whole,
        "lost": len(lost),
        "raised": told.raised[:5],
        "running": running,
        "acks": len(told.acks),
        "forks": told.forks,
    }


def is_there(store: SQLStore, key: str, number: int, text: str) -> bool:
    """Whether an acknowledged turn is stored, with its text."""
    conversation = store.load(key)
    if conversation is None or conversation.turn_count < number:
        return False
    (turn,) = store.turns(conversation, limit=1, before=number + 1)
    said = [message.text for message in store.turn_messages(conversation, turn) if message.role == "assistant"]
    return (turn.status, said) == (TurnStatus.SUCCEEDED, [text])


@pytest.mark.timeout(SECONDS + 4 * GRACE)
def test_one_process_that_does_everything_at_once_loses_nothing_and_hangs_nobody(tmp_path: Any) -> None:
    found = outside(stress, f"{tmp_path}/chat.db", SECONDS, timeout=SECONDS + 2 * GRACE)
    print(f"{found['acks']} turns were acknowledged, {found['forks']} children were forked")
    assert found["acks"] > 50
    assert found["forks"] > 2
    assert (found["whole"], found["lost"], found["raised"], found["running"]) == ("ok", 0, [], 0)
