"""Every behaviour of the machine up to a depth: the real decisions, explored breadth first.

:func:`explore` plays every act in every order. The acts are the results of a provider that may lose sessions and echo
dead ids, the steps of the workers, and the death of a worker at every point. It promises that the first deviation it
reports is a shortest one, as a script that :func:`replay` plays again.

Worlds that differ only in the names of ids, in times and in how much was written before are one state: what follows
depends on neither. So the number of states is small, and what was checked in one of them holds in all.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Collection, Iterator, Mapping

from attrs import Factory, define

from fsm.errors import FSMError
from fsm.store import Store
from fsm.testing.explore_decisions import REAL, Decisions
from fsm.testing.explore_play import perform
from fsm.testing.explore_properties import ALWAYS, EVENTUALLY, SOMETIMES, Property
from fsm.testing.explore_report import Exploration, Violation, script
from fsm.testing.explore_state import canonical
from fsm.testing.explore_world import EVENTS, KEY, Act, Worker, World
from fsm.testing.reference import ReferenceStore

__all__ = ["Exploration", "Violation", "explore", "replay"]

PATIENCE = 20
"""How many acts without faults may pass until what must come about has come about."""


class _Memory(ReferenceStore):
    """A store that can be copied, cheaply."""

    def fork(self) -> _Memory:
        return _Memory(dict(self._rows), self._lock)


@define
class _Explorer:
    """One exploration."""

    decide: Decisions
    events: Collection[str]
    workers: int
    always: Mapping[str, Property]
    eventually: Mapping[str, Property]
    make_store: Callable[[], Store] | None
    unseen: dict[str, Property]
    witnesses: dict[str, str] = Factory(dict)
    calm: set[object] = Factory(set)
    real: Store | None = None
    replays: Iterator[int] = Factory(itertools.count)

    def root(self) -> World:
        crew = (Worker(),) * self.workers
        if self.make_store is None:
            return World(_Memory(), KEY, crew)
        if self.real is None:
            self.real = self.make_store()
        # On a real store each replay has a conversation of its own.
        return World(self.real, f"{KEY} {next(self.replays)}", crew)

    def play(self, world: World, act: Act) -> World:
        """Let one act happen, after which the properties must hold."""
        path = (*world.path, act)
        try:
            after = self._performed(world, act)
        except FSMError as error:
            raise Violation("no decision and no store refuses what may happen", path, world, f": {error!r}") from error
        for name, holds in self.always.items():
            if not holds(after):
                raise Violation(name, path, after)
        return after

    def note(self, world: World) -> None:
        """Write down what was seen for the first time."""
        for name in [name for name, holds in self.unseen.items() if holds(world)]:
            del self.unseen[name]
            self.witnesses[name] = script(world.path)

    def _performed(self, world: World, act: Act) -> World:
        if isinstance(world.store, _Memory):
            return perform(world, act, world.store.fork(), self.decide)
        again = self.root()
        for earlier in world.path:
            again = perform(again, earlier, again.store, self.decide)
        return perform(again, act, again.store, self.decide)

    def explore(self, depth: int) -> Exploration:
        root = self.root()
        seen, edges, reached = {canonical(root)}, 0, 0
        self.end_well(root)
        frontier = [root]
        for level in range(1, depth + 1):
            following = []
            for world in _watched(frontier, level, len(seen)):
                world.previous = None  # the path tells where it came from
                for act in world.acts(self.events):
                    after = self.play(world, act)
                    self.note(after)
                    edges += 1
                    state = canonical(after)
                    if state not in seen:
                        seen.add(state)
                        self.end_well(after)
                        following.append(after)
            frontier = following
            reached = level if frontier else reached
            if not frontier:
                break
        return Exploration(
            states=len(seen),
            edges=edges,
            depth=reached,
            complete=not frontier,
            witnesses=dict(self.witnesses),
            unreached=tuple(self.unseen),
        )

    # After the faults have stopped

    def end_well(self, world: World) -> None:
        """Let the world go on without faults, and check the properties that must become true."""
        for loses in (False, True) if self.eventually else ():
            self._end_well(world, loses=loses)

    def _end_well(self, world: World, *, loses: bool) -> None:
        passed = []
        for _ in range(PATIENCE):
            state = (loses, canonical(world))
            if state in self.calm:
                break
            passed.append(state)
            act = self.next_calm(world, loses=loses)
            if act is None:
                self._answer_well(world, loses=loses)
                break
            world = self.play(world, act)
        else:
            raise Violation("the workers come to rest", world.path, world)
        self.calm.update(passed)

    def _answer_well(self, world: World, *, loses: bool) -> None:
        """Send one more message while all are idle, or two if a turn can't heal."""
        missing = dict(self.eventually)
        begin = Act("begin", 1)
        messages = [] if "heal" in self.events else [begin]
        act: Act | None = begin
        for _ in range(PATIENCE):
            if act is None:
                break
            world = self.play(world, act)
            missing = {name: holds for name, holds in missing.items() if not holds(world)}
            if not missing:
                return
            act = self.next_calm(world, loses=loses) or (messages.pop() if messages else None)
        raise Violation(next(iter(missing)), world.path, world)

    def next_calm(self, world: World, *, loses: bool) -> Act | None:
        """Return the next act of a worker that is not idle, if nothing fails; None if all are idle."""
        for number, worker in enumerate(world.workers, start=1):
            match worker.phase:
                case "looked":
                    return Act("begin", number)
                case "asked" if worker.resumed is not None:
                    return Act("answer", number, "expired" if loses else "succeeded", "held")
                case "asked":
                    return Act("answer", number, "succeeded", "new")
                case "answered":
                    return Act("heal" if worker.heals and "heal" in self.events else "finish", number)
        return None


