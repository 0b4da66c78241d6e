"""The conversation machine: it passes on every store, and tells a story when a store or the core is wrong."""

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from fsm import AsyncSessionManager, Conversation, Result, SessionManager, State, Store, TextDelta
from fsm._core import decisions as decide
from fsm._core.effects import AddMessage, EndTurn, LogTransition, MarkSessionDead, Step
from fsm._core.turn import RunningTurn
from fsm.events import EXPIRED
from fsm.providers import DemoProvider
from fsm.testing import ConversationMachine, ReferenceStore, conversation_machine
from fsm.testing.steps import Act, Hang, RefuseWrite, Reset, Send
from persistence import SQLStore


def run(machine: type, share: float = 1.0, **options: Any) -> None:
    """Run a machine; a share of the examples that the profile says."""
    most = max(10, int(settings().max_examples * share))
    run_state_machine_as_test(machine, settings=settings(max_examples=most, stateful_step_count=25, **options))


def test_the_reference_store_keeps_every_guarantee() -> None:
    """G1 to G16, with a provider that does anything, right and wrong."""
    run(conversation_machine(ReferenceStore), 0.6)


def test_the_store_for_sqlite_keeps_every_guarantee(sqlite_url: str) -> None:
    """G1 to G16; after a crash the file is opened again."""
    run(conversation_machine(lambda: SQLStore(sqlite_url), reopen=lambda _: SQLStore(sqlite_url)), 0.25)


def test_the_store_for_postgresql_keeps_every_guarantee(postgresql_url: str) -> None:
    """G1 to G16; all examples share a store, so each has another conversation."""

    class Open(SQLStore):
        def close(self) -> None:
            """Only at the end."""

    store = Open(postgresql_url, durability="relaxed")
    run(conversation_machine(lambda: store), 0.1)
    SQLStore.close(store)


def test_any_provider_can_be_watched() -> None:
    """A provider that records its answers, and whose sessions die with each crash."""
    run(conversation_machine(ReferenceStore, lambda name: DemoProvider(name=name)), 0.3)


def test_a_provider_that_wants_the_transcript_is_told_it() -> None:
    """Its requests resume with messages; they are not compared with those of a new session."""

    class Keeping(DemoProvider):
        wants_transcript = True

    run(conversation_machine(ReferenceStore, lambda name: Keeping(name=name)), 0.1)


class Changed(ReferenceStore):
    """A reference store that writes something else than it is given."""

    def commit(self, step: Step) -> None:
        effects = tuple(change for effect in step.effects for change in self.change(effect))
        super().commit(self.whole(attrs.evolve(step, effects=effects)))

    def change(self, effect: Any) -> Iterator[Any]:
        """The step that is written instead."""
        yield effect

    def whole(self, step: Step) -> Step:
        """The step that is written instead."""
        return step


class ForgetsTheDead(Changed):
    """Remembers no dead id."""

    def change(self, effect: Any) -> Iterator[Any]:
        if not isinstance(effect, MarkSessionDead):
            yield effect


class StoresTheIdFromTheError(Changed):
    """The bug of dozens of projects."""

    def whole(self, step: Step) -> Step:
        for effect in step.effects:
            if isinstance(effect, EndTurn) and effect.result and effect.result.subtype == EXPIRED:
                after = attrs.evolve(step.after, state=State.ACTIVE, session_id=effect.result.session_id)
                return attrs.evolve(step, after=after)
        return step


class LosesTheReason(Changed):
    """The log does not say why."""

    def change(self, effect: Any) -> Iterator[Any]:
        if isinstance(effect, LogTransition):
            effect = LogTransition(attrs.evolve(effect.transition, reason=None))
        yield effect


class GarblesAnswers(Changed):
    """Stores the last block of a message only."""

    def change(self, effect: Any) -> Iterator[Any]:
        if isinstance(effect, AddMessage):
            effect = AddMessage(attrs.evolve(effect.message, content=effect.message.content[-1:]))
        yield effect


class SwallowsWrites(ReferenceStore):
    """Acknowledges the end of each second turn without writing it."""

    def commit(self, step: Step) -> None:
        if not any(isinstance(effect, EndTurn) and effect.number % 2 == 0 for effect in step.effects):
            super().commit(step)


class LosesEverythingInACrash(ReferenceStore):
    """Nothing is there any more when it is opened again."""

    def reopened(self) -> ReferenceStore:
        return ReferenceStore()


@pytest.mark.parametrize(
    ("store", "cited"),
    [
        (ForgetsTheDead, "G2"),
        (StoresTheIdFromTheError, "G1"),
        (LosesTheReason, "G6"),
        (GarblesAnswers, "G"),
        (SwallowsWrites, "G"),
        (LosesEverythingInACrash, "G"),
    ],
)
def test_a_broken_store_is_caught(store: type[Store], cited: str) -> None:
    """And the failure cites the guarantee and tells what happened."""
    told = failure(lambda: conversation_machine(store))
    assert cited in told
    assert "What happened:\n1. " in told


def failure(make: Callable[[], type]) -> str:
    """How a machine fails; it is not shrunk, for want of time."""
    with pytest.raises(Exception) as caught:  # noqa: PT011  # an assertion, or a note on what came up instead
        run_state_machine_as_test(
            make(),
            settings=settings(
                max_examples=1000,
                derandomize=True,
                database=None,
                phases=[Phase.generate],
                report_multiple_bugs=False,
                print_blob=False,
            ),
        )
    return "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])


def adopts_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead id is adopted again when it is echoed (G2)."""
    finish = decide.finish
    monkeypatch.setattr(decide, "finish", lambda *args, **named: finish(*args, **{**named, "dead": frozenset()}))


def heals_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Healing is not bounded (G11)."""
    monkeypatch.setattr(
        RunningTurn, "should_heal", property(lambda self: self.result is not None and self.result.subtype == EXPIRED)
    )


