"""A world to play scripts in: a real store, real managers, and a provider that does what the script says.

The world keeps its own records, independently of the code under test: each request and its answer, the ids that were
reported dead, the turns that succeeded, and their messages.
"""

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from attrs import define, field
from hypothesis import note

from fsm import (
    ContextWindow,
    Conversation,
    ConversationBusy,
    FSMError,
    ProviderError,
    Reply,
    Request,
    Result,
    SessionManager,
    StoreError,
    TextDelta,
    Trigger,
    TurnSuperseded,
)
from fsm._core.effects import Step as Committed
from fsm.events import Event
from fsm.testing.steps import Act, Hang, RefuseWrite, Reset, Restart, Send, Step, Wake, story
from persistence import SQLStore

NUMBERS = itertools.count()
LEASE = 60.0
EXPECTED = (ConversationBusy, ProviderError, TurnSuperseded)


class World:
    """One conversation and all that happens to it.

    Args:
        store: a real store; each world uses another key.
        window: how much of the history a new session is told.
    """

    def __init__(self, store: "RefusingStore", window: ContextWindow | None = None) -> None:
        store.put_away()
        self.store = store
        self.key = f"conversation {next(NUMBERS)}"
        self.window = window or ContextWindow()
        self.now = self.epoch = datetime(2026, 1, 1, tzinfo=UTC)
        self.refused: FSMError | None = None
        self.asked: list[Asked] = []
        self.outcomes: list[Outcome] = []
        self.dead: set[str | None] = set()
        self.ghosts = store.ghosts
        self.managers: dict[tuple[str, bool], SessionManager] = {}
        self._acts: dict[str, list[Act]] = {}

    def play(self, script: list[Step]) -> "World":
        """Let everything happen, checking nothing but that only errors of the library come up."""
        note(story(script))
        for step in script:
            self.do(step)
        return self

    def do(self, step: Step) -> None:
        """Let one step happen."""
        self.now += timedelta(seconds=1)
        self.store.has_refused = False
        match step:
            case Send():
                self._send(step)
            case Hang():
                self._hang(step)
            case Reset():
                self._reset(step)
            case Wake():
                self._wake()
            case Restart():
                self.now += timedelta(seconds=2 * LEASE)
                self.managers.clear()
            case RefuseWrite():
                self.store.refuse_in = step.nth

    def manager(self, provider: str = "a", *, heal: bool = True) -> SessionManager:
        """A worker."""
        if (provider, heal) not in self.managers:
            self.managers[provider, heal] = SessionManager(
                self.store,
                _Scripted(self, provider),
                heal=heal,
                context=self.window,
                lease=LEASE,
                clock=lambda: self.now,
            )
        return self.managers[provider, heal]

    @property
    def conversation(self) -> Conversation | None:
        """The conversation as it is stored."""
        return self.store.load(self.key)

    def _outcome(self, step: Send | Hang) -> "Outcome":
        number = len(self.outcomes) + 1
        outcome = Outcome(step, f"message {number}")
        self.outcomes.append(outcome)
        return outcome

    def _stream(self, step: Send | Hang, outcome: "Outcome", *, heal: bool) -> Any:
        key = step.idempotency_key if isinstance(step, Send) else None
        said = f"for {key}" if key else outcome.text
        self._acts[said] = list(step.acts)
        return self.manager(step.provider, heal=heal).stream(self.key, said, idempotency_key=key)

    def _send(self, step: Send) -> None:
        outcome = self._outcome(step)
        first = len(self.asked)
        try:
            with self._stream(step, outcome, heal=step.heal) as turn:
                outcome.turn = turn.number
                for event in itertools.islice(turn, step.take):
                    outcome.handed.append(event)
            outcome.reply = turn.reply
        except FSMError as error:
            self._note(outcome, error)
        outcome.asked = self.asked[first:]

    def _note(self, outcome: "Outcome", error: FSMError) -> None:
        """An error that may come up: the store fails only if it was told to, and nobody does what is illegal."""
        if not isinstance(error, EXPECTED) and not self.store.has_refused:
            raise error
        outcome.error = error
        outcome.reply = error.reply

    def _hang(self, step: Hang) -> None:
        outcome = self._outcome(step)
        first = len(self.asked)
        stack = ExitStack()
        try:
            turn = stack.enter_context(self._stream(step, outcome, heal=True))
            outcome.turn = turn.number
            events = iter(turn)
            outcome.handed += itertools.islice(events, step.take)
        except FSMError as error:
            self._note(outcome, error)
        else:
            if outcome.handed and isinstance(outcome.handed[-1], Result):
                outcome.reply = turn.reply
            self.ghosts.append((stack, events, outcome))
        outcome.asked = self.asked[first:]

    def _wake(self) -> None:
        if not self.ghosts:
            return
        stack, events, outcome = self.ghosts.pop(0)
        outcome.woken = True
        first = len(self.asked)
        try:
            with stack:
                outcome.handed += events
        except FSMError as error:
            reply = outcome.reply
            self._note(outcome, error)
            outcome.reply = reply
        outcome.asked += self.asked[first:]

    def _reset(self, step: Reset) -> None:
        if self.conversation is None:
            return
        try:
            self.manager().reset(self.key, force=step.force)
        except (ConversationBusy, StoreError) as error:
            self.refused = error

    def _kept_in_spite(self, request: Request) -> set[str | None]:
        """Return the ids that a late result can't declare dead: the one that the conversation holds (G10)."""
        conversation = self.store.load(self.key)
        assert conversation is not None
        running = conversation.running
        late = running is None or running.turn != request.turn
        return {None, conversation.session_id} if late else {None}

    def answer(self, request: Request, provider: str) -> Iterator[object]:
        """Plays the script, and records it."""
        acts = self._acts[request.content[0]["text"]]
        act = acts.pop(0) if acts else Act((Result(),))
        asked = Asked(request, provider, act, frozenset(self.dead))
        self.asked.append(asked)
        for event in act.events:
            asked.yielded += 1
            if isinstance(event, Result) and event.trigger is Trigger.EXPIRED:
                self.dead |= {request.session_id, event.session_id} - self._kept_in_spite(request)
            yield event
        if act.raises:
            raise RuntimeError("as the script says")


