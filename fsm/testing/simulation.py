"""Deterministic simulation: many conversations, workers and faults in one process, under a seed, in virtual time.

:func:`simulate` runs the real driver of the managers, every part of it, on simulated databases, providers and deaths
(:mod:`fsm.testing.simulated`). The same seed makes the same run on every machine. A broken guarantee is reported with
its seed and with the events of its conversation. Once the faults have stopped, every conversation must answer and know
its past.

``python -m fsm.testing simulate --seed 7`` runs one.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b

import attrs
from attrs import frozen

from fsm.records import Conversation, TurnStatus
from fsm.store import Store
from fsm.testing.moves import TraceError
from fsm.testing.reference import ReferenceStore
from fsm.testing.simulated import LEASE, Broken, Database, Faults, Tally, World
from fsm.testing.simulated_clients import Client, Crew
from fsm.testing.simulated_provider import Provider
from fsm.testing.trace import check_database
from fsm.testing.virtual_time import Loop

__all__ = ["Simulation", "SimulationError", "simulate"]

MEMORY = 20_000
"""How many lines of the trace are kept for the report of a failure."""

SHOWN = 40
"""How many of them are shown."""


class SimulationError(AssertionError):
    """A guarantee did not hold in a simulated world.

    Attributes:
        seed: makes the same world again.
        trace: the last things that happened in the conversation, oldest first.
    """

    def __init__(self, claim: str, seed: int, size: Mapping[str, int], trace: Sequence[str]) -> None:
        self.seed = seed
        self.trace = tuple(trace)
        options = "".join(f" --{name} {count}" for name, count in size.items())
        lines = "\n".join(f"    {line}" for line in self.trace[-SHOWN:])
        super().__init__(
            f"{claim}\n\nThe same world again: python -m fsm.testing simulate --seed {seed}{options}\n"
            f"(or simulate(), with the store and the faults that it was given)\n\nWhat happened before:\n{lines}"
        )


@frozen(kw_only=True)
class Simulation:
    """The outcome of a simulation.

    Attributes:
        seed: makes the same world again.
        tally: how often what happened.
        acknowledged: how many replies callers got.
        healed: how many of them came from a session that was replaced within the turn.
        seconds: how long it took, in virtual time.
        digest: of everything that happened, in order; equal runs have equal ones.
    """

    seed: int
    tally: Tally
    acknowledged: int
    healed: int
    seconds: float
    digest: str

    def __str__(self) -> str:
        counts = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in attrs.asdict(self.tally).items())
        return (
            f"seed {self.seed}: {counts}; {self.acknowledged:,} replies, {self.healed:,} healed; "
            f"{self.seconds / 3600:.1f} virtual hours; digest {self.digest}"
        )


def simulate(
    seed: int = 0,
    *,
    turns: int = 1000,
    conversations: int = 20,
    workers: int = 3,
    faults: Faults | None = None,
    make_store: Callable[[], Store] = ReferenceStore,
) -> Simulation:
    """Run one simulated world to its end.

    Args:
        seed: decides everything.
        turns: how many turns to begin before the faults stop.
        conversations: how many conversations there are; two callers talk in each.
        workers: how many processes run turns at a time.
        faults: how likely which faults are.
        make_store: makes the database. Only a :class:`ReferenceStore` can be made to forget what was not synced.

    Returns:
        The outcome.

    Raises:
        SimulationError: a guarantee did not hold; the message tells the seed.

    >>> simulate(seed=7, turns=50) == simulate(seed=7, turns=50)
    True
    """
    trace: deque[tuple[str, str]] = deque(maxlen=MEMORY)
    digest = blake2b(digest_size=8)
    chance = random.Random(seed)  # noqa: S311  # it must be predictable
    loop = Loop(chance)

    def note(key: str, what: str) -> None:
        line = f"{loop.now:12.3f} {key} {what}"
        digest.update(line.encode())
        trace.append((key, line))

    world = World(loop, chance, faults or Faults(), note)
    store = make_store()
    try:
        clients, crew = _set_up(world, Database(store, world), conversations, workers)
        _play(world, clients, turns)
        _end_well(world, clients, crew, store)
    except (Broken, TraceError) as error:
        told = [line for key, line in trace if key in {error.key, ""}]
        size = {"turns": turns, "conversations": conversations, "workers": workers}
        raise SimulationError(str(error), seed, size, told) from error
    finally:
        loop.abandon()
        getattr(store, "close", lambda: None)()
    replies = [reply for client in clients for reply in client.acknowledged]
    healed = sum(reply.healed for reply in replies)
    return Simulation(
        seed=seed,
        tally=world.tally,
        acknowledged=len(replies),
        healed=healed,
        seconds=loop.now,
        digest=digest.hexdigest(),
    )


def _set_up(world: World, database: Database, conversations: int, workers: int) -> tuple[list[Client], Crew]:
    providers = [Provider(name, world, database) for name in ("first", "second")]
    crew = Crew(world, database, providers, workers)
    keys = [f"c{number}" for number in range(conversations)]
    return [Client(key, name, world, crew) for key in keys for name in ("a", "b")], crew


def _play(world: World, clients: Sequence[Client], turns: int) -> None:
    """Let all callers talk while faults happen, until enough turns were begun or their time is over."""
    for client in clients:
        client.go_on(lambda: world.tally.turns < turns and world.loop.now < turns * LEASE)
    world.loop.run()


def _end_well(world: World, clients: Sequence[Client], crew: Crew, store: Store) -> None:
    """Stop the faults. Check that acknowledged turns are there, and that every conversation answers and knows its
    past."""
    world.faults = Faults.none()
    world.note("", "the faults stop")
    began = world.loop.now
    last = {client.key: client for client in clients}
    for client in last.values():
        client.say_the_last_word()
    world.loop.run()
    if world.loop.now > began + 4 * LEASE:
        raise Broken("", f"it took {world.loop.now - began:.0f} s until all conversations answered")
    check_database(store)
    for client in clients:
        client.check(store)
    for client in last.values():
        _check_memory(client, crew, store)
    for provider in crew.providers:
        for (key, text), count in provider.heard.items():
            if count > 1 and key not in crew.database.forgot:
                raise Broken(key, f"G13: {text!r} was answered {count} times")


def _check_memory(client: Client, crew: Crew, store: Store) -> None:
    """Check that the last message was answered by a session that knows every succeeded turn, in order (G3, G9, G11)."""
    conversation = _known(store, client.key)
    reply = client.acknowledged[-1] if client.acknowledged else None
    if reply is None or reply.turn != conversation.turn_count or reply.status is not TurnStatus.SUCCEEDED:
        raise Broken(client.key, "G9, G11: it does not answer, although the faults have stopped")
    due = [
        message.text
        for turn in store.turns(conversation)
        if turn.status is TurnStatus.SUCCEEDED
        for message in store.turn_messages(conversation, turn)[:1]
    ]
    said = set(due)
    known = [text for text in crew.remembered(conversation) if text in said]
    if client.key in crew.database.forgot:
        # A message whose turn the database forgot was heard, and heard again when it was sent again.
        known = sorted(set(known), key=due.index)
    if known != due:
        raise Broken(client.key, f"G3: its session knows {len(known)} of {len(due)} turns, or in another order")


def _known(store: Store, key: str) -> Conversation:
    conversation = store.load(key)
    if conversation is None:
        raise Broken(key, "G8: it is not stored")
    return conversation
