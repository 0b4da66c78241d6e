"""A conversation under everything that can happen to it, as a state machine for Hypothesis.

:func:`conversation_machine` makes the class. Its rules are what callers, workers, clocks, databases and providers do:
messages read whole, in part or not at all, late results, resets, crashes, a second worker, a change of provider,
refused writes. After each of them, what the store holds, what the provider was asked and what the caller got is
compared with a reference model (:mod:`fsm.testing.model`) that was written independently of the core. It promises
that an example which fails is told as a story, with the guarantee that was broken.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, ClassVar, NoReturn

from attrs import Factory, define
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fsm.content import Content, as_blocks
from fsm.context import ContextWindow
from fsm.errors import FSMError
from fsm.manager import SessionManager
from fsm.provider import Provider, Request
from fsm.results import Result
from fsm.store import Store
from fsm.testing import strategies
from fsm.testing.comparing import asked_differs, reply_differs, stored_differs
from fsm.testing.expected import Broken, Live, Turn
from fsm.testing.model import Model
from fsm.testing.steps import Hang, RefuseWrite, Reset, Send
from fsm.testing.watching import ENDED, RAISED, Books, Heard, RefusingStore, Scripted, Watched
from fsm.turn import Reply

__all__ = ["ConversationMachine", "conversation_machine"]

LEASE = 60.0
"""The lease of every turn, in seconds."""

WINDOW = 8
"""How many messages a new session is told at most."""

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)

WORKERS = st.sampled_from(["first", "second"])
CONTENTS = st.one_of(st.just("hello"), strategies.contents())
TAKES = st.integers(0, 3)


@define(eq=False)
class _Hanging:
    """A turn that a worker has begun and does not read on."""

    stack: ExitStack
    turn: Any
    live: Live


class ConversationMachine(RuleBasedStateMachine):
    """One conversation and all that happens to it; made by :func:`conversation_machine`.

    Subclass it to add rules, or to change how a manager is made (:meth:`make_manager`).
    """

    make_store: ClassVar[Callable[[], Store]]
    make_provider: ClassVar[Callable[[str], Provider] | None] = None
    reopen: ClassVar[Callable[[Store], Store] | None] = None

    def __init__(self) -> None:
        super().__init__()
        self.books = Books(f"conversation {secrets.token_hex(8)}")
        self.model = Model(LEASE, WINDOW)
        self.story: list[str] = []
        self._stores = [type(self).make_store()]
        self._hanging: list[_Hanging] = []
        self._ids: set[str] = set()
        self._start()

    def make_manager(self, store: Store, provider: Provider, **options: Any) -> SessionManager:
        """A worker; change this to check a manager of your own.

        Args:
            store: where the conversation is kept.
            provider: the AI.
            options: the arguments of :class:`fsm.SessionManager` that the machine relies on.
        """
        return SessionManager(store, provider, **options)

    # What may happen

    @rule(step=strategies.sends(), worker=WORKERS, content=CONTENTS)
    def send(self, step: Send, worker: str, content: Content) -> None:
        """Somebody sends a message and reads the answer, to its end or in part; another provider may be asked."""
        self._message(step, worker, content)

    @rule(step=strategies.named_sends(), worker=WORKERS, content=st.sampled_from(["hello", "hello", "other"]))
    def send_by_name(self, step: Send, worker: str, content: Content) -> None:
        """Somebody sends a message that may have been sent before (G13)."""
        self._message(step, worker, content)

    @rule(step=strategies.hangs(), worker=WORKERS, content=CONTENTS)
    def hang(self, step: Hang, worker: str, content: Content) -> None:
        """A worker begins to read an answer, and stops."""
        with self._happens(f"{worker} worker: {step}"):
            stack, got, live = ExitStack(), _Got(), None
            try:
                turn = stack.enter_context(self._stream(step, worker, content))
                got.handed += islice(turn, step.take)
            except FSMError as error:
                got.error, got.reply = error, error.reply
                stack.close()
            due = _Due()
            with due:
                live = due.live = self._begin(step, worker, content)
                self._read(live, step.take)
            if due.error is None and isinstance(live, Live) and not live.over:
                self._hanging.append(_Hanging(stack, turn, live))
                due.live = got.reply = None
            elif due.error is None:
                got.reply = turn.reply
                stack.close()
            self._compare(got, due)

    @precondition(lambda self: self._hanging)
    @rule(which=st.integers(0, 3))
    def wake(self, which: int) -> None:
        """A worker that had stopped reads its turn to the end; it may be late (G10)."""
        hanging = self._hanging.pop(which % len(self._hanging))
        with self._happens(f"the worker of turn {hanging.live.turn} goes on"):
            got = _Got()
            try:
                with hanging.stack:
                    got.handed += hanging.turn
                got.reply = hanging.turn.reply
            except FSMError as error:
                got.error, got.reply = error, error.reply
            due = _Due(hanging.live)
            with due:
                self._read(hanging.live, None)
            self._compare(got, due)

    @rule(step=st.sampled_from([Reset(), Reset(force=True)]), worker=WORKERS)
    def reset(self, step: Reset, worker: str) -> None:
        """Somebody asks for a new session."""
        with self._happens(f"{worker} worker: {step}"):
            manager, who = self._manager(worker, "a")
            got, due = _Got(), _Due()
            try:
                manager.reset(self.books.key, reason="asked for", force=step.force)
            except FSMError as error:
                got.error = error
            with due:
                self.model.reset(who, self._provider("a").name, "asked for", force=step.force)
            self._compare(got, due)

    @rule(worker=WORKERS)
    def recover(self, worker: str) -> None:
        """A worker ends the turns that nobody runs any more (G9)."""
        with self._happens(f"{worker} worker: recovery"):
            manager, who = self._manager(worker, "a")
            got, due = _Got(), _Due()
            try:
                manager.recover()
            except FSMError as error:
                got.error = error
            with due:
                self.model.recover(who)
            self._compare(got, due)

    @rule()
    def crash(self) -> None:
        """All workers are replaced; what they were doing is known only by its lease. One may come back later."""
        with self._happens("all workers crash, and others take their place"):
            again = self._reopened(self._stores[-1])
            if again is not None:
                self._stores.append(again)
            self._start()

    @rule(seconds=st.sampled_from([LEASE, LEASE / 2, 1.0]))
    def wait(self, seconds: float) -> None:
        """Time goes by."""
        with self._happens(f"{seconds:g} seconds go by"):
            self.model.now += seconds

    @rule(step=strategies.refused_writes())
    def refuse_write(self, step: RefuseWrite) -> None:
        """The database is going to refuse a commit (G16)."""
        with self._happens(str(step)):
            self.books.refuse_in = self.model.refuse_in = step.nth

    @invariant()
    def stored_as_expected(self) -> None:
        """What is stored is what the reference model says."""
        self._check(stored_differs(self._stores[-1], self.books.key, self.model, sorted(self._ids)))

    def teardown(self) -> None:
        """Let go of what hangs, and close the stores."""
        self.books.refuse_in = 0
        for hanging in self._hanging:
            with suppress(FSMError), hanging.stack:
                pass
        for store in self._stores:
            close = getattr(store, "close", None)
            if close is not None:
                close()

    # How it happens

    def _start(self) -> None:
        self._store: Any = RefusingStore(self._stores[-1], self.books)
        self._managers: dict[tuple[str, str, bool], tuple[SessionManager, object]] = {}
        self._providers: dict[str, Provider] = {}

    def _reopened(self, store: Store) -> Store | None:
        """The store as another process would open it, if that can be had."""
        reopen = type(self).reopen or getattr(type(store), "reopened", None)
        return None if reopen is None else reopen(store)

    def _provider(self, name: str) -> Provider:
        if name not in self._providers:
            make = type(self).make_provider
            provider = Scripted(name, self.books) if make is None else make(name)
            self._providers[name] = Watched(provider, self.books, self._is_stored)
        return self._providers[name]

    def _manager(self, worker: str, provider: str, *, heal: bool = True) -> tuple[SessionManager, object]:
        """A worker, and what tells it from all others."""
        name = (worker, provider, heal)
        if name not in self._managers:
            manager = self.make_manager(
                self._store,
                self._provider(provider),
                heal=heal,
                lease=LEASE,
                clock=lambda: EPOCH + timedelta(seconds=self.model.now),
                context=ContextWindow(max_messages=WINDOW),
            )
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
        with self._happens(f"{worker} worker: {step}"):
            got, due = _Got(), _Due()
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
            if _is_over(live) and self._next(live, "it was not read to its end") != ENDED:
                self.model.breaks(live)

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

    def _compare(self, got: _Got, due: _Due) -> None:
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


def _is_over(live: Live) -> bool:
    return live.over


@define
class _Got:
    """What came of it."""

    handed: list[Any] = Factory(list)
    reply: Reply | None = None
    error: FSMError | None = None


@define
class _Due:
    """What must come of it; as a context, it takes the error that the model says must come up."""

    live: Live | Turn | None = None
    error: str | None = None

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> bool:
        if isinstance(error, Broken):
            self.error = str(error)
        return isinstance(error, Broken)


def conversation_machine(
    make_store: Callable[[], Store],
    make_provider: Callable[[str], Provider] | None = None,
    *,
    reopen: Callable[[Store], Store] | None = None,
) -> type[ConversationMachine]:
    """A state machine that does to one conversation all that can happen to it, and checks the guarantees G1 to G16.

    Run it with ``run_state_machine_as_test`` of ``hypothesis.stateful``, or let pytest find its ``TestCase``.

    Args:
        make_store: makes a store for each example; it is closed after it. All may open one database: each example uses
            a conversation of its own.
        make_provider: makes a provider of this name, for each name and after each crash. By default a provider
            that does what Hypothesis makes up, right and wrong.
        reopen: opens a store again, as another process would after a crash. By default what a store's own method
            ``reopened`` returns, and else the same store.

    Returns:
        The class.

    >>> from hypothesis import settings
    >>> from hypothesis.stateful import run_state_machine_as_test
    >>> from fsm.testing import ReferenceStore
    >>> machine = conversation_machine(ReferenceStore)
    >>> run_state_machine_as_test(machine, settings=settings(max_examples=5, database=None))
    """
    attributes: dict[str, Any] = {"__doc__": ConversationMachine.__doc__, "__module__": __name__}
    for name, function in (("make_store", make_store), ("make_provider", make_provider), ("reopen", reopen)):
        attributes[name] = None if function is None else staticmethod(function)
    return type("ConversationMachine", (ConversationMachine,), attributes)