def _watched(frontier: list[World], level: int, states: int) -> Iterator[World]:
    """Yield the worlds, with a line about how far it has got, if somebody watches."""
    watched = sys.stderr.isatty()
    for number, world in enumerate(frontier):
        if watched and number % 100 == 0:
            sys.stderr.write(f"\rdepth {level}: {number:,} of {len(frontier):,} worlds, {states:,} states before ")
        yield world
    if watched:
        sys.stderr.write("\r\033[K")


def explore(
    *,
    depth: int = 6,
    events: Collection[str] = EVENTS,
    crashes: bool = True,
    workers: int = 2,
    decide: Decisions | None = None,
    make_store: Callable[[], Store] | None = None,
    always: Mapping[str, Property] = ALWAYS,
    sometimes: Mapping[str, Property] = SOMETIMES,
    eventually: Mapping[str, Property] = EVENTUALLY,
) -> Exploration:
    """Explore every behaviour of one conversation, breadth first.

    Args:
        depth: how many acts at most.
        events: the kinds of acts that happen, of :data:`~fsm.testing.explore_world.EVENTS`; without ``heal``, no
            turn heals.
        crashes: whether workers die.
        workers: how many there are.
        decide: the decisions that are explored; None: those of the library.
        make_store: makes an empty store, on which every path is played again; None: the reference store.
        always: what must hold in every world, each under its name.
        sometimes: what must be true in some world; see :attr:`Exploration.unreached`.
        eventually: what must come about from every world once faults have stopped.

    Returns:
        The states and acts that were explored.

    Raises:
        ValueError: the depth, the events or the number of workers can't be.
        Violation: a property does not hold; with a shortest script that leads there.

    >>> exploration = explore(depth=3, workers=1, events=("begin", "answer", "finish"))
    >>> exploration.states, exploration.edges, exploration.complete
    (14, 17, False)
    >>> exploration.witnesses["a turn is answered"].splitlines()
    ['1 begin', '1 answer succeeded nothing', '1 finish']
    """
    chosen = [event for event in EVENTS if event in events and (crashes or event != "crash")]
    if depth < 0 or workers < 1 or not set(events) <= set(EVENTS):
        raise ValueError(f"depth must be from 0, workers from 1, and events some of {', '.join(EVENTS)}")
    explorer = _Explorer(decide or REAL, chosen, workers, always, eventually, make_store, dict(sometimes))
    try:
        return explorer.explore(depth)
    finally:
        close = getattr(explorer.real, "close", None)
        if close is not None:
            close()


def replay(
    script: str,
    *,
    decide: Decisions | None = None,
    make_store: Callable[[], Store] | None = None,
    always: Mapping[str, Property] = ALWAYS,
) -> World:
    """Play a script, such as that of a :class:`Violation`, and check that the properties hold all along.

    Args:
        script: the acts, one a line.
        decide: the decisions; None: those of the library.
        make_store: makes the store; None: the reference store.
        always: what must hold in every world.

    Returns:
        The world at its end.

    Raises:
        ValueError: a line is not an act, or the act can't happen there.
        Violation: a property does not hold.

    >>> world = replay('''
    ...     1 begin
    ...     1 answer expired new
    ...     1 finish
    ... ''')
    >>> world.state
    <State.STALE: 'stale'>
    """
    acts = [Act.parse(line) for line in script.splitlines() if line.strip()]
    crew = max([act.worker for act in acts], default=1) or 1
    explorer = _Explorer(decide or REAL, EVENTS, crew, always, {}, make_store, {})
    world = explorer.root()
    for act in acts:
        if act not in world.acts():
            possible = ", ".join(str(one) for one in world.acts())
            raise ValueError(f"'{act}' can't happen after '{world.act}'; what can: {possible}")
        world = explorer.play(world, act)
    return world
