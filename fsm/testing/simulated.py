"""The simulated world: a database that forgets and refuses, providers that lose sessions and lie, workers that die.

All of it is decided by one source of random numbers, so that a seed is a whole world. The engine between them is the
real one. The parts of the world check everything that passes through them, and raise a deviation as
:class:`Broken` with the guarantee's number.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any, ParamSpec, Protocol, TypeVar

import attrs
from attrs import Factory, define, frozen

from fsm._core.effects import StartTurn, Step
from fsm._core.table import State
from fsm._runtime.adapters import Adapter, ProviderEvents
from fsm._runtime.engine import Engine
from fsm._runtime.presence import Lease
from fsm._runtime.scripts import Run, Script, refused
from fsm._runtime.settings import Settings
from fsm._runtime.worker import Worker as Identity
from fsm.context import ContextWindow
from fsm.errors import StoreError
from fsm.provider import Request
from fsm.records import Conversation
from fsm.store import Store
from fsm.testing.reference import ReferenceStore
from fsm.testing.virtual_time import Loop

__all__ = ["LEASE", "Broken", "Database", "Faults", "Tally", "Worker", "World"]

P = ParamSpec("P")
R = TypeVar("R")

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
LEASE = 60.0
"""For how many seconds a turn may give no sign of life; a provider is at times silent for longer."""


@frozen(kw_only=True)
class Faults:
    """How likely each fault is, from 0 to 1.

    Attributes:
        refuses: the database refuses a commit.
        uncertain: it stores a commit and reports that it could not.
        loses: the provider has lost the session that it is to resume.
        fails: the provider reports an error that may pass.
        lies: the provider breaks its contract: it raises, yields nothing, yields a result twice, yields something else
            than an event, or names a session that it reported dead.
        hangs: the provider is silent for longer than a lease.
        cancels: a caller cancels, or reads no further.
        dies: between two messages, a worker is killed.
        forgets: between two messages, the database crashes and forgets what it was not told to sync.

    >>> Faults.none().dies
    0.0
    """

    refuses: float = 0.01
    uncertain: float = 0.01
    loses: float = 0.1
    fails: float = 0.05
    lies: float = 0.05
    hangs: float = 0.01
    cancels: float = 0.05
    dies: float = 0.02
    forgets: float = 0.005

    @classmethod
    def none(cls) -> Faults:
        """Return faults that never happen."""
        return cls(**dict.fromkeys(attrs.fields_dict(cls), 0.0))


class Broken(BaseException):
    """A guarantee does not hold; no ``except Exception`` on its way takes it for a fault of the world.

    Attributes:
        key: the conversation.
    """

    def __init__(self, key: str, claim: str) -> None:
        super().__init__(f"conversation {key!r}: {claim}")
        self.key = key


@define(kw_only=True)
class Tally:
    """How often what happened."""

    turns: int = 0
    refusals: int = 0
    lost_sessions: int = 0
    lies: int = 0
    crashes: int = 0
    forgotten: int = 0


@define(eq=False)
class World:
    """The state of a simulation.

    Attributes:
        loop: the time.
        chance: decides everything.
        faults: how likely what is.
        note: writes a line into the trace.
        tally: counts what happened.
    """

    loop: Loop
    chance: random.Random
    faults: Faults
    note: Callable[[str, str], None]
    tally: Tally = Factory(Tally)

    def happens(self, likely: float) -> bool:
        """Whether something that is so likely happens now."""
        return self.chance.random() < likely


class Database:
    """A store that refuses at times, and when it crashes forgets the commits that it was not told to sync.

    Args:
        store: where the rows are; only a :class:`ReferenceStore` can be made to forget.
        world: the world.

    Attributes:
        forgot: the conversations of which commits were forgotten.
        newest: what was committed last in each conversation; stored, unless it was forgotten.
        epoch: how often it crashed.
    """

    def __init__(self, store: Store, world: World) -> None:
        self.forgot: set[str] = set()
        self.newest: dict[str, Conversation] = {}
        self._store = store
        self._world = world
        self._unsynced: list[tuple[str, Any]] = []
        self.epoch = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def commit(self, step: Step) -> None:
        """Write one step, or refuse, or do the one and say the other."""
        world, key = self._world, step.after.key
        if world.happens(world.faults.refuses):
            world.tally.refusals += 1
            world.note(key, "the database refuses")
            raise StoreError("the simulated database refuses to write; nothing was written", key)
        before = self._store._rows.get(key) if isinstance(self._store, ReferenceStore) else None
        self._store.commit(step)
        self.newest[key] = step.after
        world.note(key, f"version {step.after.version}: {', '.join(type(effect).__name__ for effect in step.effects)}")
        self._check(step)
        self._unsynced.append((key, before))
        if step.must_be_durable:
            self._unsynced.clear()
        world.tally.turns += any(isinstance(effect, StartTurn) for effect in step.effects)
        if world.happens(world.faults.uncertain):
            world.tally.refusals += 1
            world.note(key, "the database says that it could not")
            raise StoreError("the simulated database was lost in the commit; load to see what was stored", key)

    def crash(self) -> None:
        """Forget the commits that were not synced, as a server whose machine lost its power."""
        if not isinstance(self._store, ReferenceStore):
            return
        self.epoch += 1
        while self._unsynced:
            key, before = self._unsynced.pop()
            self.forgot.add(key)
            self._world.tally.forgotten += 1
            self._world.note(key, "the database forgets a commit")
            if before is None:
                del self._store._rows[key]
            else:
                self._store._rows[key] = before

    def _check(self, step: Step) -> None:
        after = step.after
        stored = self._store.load(after.key)
        if stored != after:
            raise Broken(after.key, f"what was committed is not what is stored: {stored}")
        if (after.session_id is not None) != (after.state is State.ACTIVE):
            raise Broken(after.key, f"G1: it is {after.state} and holds {after.session_id!r}")
        if after.session_id is not None and self._store.dead(after, {after.session_id}):
            raise Broken(after.key, f"G2: it holds {after.session_id!r}, which was reported dead")


class Asked(Protocol):
    """An AI, as a worker sees it."""

    name: str

    def ask(self, request: Request, owner: str) -> ProviderEvents:
        """Answer a request of a turn that this owner runs."""
        ...


class _Adapter(Adapter):
    """The world as a worker sees it."""

    def __init__(self, world: World, store: Store, provider: Asked, owner: str) -> None:
        self.chance = world.chance
        self._store = store
        self._world = world
        self._provider = provider
        self._owner = owner

    def elapsed(self) -> float:
        return self._world.loop.now

    async def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        await self._pause()
        outcome = function(*args, **kwargs)
        await self._pause()
        return outcome

    async def run(self, script: Script[R]) -> R:
        """Run a script; other tasks go on before each of its steps is committed, and before it hears the outcome."""
        run = Run(script)
        await self._pause()
        step = run.advance()
        while step is not None:
            with self.shield():
                await self._pause()
            step = run.advance(refused(self._store, step))
        await self._pause()
        return run.outcome()

    async def _pause(self) -> None:
        await self._world.loop.pause(self.chance.uniform(0.0, 0.01))

    def events(self, request: Request) -> ProviderEvents:
        self._world.note(request.key, f"turn {request.turn} asks {self._provider.name}, resumes {request.session_id}")
        return self._provider.ask(request, self._owner)

    def watch(self, lease: Lease) -> None:
        """Do nothing: no time passes between two events here."""

    let_go = watch

    async def sleep(self, seconds: float) -> None:
        await self._world.loop.pause(seconds)

    def shield(self) -> AbstractContextManager[object]:
        return self._world.loop.shield()


class Worker(Engine):
    """A process that runs turns, until it is killed. Its clock is not quite right.

    Args:
        name: tells it from all others that ever lived.
        world: the world.
        store: where the conversations are.
        provider: its AI.
        waits: whether it waits for a conversation that is busy, rather than to refuse.
    """

    def __init__(self, name: str, world: World, store: Store, provider: Asked, *, waits: bool = False) -> None:
        wrong = timedelta(seconds=world.chance.uniform(-1.0, 1.0))
        settings = Settings(
            provider=provider.name,
            context=ContextWindow(max_messages=1_000_000, max_characters=1_000_000_000),
            lease=LEASE,
            on_busy="wait" if waits else "raise",
            busy_timeout=LEASE * 3,
            clock=lambda: EPOCH + timedelta(seconds=round(world.loop.now, 6)) + wrong,
        )
        self.name = name
        super().__init__(store, _Adapter(world, store, provider, name), settings, Identity(name))