@define
class Asked:
    """One request, as it reached the provider, and what the provider did."""

    request: Request
    provider: str
    act: Act
    dead_before: frozenset[str | None]
    yielded: int = 0

    @property
    def result(self) -> Result | None:
        """The first result that it yielded."""
        return next((event for event in self.act.events[: self.yielded] if isinstance(event, Result)), None)

    @property
    def said(self) -> tuple[Event, ...]:
        """The events that it yielded."""
        return self.act.events[: self.yielded]

    @property
    def content_first(self) -> bool:
        """Whether it said anything before its result."""
        return bool(self.act.events) and not isinstance(self.act.events[0], Result)


@define
class Outcome:
    """The outcome of one message."""

    step: Send | Hang
    text: str
    turn: int | None = None
    handed: list[Any] = field(factory=list)
    asked: list[Asked] = field(factory=list)
    reply: Reply | None = None
    error: FSMError | None = None
    woken: bool = False
    seen: bool = False

    @property
    def deltas(self) -> str:
        """The text that the caller was handed."""
        return "".join(event.text for event in self.handed if isinstance(event, TextDelta))


class _Scripted:
    """The provider: an AI that does what the world's script says."""

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self._world = world

    def stream(self, request: Request) -> Iterator[Any]:
        return self._world.answer(request, self.name)


class RefusingStore(SQLStore):
    """The real store; before the commit that a script names, SQLite is told to refuse to write."""

    refuse_in = 0
    refusals = 0
    has_refused = False

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self.ghosts: list[tuple[ExitStack, Any, Outcome]] = []

    def put_away(self) -> None:
        """Wake what still hangs from an earlier world."""
        self.refuse_in = 0
        while self.ghosts:
            with suppress(FSMError), self.ghosts.pop()[0]:
                pass

    def close(self) -> None:
        self.put_away()
        super().close()

    def commit(self, step: Committed) -> None:
        self.refuse_in -= 1
        refuse = self.refuse_in == 0
        self.refusals += refuse
        self.has_refused = self.has_refused or refuse
        self.dialect.database.execute_sql(f"PRAGMA query_only = {int(refuse)}")
        try:
            super().commit(step)
        finally:
            if refuse:
                self.dialect.database.execute_sql("PRAGMA query_only = 0")


__all__ = ["Asked", "Outcome", "RefusingStore", "World"]
