"""A worker: a real process that talks in real conversations and reports what it was told, line by line, over a pipe.

Run as ``python -m tests.crash.worker JOB [--control]``, with a :class:`Job` as JSON, reports on the standard output
and orders from the standard input; or forked by :mod:`tests.crash.zygote`. It reports a reply after ``send`` has
returned. The control reports it before the commit: a test that does not catch it proves nothing.
"""

import argparse
import itertools
import json
import os
import random
import secrets
import time
import traceback
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from typing import Any
from unittest import mock

import anyio
import anyio.lowlevel
import attrs
from attrs import field, frozen

from fsm import AsyncSessionManager, FSMError, Reply, Request, Result, SessionManager, StoreError, TextDelta, TurnStatus
from fsm._core.effects import AddMessage, EndTurn, Step
from fsm.content import text_of
from fsm.events import EXPIRED, Event
from persistence import SQLStore
from persistence.store import Durability

PROVIDER = "worker's"
"""The name of the workers' provider."""


THREADS = 8
"""How many threads a crowd has, and how many tasks those who gather."""


@frozen(kw_only=True)
class Job:
    """The task of a worker.

    Attributes:
        url: the database.
        name: begins each of its messages, so that each is unique.
        keys: the conversations it talks in.
        role: the name of a method of :class:`Worker`.
        seed: of its choices.
        turns: how many; None for as many as it can.
        lease, busy_timeout, timeout: the manager's and the store's.
        control: report before the commit.
        durability: the store's.
        again: send a message again if the store says that nothing of it was stored.
        owner: the name under which it runs turns, instead of one that tells its process.
    """

    url: str
    name: str
    keys: list[str] = field(factory=lambda: ["k"])
    role: str = "work"
    seed: int = 0
    turns: int | None = None
    lease: float = 600.0
    busy_timeout: float = 60.0
    timeout: float = 10.0
    control: bool = False
    durability: Durability = "acknowledged"
    again: bool = False
    owner: str | None = None


class Moody:
    """A provider whose sessions die often, in every way there is."""

    name = PROVIDER

    def __init__(self, worker: "Worker") -> None:
        self._worker = worker

    async def astream(self, request: Request) -> AsyncIterator[Event]:
        """The same, for others to run meanwhile."""
        for event in self.stream(request):
            await anyio.lowlevel.checkpoint()
            yield event

    def stream(self, request: Request) -> Iterator[Event]:
        """Answer, or report some death or other."""
        text = text_of(request.content)
        self._worker.report("heard", key=request.key, turn=request.turn, text=text)
        mood = self._worker.chance.random()
        if mood < 0.2 and request.session_id is not None:
            yield Result(subtype=EXPIRED, is_error=True, session_id=request.session_id)
            return
        yield TextDelta("what I say to ")
        yield TextDelta(text)
        if mood < 0.25:
            yield Result(subtype=EXPIRED, is_error=True)
        elif mood < 0.3:
            yield Result(subtype="error_max_turns", is_error=True)
        elif mood < 0.35:
            yield Result()
        elif mood < 0.4:
            yield Result(session_id=f"s-{secrets.token_hex(8)}")
        else:
            yield Result(session_id=request.session_id or f"s-{secrets.token_hex(8)}")


class Halting:
    """A provider that stops in the middle of its answer until it is told to go on."""

    name = PROVIDER

    def __init__(self, worker: "Worker") -> None:
        self._worker = worker

    def stream(self, _: Request) -> Iterator[Event]:
        """One half, and the other when the order comes."""
        yield TextDelta("one half")
        self._worker.obey()
        yield TextDelta(", the other half")
        yield Result(session_id=f"s-{secrets.token_hex(8)}")