def never_heals(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead id costs the caller an answer."""
    monkeypatch.setattr(RunningTurn, "should_heal", False)


def forgets_who_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that comes back late asks for a session that is dead by now (G2)."""

    monkeypatch.setattr("fsm._runtime.turn_runner.UNASKED", timedelta(days=1))


def tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model wakes up with no memory (G3)."""
    monkeypatch.setattr("fsm._runtime.requests.rebuild", lambda *_: ())


def drops_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """The result of a tool is lost with the turn that brought it (G23)."""
    monkeypatch.setattr("fsm._runtime.requests.with_results", lambda told, *_: tuple(told))


def keeps_the_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session of one provider is resumed at another (G15)."""
    begin = decide.begin

    def begin_anywhere(conversation: Conversation, **named: Any) -> Step:
        return begin(conversation, **{**named, "provider": conversation.provider or named["provider"]})

    monkeypatch.setattr(decide, "begin", begin_anywhere)


@pytest.mark.parametrize(
    ("damage", "cited"),
    [
        (adopts_anything, "G2"),
        (heals_always, "G"),
        (never_heals, "G"),
        (forgets_who_holds_it, "G"),
        (tells_nothing, "G3"),
        (drops_results, "G3"),
        (keeps_the_provider, "G"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_broken_core_is_caught(monkeypatch: pytest.MonkeyPatch, damage: Any, cited: str) -> None:
    """One decision is patched at a time."""
    damage(monkeypatch)
    assert cited in failure(lambda: conversation_machine(ReferenceStore))


def test_a_failing_example_shrinks_to_a_story() -> None:
    """As few steps as it takes, each a sentence."""
    with pytest.raises(AssertionError) as caught:
        run_state_machine_as_test(
            conversation_machine(LosesTheReason),
            settings=settings(database=None, max_examples=100, phases=[Phase.generate, Phase.shrink]),
        )
    story = str(caught.value).partition("What happened:\n")[2].splitlines()
    assert [sentence.partition(". ")[0] for sentence in story] == ["1", "2", "3"][: len(story)]
    assert any(re.match(r"\d\. .*: a message.*; \w answers: \w+", sentence) for sentence in story)


WELL = Act((TextDelta("well"), Result(session_id="s-1")))
DEAD = Act((Result(subtype=EXPIRED, is_error=True, session_id="s-1"),))


@pytest.fixture
def played() -> Iterator[ConversationMachine]:
    """A machine for examples that were found once, to be played again."""
    machine = conversation_machine(ReferenceStore)()
    yield machine
    machine.stored_as_expected()
    machine.teardown()


def test_a_worker_that_comes_back_late_does_not_ask_for_a_dead_session(played: ConversationMachine) -> None:
    """G2: it had begun a turn, not asked yet, and lost its lease; meanwhile the session was found dead."""
    played.send(step=Send((WELL,)), worker="first", content="hello")
    played.hang(step=Hang((WELL,), take=0), worker="first", content="hello")
    played.wait(seconds=60.0)
    played.send(step=Send((DEAD, Act((Result(session_id="s-2"),)))), worker="second", content="hello")
    played.wake(which=0)
    assert [len(tape) for tape in played.books.tapes.values()] == [0, 0]
    assert played.model.held == "s-2"


def test_a_late_answer_that_can_not_be_kept_is_handed_to_the_caller_with_the_error(
    played: ConversationMachine,
) -> None:
    """G16, for a turn that a reset had ended before (G10)."""
    played.hang(step=Hang((WELL,), take=1), worker="first", content="hello")
    played.reset(step=Reset(force=True), worker="second")
    played.refuse_write(step=RefuseWrite(1))
    played.wake(which=0)


def test_a_turn_that_said_nothing_does_not_claim_the_late_message_of_another(played: ConversationMachine) -> None:
    """G5: the newest message of the conversation is not always the last one of the turn that ends."""
    played.hang(step=Hang((WELL,), take=1), worker="first", content="hello")
    played.reset(step=Reset(force=True), worker="first")
    played.hang(step=Hang((WELL,), take=0), worker="second", content="hello")
    played.wake(which=0)
    played.wait(seconds=60.0)
    played.recover(worker="first")


def test_a_subclass_may_check_a_manager_of_its_own() -> None:
    """By its own `make_manager`."""

    class Shouting(SessionManager):
        def stream(self, key: str, content: Any, **named: Any) -> Any:
            return super().stream(key, content.upper() if isinstance(content, str) else content, **named)

    class Machine(conversation_machine(ReferenceStore)):  # type: ignore[misc]
        def make_manager(self, store: Any, provider: Any, **options: Any) -> SessionManager:
            return Shouting(store, provider, **options)

    assert "G8" in failure(lambda: Machine)


def test_an_asynchronous_manager_that_stores_something_else_is_caught() -> None:
    """G12: here it does not heal."""

    class Machine(conversation_machine(ReferenceStore)):  # type: ignore[misc]
        def make_async_manager(self, store: Any, provider: Any, **options: Any) -> AsyncSessionManager:
            return AsyncSessionManager(store, provider, **{**options, "heal": False})

    machine = Machine()
    machine.send(step=Send((WELL,)), worker="first", content="hello")
    with pytest.raises(AssertionError, match="asynchronous worker"):
        machine.send(step=Send((DEAD, WELL)), worker="asynchronous", content="hello")
    machine.teardown()


def test_the_model_shares_no_code_with_the_core() -> None:
    """It would share its mistakes."""
    for name in ("model.py", "expected.py"):
        text = (Path(decide.__file__).parent.parent / "testing" / name).read_text()
        assert "fsm._core" not in text
        assert "fsm._runtime" not in text
