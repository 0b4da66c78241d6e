"""How a conversation machine plays: what happens is done to a manager and told to the reference model, and compared.

It promises that a difference is raised as an ``AssertionError`` that cites the guarantee and tells the story so far.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, ClassVar, NoReturn

from attrs import Factory, define
from hypothesis.stateful import RuleBasedStateMachine

from fsm.aio import AsyncSessionManager
from fsm.content import Content, as_blocks
from fsm.context import ContextWindow
from fsm.errors import FSMError
from fsm.events import Result
from fsm.manager import SessionManager
from fsm.provider import Provider, Request
from fsm.reply import Reply
from fsm.store import Store
from fsm.testing.awaited import Awaited
from fsm.testing.comparing import asked_differs, reply_differs
from fsm.testing.expected import Broken, Live, Turn
from fsm.testing.model import Model
from fsm.testing.steps import Hang, Send
from fsm.testing.watching import ENDED, RAISED, Books, Heard, RefusingStore, Scripted, Watched

__all__ = ["ASYNC", "LEASE", "Due", "Got", "Hanging", "Playing", "shown"]

LEASE = 60.0
"""The lease of every turn, in seconds."""

ASYNC = "asynchronous"
"""The worker that is an :class:`fsm.AsyncSessionManager`; what it stores is the same (G12)."""

WINDOW = 8
"""How many messages a new session is told at most."""

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


@define(eq=False)
class Hanging:
    """A turn that a worker has begun and does not read on."""

    stack: ExitStack
    turn: Any
    live: Live


class Playing(RuleBasedStateMachine):
    """A conversation that things happen to: a manager in its world, and the reference model beside it."""

    make_store: ClassVar[Callable[[], Store]]
    make_provider: ClassVar[Callable[[str], Provider] | None] = None
    reopen: ClassVar[Callable[[Store], Store] | None] = None

    def __init__(self) -> None:
        super().__init__()
        self.books = Books(f"conversation {secrets.token_hex(8)}")
        self.model = Model(LEASE, WINDOW)
        self.story: list[str] = []
        self._stores = [type(self).make_store()]
        self._hanging: list[Hanging] = []
        self._ids: set[str] = set()
        self._runner = asyncio.Runner()
        self._start()

    def make_manager(self, store: Store, provider: Provider, **options: Any) -> SessionManager:
        """Return a worker; change this to check a manager of your own.

        Args:
            store: where the conversation is kept.
            provider: the AI.
            options: the arguments of :class:`fsm.SessionManager` that the machine relies on.
        """
        return SessionManager(store, provider, **options)

    def make_async_manager(self, store: Store, provider: Provider, **options: Any) -> AsyncSessionManager:
        """Return the asynchronous worker; change this as well to check an asynchronous manager of your own."""
        return AsyncSessionManager(store, provider, **options)

    # How it happens

    def _start(self) -> None:
        self._store: Any = RefusingStore(self._stores[-1], self.books)
        self._managers: dict[tuple[str, str, bool], tuple[SessionManager | Awaited, object]] = {}
        self._providers: dict[str, Provider] = {}

    def _reopened(self, store: Store) -> Store | None:
        """Return the store as another process would open it, if that can be had."""
        reopen = type(self).reopen or getattr(type(store), "reopened", None)
        return None if reopen is None else reopen(store)

    def _provider(self, name: str) -> Provider:
        if name not in self._providers:
            make = type(self).make_provider
            provider = Scripted(name, self.books) if make is None else make(name)
            self._providers[name] = Watched(provider, self.books, self._is_stored)
        return self._providers[name]

    def _manager(self, worker: str, provider: str, *, heal: bool = True) -> tuple[SessionManager | Awaited, object]:
        """Return a worker, and what tells it from all others."""
        name = (worker, provider, heal)
        if name not in self._managers:
            options: dict[str, Any] = {
                "heal": heal,
                "lease": LEASE,
                "clock": lambda: EPOCH + timedelta(seconds=self.model.now),
                "context": ContextWindow(max_messages=WINDOW),
            }
            manager: SessionManager | Awaited
            if worker == ASYNC:
                awaited = self.make_async_manager(self._store, self._provider(provider), **options)
                manager = Awaited(awaited, self._runner)
            else:
                manager = self.make_manager(self._store, self._provider(provider), **options)
            self._managers[name] = manager, object()
        return self._managers[name]

    def _is_stored(self, request: Request) -> bool:
        store = self._stores[-1]
        conversation = store.load(request.key)
        if conversation is None:
            return False
        turns = store.turns(conversation, limit=1, before=request.turn + 1)
        said = store.turn_messages(conversation, turns[0]) if turns else ()
        return [turn.number for turn in turns] == [request.turn] and bool(said) and said[0].content == request.content

    def _message(self, step: Send, worker: str, content: Content) -> None:
        with self._happens(f"{worker} worker, {shown(content)}: {step}"):
            got, due = Got(), Due()
            try:
                with self._stream(step, worker, content) as turn:
                    got.handed += islice(turn, step.take)
                got.reply = turn.reply
            except FSMError as error:
                got.error, got.reply = error, error.reply
            with due:
                due.live = self._begin(step, worker, content)
                self._read(due.live, step.take)
                if isinstance(due.live, Live):
                    self.model.leave(due.live)
            self._compare(got, due)

    def _stream(self, step: Send | Hang, worker: str, content: Content) -> Any:
        self.books.acts[len(self.model.turns) + 1] = list(step.acts)
        heal, name = (step.heal, step.idempotency_key) if isinstance(step, Send) else (True, None)
        manager, _ = self._manager(worker, step.provider, heal=heal)
        return manager.stream(self.books.key, content, idempotency_key=name)

    def _begin(self, step: Send | Hang, worker: str, content: Content) -> Live | Turn:
        heal, name = (step.heal, step.idempotency_key) if isinstance(step, Send) else (True, None)
        _, who = self._manager(worker, step.provider, heal=heal)
        return self.model.begin(who, self._provider(step.provider).name, as_blocks(content), name, heal=heal)

    def _read(self, live: Live | Turn, take: int | None) -> None:
        """Let the model follow what the provider was asked and answered in this turn."""
        handed = 0
        while isinstance(live, Live) and not live.over and (take is None or handed < take):
            due = self.model.asks(live)
            if due is not None:
                heard = self._next(live, "it was not asked")
                if not isinstance(heard, Heard):
                    self._fail([f"G11: the provider was not asked again in turn {live.turn}"])
                self._check([] if heard.stored else ["G8: the provider heard of a turn that was not stored"])
                wants = getattr(self._provider(self.model.provider), "wants_transcript", False)
                self._check(asked_differs(heard.request, due, self.model, wants_transcript=wants))
            event = self._next(live, "it was not read to its end")
            if isinstance(event, str) and event in {ENDED, RAISED}:
                self.model.breaks(live)
            if isinstance(event, Result) and event.session_id is not None:
                self._ids.add(event.session_id)
            handed += self.model.hears(live, event)

    def _next(self, live: Live, otherwise: str) -> Any:
        tape = self.books.tapes[live.turn]
        if not tape:
            self._fail([f"G11: the provider should have been asked more in turn {live.turn}: {otherwise}"])
        return tape.popleft()

    # How it is checked

    @contextmanager
    def _happens(self, what: str) -> Iterator[None]:
        self.story.append(what)
        self.model.now += 1
        try:
            yield
        except Exception as error:
            if not isinstance(error, AssertionError):
                error.add_note(self._told())
            raise

    def _compare(self, got: Got, due: Due) -> None:
        came = None if got.error is None else type(got.error).__name__
        if came != due.error:
            self._fail([f"G16: the caller gets {came or 'no error'}, not {due.error or 'none'}: {got.error}"])
        left = {turn: list(tape) for turn, tape in self.books.tapes.items() if tape}
        if left:
            self._fail([f"G11, G13: the provider was asked or read more than it must be: {left}"])
        self._check(reply_differs(got.reply, due.live, self.model))

    def _check(self, differences: Any) -> None:
        if found := list(differences):
            self._fail(found)

    def _fail(self, differences: list[str]) -> NoReturn:
        raise AssertionError("\n".join([*differences, "", self._told()]))

    def _told(self) -> str:
        lines = [f"{number}. {line}" for number, line in enumerate(self.story, 1)]
        return "\n".join(["What happened:", *lines])


def shown(content: Content) -> str:
    return repr(content) if isinstance(content, str) else f"{len(content)} blocks"


def _is_over(live: Live) -> bool:
    return live.over


@define
class Got:
    """Its outcome."""

    handed: list[Any] = Factory(list)
    reply: Reply | None = None
    error: FSMError | None = None


@define
class Due:
    """The expected outcome; as a context manager it takes the error that the model expects."""

    live: Live | Turn | None = None
    error: str | None = None

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> bool:
        if isinstance(error, Broken):
            self.error = str(error)
        return isinstance(error, Broken)