class Worker:
    """One worker.

    Args:
        job: what to do.
        reports: the file descriptor to report to.
        orders: the file descriptor that orders come from.
    """

    def __init__(self, job: Job, reports: int, orders: int) -> None:
        self.job = job
        self.chance = random.Random(job.seed)
        self._reports = reports
        self._orders = orders

    def run(self) -> int:
        """Do the job; whatever goes wrong is reported."""
        try:
            with self._named():
                getattr(self, self.job.role)()
        except BaseException:  # noqa: BLE001  # a worker has nobody else to tell
            with suppress(OSError):
                self.report("error", text=traceback.format_exc()[-3000:])
            return 1
        return 0

    def report(self, kind: str, **fields: Any) -> None:
        """One line, in one write: a worker that is killed has reported it whole or not at all."""
        os.write(self._reports, json.dumps({"kind": kind, **fields}).encode() + b"\n")

    def obey(self) -> None:
        """Wait for an order."""
        if not os.read(self._orders, 1):
            raise EOFError("nobody is there to give orders any more")

    def store(self) -> SQLStore:
        """The store, opened in this process."""
        kind = HastyStore if self.job.control else SQLStore
        store = kind(self.job.url, timeout=self.job.timeout, durability=self.job.durability)
        if isinstance(store, HastyStore):
            store.worker = self
        return store

    def manager(self, store: SQLStore, provider: Any) -> SessionManager:
        """The manager, which waits where another turn is running."""
        return SessionManager(store, provider, lease=self.job.lease, on_busy="wait", busy_timeout=self.job.busy_timeout)

    # Roles

    def work(self) -> None:
        """Open the store, say so, and talk."""
        with self.store() as store:
            self.report("ready")
            self._talk(store)

    def march(self) -> None:
        """Open the store, and talk when all are told to."""
        with self.store() as store:
            self.report("ready")
            self.obey()
            self._talk(store)

    def race(self) -> None:
        """Open the store when all are told to, and talk."""
        self.report("ready")
        self.obey()
        with self.store() as store:
            self._talk(store)

    def crowd(self) -> None:
        """Talk in many threads at once, on a store that reports when it commits steps together."""
        with GroupingStore(self.job.url, timeout=self.job.timeout, durability=self.job.durability) as store:
            store.worker = self
            self.report("ready")
            names = [f"{self.job.name}, thread {number}" for number in range(THREADS)]
            with ThreadPoolExecutor(THREADS) as threads:
                for done in [threads.submit(self._talk, store, name) for name in names]:
                    done.result()

    def gather(self) -> None:
        """Talk in many tasks at once, whose calls go to the store in bundles."""
        with GroupingStore(self.job.url, timeout=self.job.timeout, durability=self.job.durability) as store:
            store.worker = self
            self.report("ready")
            anyio.run(self._gather, store)

    async def _gather(self, store: SQLStore) -> None:
        manager = AsyncSessionManager(
            store, Moody(self), lease=self.job.lease, on_busy="wait", busy_timeout=self.job.busy_timeout
        )

        async def talk(name: str) -> None:
            for number in itertools.islice(itertools.count(), self.job.turns):
                text = f"{name} {number}"
                reply = await manager.send(self.chance.choice(self.job.keys), text)
                self.acknowledge(reply.key, reply.turn, text, reply.text, reply.status)

        async with anyio.create_task_group() as tasks:
            for number in range(THREADS):
                tasks.start_soon(talk, f"{self.job.name}, task {number}")

    def hold(self) -> None:
        """Read half of an answer, and the rest when told to; report what came of it."""
        with self.store() as store:
            manager = self.manager(store, Halting(self))
            try:
                with manager.stream(self.job.keys[0], self.job.name) as turn:
                    events = iter(turn)
                    next(events)
                    self.report("holding", turn=turn.number)
                    for _ in events:
                        pass
            except FSMError as error:
                reply = error.reply
                self.report("ended", error=type(error).__name__, text=reply and reply.text)
            else:
                self.report("ended", error=None, text=turn.reply.text)

    def _talk(self, store: SQLStore, name: str | None = None) -> None:
        manager = self.manager(store, Moody(self))
        for number in itertools.islice(itertools.count(), self.job.turns):
            text = f"{name or self.job.name} {number}"
            reply = self._send(manager, text)
            if not self.job.control:
                self.acknowledge(reply.key, reply.turn, text, reply.text, reply.status)

    def _send(self, manager: SessionManager, text: str) -> Reply:
        key = self.chance.choice(self.job.keys)
        while True:
            try:
                return manager.send(key, text)
            except StoreError as error:
                if not self.job.again or "Send the message again" not in str(error):
                    raise
                self.report("again", text=text)

    def acknowledge(self, key: str, turn: int, text: str, answer: str, status: TurnStatus) -> None:
        """Tell the world of a reply."""
        self.report("acked", key=key, turn=turn, text=text, answer=answer, status=status.value)

    def _named(self) -> Any:
        owner = self.job.owner
        return mock.patch("fsm._runtime.worker.name_owner", return_value=owner) if owner else nullcontext()


class GroupingStore(SQLStore):
    """The real store; tells when steps share a transaction."""

    worker: Worker

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._together = self.transactions._write_together
        self.transactions._write_together = self._report_and_commit  # type: ignore[method-assign]

    def _report_and_commit(self, steps: Sequence[Step]) -> list[Exception | None]:
        self.worker.report("together", steps=len(steps))
        return self._together(steps)


class HastyStore(SQLStore):
    """The control: what ends a turn is acknowledged, and then committed."""

    worker: Worker

    def commit(self, step: Step) -> None:
        """Boast, and do."""
        for effect in step.effects:
            if isinstance(effect, EndTurn) and effect.result is not None:
                said = [each.message.text for each in step.effects if isinstance(each, AddMessage)]
                asked = self.messages(step.before, limit=1)[0].text
                self.worker.acknowledge(step.after.key, effect.number, asked, "".join(said), effect.status)
                time.sleep(0.005)  # as a slow disk would; a quick commit is seldom killed between the two
        super().commit(step)


def main() -> int:
    """Run a worker in a new interpreter."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", help="a Job as JSON")
    parser.add_argument("--control", action="store_true", help="acknowledge before the commit")
    arguments = parser.parse_args()
    job = Job(**json.loads(arguments.job))
    return Worker(attrs.evolve(job, control=job.control or arguments.control), reports=1, orders=0).run()


if __name__ == "__main__":
    raise SystemExit(main())
