"""The world that is explored: one conversation, its workers, and a provider that may do anything.

A :class:`World` is what is true at one moment, and knows which *acts* may happen next; :mod:`fsm.testing.explore_play`
plays them. It keeps its own books of what was sent to the provider and which ids were reported dead, apart from the
store's. Equal acts lead to equal worlds, so a list of acts is a script.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

from attrs import define, frozen

from fsm._core.effects import Step
from fsm._core.table import State
from fsm._core.turn import Answer
from fsm.records import Conversation, Message, Session, Transition, Turn
from fsm.store import Store

__all__ = ["EVENTS", "Act", "Sent", "Worker", "World"]

EVENTS = (
    "begin",
    "look",
    "answer",
    "heal",
    "finish",
    "extend",
    "interrupt",
    "reset",
    "force",
    "recover",
    "expire_lease",
    "crash",
)
"""The kinds of acts. ``look`` loads without deciding yet, ``force`` is a forced reset, ``expire_lease`` ends every
lease."""

OUTCOMES = ("succeeded", "failed", "expired", "expired-midway")
"""The reports of a provider; with ``expired-midway`` it yielded text before it found the session dead."""

NAMES = ("nothing", "held", "new", "dead")
"""The session that a result names: none, the one that was resumed, a new one, or one that was reported dead before."""

KEY = "conversation"
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
NOTHING = Answer()


@frozen
class Act:
    """One thing that happens.

    Attributes:
        event: its kind, one of :data:`EVENTS`.
        worker: who does it, 1, 2, …; 0 for the clock.
        outcome: of ``answer``: what the provider reports.
        names: of ``answer``: the session that its result names.

    >>> str(Act("answer", 1, "expired", "held"))
    '1 answer expired held'
    >>> Act.parse("1 answer expired held") == Act("answer", 1, "expired", "held")
    True
    """

    event: str
    worker: int = 0
    outcome: str = ""
    names: str = ""

    def __str__(self) -> str:
        return " ".join(word for word in (str(self.worker), self.event, self.outcome, self.names) if word)

    @classmethod
    def parse(cls, line: str) -> Act:
        """Read one line of a script.

        Raises:
            ValueError: it is none.
        """
        worker, event, outcome, names, *more = [*line.split(), "", "", "", ""]
        answers = event == "answer" and outcome in OUTCOMES and names in NAMES
        silent = event in EVENTS and event != "answer" and not outcome
        if not worker.isdigit() or any(more) or not (answers or silent):
            raise ValueError(f"{line!r} is no act; one is '1 begin' or '1 answer expired held'")
        return cls(event, int(worker), outcome, names)


@frozen
class Worker:
    """A process that runs turns, as far as it remembers.

    Attributes:
        phase: ``idle``; ``looked``: it has loaded and not decided; ``asked``: its turn waits for the provider;
            ``answered``: it has the result and not committed it.
        life: how often it has died before; a new life has a new name.
        snapshot: the conversation as it knows it, which may be out of date.
        turn: the number of its turn.
        resumed: the provider session id that its last request resumes.
        asks: how many requests its turn has sent.
        answer: what it said, the result among it.
        heals: whether the turn wants to heal rather than to finish.
    """

    phase: str = "idle"
    life: int = 0
    snapshot: Conversation | None = None
    turn: int = 0
    resumed: str | None = None
    asks: int = 0
    answer: Answer = NOTHING
    heals: bool = False


@frozen
class Sent:
    """One request, as it reached the provider.

    Attributes:
        turn: the number of the turn that sent it.
        resumed: the provider session id that it resumes.
        was_dead: whether that one had been reported dead before.
        retry: whether it is the second of its turn or a later one.
        allowed: for a retry, whether the request before resumed a session, was not a retry and said nothing.
    """

    turn: int
    resumed: str | None
    was_dead: bool
    retry: bool = False
    allowed: bool = True


@define(eq=False)
class World:
    """One conversation with all that surrounds it, at one moment.

    Attributes:
        store: where the conversation is kept.
        key: its key there.
        workers: the processes that run its turns.
        now: the time.
        conversation: the snapshot that is stored; None before the first turn.
        ids: how many provider session ids were given out.
        dead: the ids that were reported dead, by the world's own books.
        sent: all requests so far.
        path: the acts that led here.
        previous: the world before the last act.
        sessions: the sessions that are stored, in order, as are the next three.
        turns: the turns.
        messages: the messages.
        transitions: the log of moves.
        came: what came of the last act: ``done``, ``committed``, ``conflict``, ``busy``, ``late``, ``kept`` or
            ``nothing``.
        step: the step that the last act committed, or None.
    """

    store: Store
    key: str
    workers: tuple[Worker, ...]
    now: datetime = EPOCH
    conversation: Conversation | None = None
    ids: int = 0
    dead: frozenset[str] = frozenset()
    sent: tuple[Sent, ...] = ()
    path: tuple[Act, ...] = ()
    previous: World | None = None
    sessions: tuple[Session, ...] = ()
    turns: tuple[Turn, ...] = ()
    messages: tuple[Message, ...] = ()
    transitions: tuple[Transition, ...] = ()
    came: str = "done"
    step: Step | None = None

    @property
    def act(self) -> Act | None:
        """The last act."""
        return self.path[-1] if self.path else None

    @property
    def state(self) -> State:
        """The state that is stored."""
        return State.FRESH if self.conversation is None else self.conversation.state

    def owner(self, index: int) -> str:
        """Return the name under which a worker runs turns in its present life."""
        return f"worker {index + 1}, life {self.workers[index].life + 1}"

    def live_owner(self, conversation: Conversation | None) -> int | None:
        """Return the worker that runs a snapshot's turn; None if none runs, -1 if its owner has died or given it up."""
        running = None if conversation is None else conversation.running
        if running is None:
            return None
        for index, worker in enumerate(self.workers):
            if running.turn == worker.turn and running.owner == self.owner(index):
                return index
        return -1

    def acts(self, events: Collection[str] = EVENTS) -> list[Act]:
        """Return the acts that may happen next."""
        found: list[Act] = []
        for index, worker in enumerate(self.workers):
            found += [act for act in _acts_of(self, index + 1, worker, events) if act.event in events]
        running = None if self.conversation is None else self.conversation.running
        if "expire_lease" in events and running is not None and running.until > self.now:
            found.append(Act("expire_lease"))
        return found


def _acts_of(world: World, number: int, worker: Worker, events: Collection[str]) -> list[Act]:
    match worker.phase:
        case "idle":
            begun = () if world.conversation is None else ("reset", "force", "recover")
            return [Act(event, number) for event in ("begin", "look", *begun)]
        case "looked":
            return [Act("begin", number)]
        case "asked":
            answers = [Act("answer", number, outcome, names) for outcome in OUTCOMES for names in _names(world, worker)]
            return [*answers, *(Act(event, number) for event in ("extend", "interrupt", "crash"))]
        case _:
            heals = worker.heals and "heal" in events
            return [Act("heal" if heals else "finish", number), Act("crash", number)]


def _names(world: World, worker: Worker) -> list[str]:
    possible = {"held": worker.resumed is not None, "dead": bool(world.dead - {worker.resumed})}
    return [name for name in NAMES if possible.get(name, True)]
