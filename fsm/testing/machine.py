"""A conversation as a state machine for Hypothesis, under all events that can happen to it.

:func:`conversation_machine` makes the class. Its rules are acts of callers, workers, clocks, databases and
providers: messages read whole, in part or not at all, late results, resets, crashes, a change of provider, refused
writes. There are a second worker and an asynchronous one. After each rule the stored rows, the requests and the replies
are compared with a reference model (:mod:`fsm.testing.model`), which was written independently of the core. A failing
example is printed as a story, with the guarantee that was broken.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from itertools import islice
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from fsm.content import Content
from fsm.errors import FSMError
from fsm.provider import Provider
from fsm.store import Store
from fsm.testing import strategies
from fsm.testing.comparing import stored_differs
from fsm.testing.expected import Live
from fsm.testing.playing import ASYNC, LEASE, Due, Got, Hanging, Playing, shown
from fsm.testing.steps import Hang, RefuseWrite, Reset, Send

__all__ = ["ConversationMachine", "conversation_machine"]

WORKERS = st.sampled_from(["first", "second", ASYNC])
CONTENTS = st.one_of(st.just("hello"), strategies.contents())


class ConversationMachine(Playing):
    """One conversation and all that happens to it; made by :func:`conversation_machine`.

    Subclass it to add rules, or to change how a manager is made (:meth:`make_manager`).
    """

    # What may happen

    @rule(step=strategies.sends(), worker=WORKERS, content=CONTENTS)
    def send(self, step: Send, worker: str, content: Content) -> None:
        """Send a message and read the answer, to its end or in part, perhaps from another provider."""
        self._message(step, worker, content)

    @rule(step=strategies.named_sends(), worker=WORKERS, content=st.sampled_from(["hello", "hello", "other"]))
    def send_by_name(self, step: Send, worker: str, content: Content) -> None:
        """Send a message that may have been sent before (G13)."""
        self._message(step, worker, content)

    @rule(step=strategies.hangs(), worker=WORKERS, content=CONTENTS)
    def hang(self, step: Hang, worker: str, content: Content) -> None:
        """Begin to read an answer, and stop."""
        with self._happens(f"{worker} worker, {shown(content)}: {step}"):
            stack, got, live = ExitStack(), Got(), None
            try:
                turn = stack.enter_context(self._stream(step, worker, content))
                got.handed += islice(turn, step.take)
            except FSMError as error:
                got.error, got.reply = error, error.reply
                stack.close()
            due = Due()
            with due:
                live = due.live = self._begin(step, worker, content)
                self._read(live, step.take)
            if due.error is None and isinstance(live, Live) and not live.over:
                self._hanging.append(Hanging(stack, turn, live))
                due.live = got.reply = None
            elif due.error is None:
                got.reply = turn.reply
                stack.close()
            self._compare(got, due)

    @precondition(lambda self: self._hanging)
    @rule(which=st.integers(0, 3))
    def wake(self, which: int) -> None:
        """Let a worker that had stopped read its turn to the end; it may be late (G10)."""
        hanging = self._hanging.pop(which % len(self._hanging))
        with self._happens(f"the worker of turn {hanging.live.turn} goes on"):
            got = Got()
            try:
                with hanging.stack:
                    got.handed += hanging.turn
                got.reply = hanging.turn.reply
            except FSMError as error:
                got.error, got.reply = error, error.reply
            due = Due(hanging.live)
            with due:
                self._read(hanging.live, None)
            self._compare(got, due)

    @rule(step=st.sampled_from([Reset(), Reset(force=True)]), worker=WORKERS)
    def reset(self, step: Reset, worker: str) -> None:
        """Ask for a new session."""
        with self._happens(f"{worker} worker: {step}"):
            manager, who = self._manager(worker, "a")
            got, due = Got(), Due()
            try:
                manager.reset(self.books.key, reason="asked for", force=step.force)
            except FSMError as error:
                got.error = error
            with due:
                self.model.reset(who, self._provider("a").name, "asked for", force=step.force)
            self._compare(got, due)

    @rule(worker=WORKERS)
    def recover(self, worker: str) -> None:
        """End the abandoned turns (G9)."""
        with self._happens(f"{worker} worker: recovery"):
            manager, who = self._manager(worker, "a")
            got, due = Got(), Due()
            try:
                manager.recover()
            except FSMError as error:
                got.error = error
            with due:
                self.model.recover(who)
            self._compare(got, due)

    @rule()
    def crash(self) -> None:
        """Replace all workers; their turns keep only their leases. One worker may come back later."""
        with self._happens("all workers crash, and others take their place"):
            again = self._reopened(self._stores[-1])
            if again is not None:
                self._stores.append(again)
            self._start()

    @rule(seconds=st.sampled_from([LEASE, LEASE / 2, 1.0]))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        with self._happens(f"{seconds:g} seconds go by"):
            self.model.now += seconds

    @rule(step=strategies.refused_writes())
    def refuse_write(self, step: RefuseWrite) -> None:
        """Let the database refuse a later commit (G16)."""
        with self._happens(str(step)):
            self.books.refuse_in = self.model.refuse_in = step.nth

    @invariant()
    def stored_as_expected(self) -> None:
        """Check that the stored rows are those of the reference model."""
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
        self._runner.close()


def conversation_machine(
    make_store: Callable[[], Store],
    make_provider: Callable[[str], Provider] | None = None,
    *,
    reopen: Callable[[Store], Store] | None = None,
) -> type[ConversationMachine]:
    """Return a state machine that does to one conversation all that can happen to it, and checks the guarantees G1 to
    G16.

    Run it with ``run_state_machine_as_test`` of ``hypothesis.stateful``, or let pytest find its ``TestCase``.

    Args:
        make_store: makes a store for each example; it is closed after it. All may open one database, because each
            example uses another conversation.
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
