"""Conformance: our own stores and providers pass, what can't be asked is skipped, and what is wrong is told."""

import functools
import itertools
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anthropic
import psycopg
import pytest

from fsm import FSMError, Store
from fsm._core.effects import Step
from fsm.providers import AnthropicMessages, DemoProvider
from fsm.testing import ConformanceError, Outcome, ReferenceStore, Report, check_provider, check_store
from fsm.testing import store_scripts as s
from fsm.testing.store_actions import TOUR, Clock, Reset
from persistence import SQLStore
from persistence.schema import TABLES
from tests.providers.messages_server import Answer, MessagesServer, message, text
from tests.testing.openers import forgetful, unopenable

open_store = functools.partial(SQLStore, durability="relaxed")


def statuses(report: Report) -> dict[str, str]:
    return {outcome.contract: outcome.status for outcome in report.outcomes}


# Our own


def test_the_reference_store_passes_all_that_can_be_asked_of_a_store_in_memory() -> None:
    """No other process can open it."""
    report = check_store(ReferenceStore)
    assert [outcome.contract for outcome in report.skipped] == ["together", "two processes", "kill -9"]
    assert len(report.passed) == 16
    assert report.subject == "ReferenceStore"


def test_the_sqlite_store_passes_everything(tmp_path: Path) -> None:
    """In files, synced as by default."""
    urls: list[str] = []

    def make_store() -> SQLStore:
        urls.append(f"sqlite:///{tmp_path}/{len(urls)}.db")
        return SQLStore(urls[-1])

    report = check_store(make_store, reopen=lambda _: functools.partial(SQLStore, urls[-1]))
    assert set(statuses(report).values()) == {"passed"}


def test_the_postgresql_store_passes_everything(postgresql_url: str) -> None:
    """In one schema, emptied each time."""
    open_store(postgresql_url).close()
    tables = ", ".join(f'"{model._meta.table_name}"' for model in TABLES)

    def make_store() -> SQLStore:
        with psycopg.connect(postgresql_url, autocommit=True) as connection:
            connection.execute(f"TRUNCATE {tables}")
        return open_store(postgresql_url)

    report = check_store(make_store, reopen=lambda _: functools.partial(open_store, postgresql_url), examples=5)
    assert set(statuses(report).values()) == {"passed"}


def test_a_store_in_sqlite_memory_passes_what_needs_no_second_store() -> None:
    """And what it skips says how to have it tried."""
    report = check_store(lambda: SQLStore("sqlite:///:memory:"), examples=5)
    assert [outcome.contract for outcome in report.skipped] == ["two processes", "reopening", "kill -9"]
    assert all("pass reopen=" in outcome.why for outcome in report.skipped)


def test_the_demo_provider_passes_everything() -> None:
    """Both ways."""
    assert set(statuses(check_provider(DemoProvider)).values()) == {"passed"}


class Answers:
    """Whatever is asked is answered, each time under another id."""

    def __init__(self) -> None:
        self.numbers = itertools.count(1)

    def get_nowait(self) -> Answer:
        return message(text("Hello there."), id=f"msg_{next(self.numbers)}")


class Messages(AnthropicMessages):
    """A provider with its own clients."""

    def __init__(self, url: str) -> None:
        options: dict[str, Any] = {"base_url": url, "api_key": "test", "max_retries": 0}
        self.client = anthropic.Anthropic(**options, http_client=anthropic.DefaultHttpxClient(trust_env=False))
        self.other = anthropic.AsyncAnthropic(**options, http_client=anthropic.DefaultAsyncHttpxClient(trust_env=False))
        super().__init__(model="m", client=self.client, async_client=self.other)

    def close(self) -> None:
        self.client.close()

    async def aclose(self) -> None:
        await self.other.close()


# The SDK leaves its generators to the loop when a stream is not read to its end.
@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
def test_the_messages_api_passes_all_that_can_be_asked_of_an_api_that_keeps_nothing() -> None:
    """Its session is the transcript, so there are no unknown ids."""
    with MessagesServer() as server:
        server.answers = Answers()  # type: ignore[assignment]
        report = check_provider(lambda: Messages(server.url))
    assert [outcome.contract for outcome in report.skipped] == ["unknown ids", "new start"]
    assert all("transcript" in outcome.why for outcome in report.skipped)


# What is found, and how it is told


class Sharing(ReferenceStore):
    """A store that takes many steps at once, and is right."""

    supports_batches = True

    def commit_many(self, steps: Sequence[Step]) -> Sequence[Exception | None]:
        return [self.outcome(step) for step in steps]

    def outcome(self, step: Step) -> Exception | None:
        try:
            self.commit(step)
        except FSMError as error:
            return error
        return None


class FailsNeighbours(Sharing):
    """One that is refused fails all that were handed over with it."""

    def commit_many(self, steps: Sequence[Step]) -> Sequence[Exception | None]:
        bad = [error for step in steps if (error := type(self)(dict(self._rows), self._lock).outcome(step))]
        return [bad[0]] * len(steps) if bad else super().commit_many(steps)


class SwallowsTheBad(Sharing):
    """One that is refused is acknowledged."""

    def outcome(self, step: Step) -> Exception | None:
        super().outcome(step)
        return None


class ForgetsTheLast(Sharing):
    """The last one of several is acknowledged and not written."""

    def commit_many(self, steps: Sequence[Step]) -> Sequence[Exception | None]:
        return (
            [*super().commit_many(steps[:-1]), *([None] * (len(steps) > 1))]
            if len(steps) > 1
            else super().commit_many(steps)
        )


def test_a_store_that_takes_many_steps_at_once_passes() -> None:
    assert statuses(check_store(Sharing, examples=3))["together"] == "passed"


@pytest.mark.parametrize("wrong", [FailsNeighbours, SwallowsTheBad, ForgetsTheLast])
def test_a_store_that_confuses_what_it_was_handed_at_once_is_caught(wrong: Any) -> None:
    """By nothing else: one at a time it does everything right."""
    report = check_store(wrong, examples=3, raise_on_failure=False)
    assert [outcome.contract for outcome in report.failed] == ["together"]


class Lies(ReferenceStore):
    """A store that forgets messages."""

    def messages(self, conversation: Any, *, limit: int | None = None, before: int | None = None) -> list[Any]:
        return []


def test_a_failure_is_raised_as_an_assertion_that_tells_the_smallest_script() -> None:
    """No test framework is needed to see it."""
    with pytest.raises(ConformanceError) as caught:
        check_store(Lies, examples=0)
    assert isinstance(caught.value, AssertionError)
    assert isinstance(caught.value, FSMError)
    first = caught.value.report.failed[0]
    assert first.script == ("turn 1 begins in 'a': 'hello'",)
    assert first.why == "messages('a') must be [message 1] and is []"
    assert str(first) in str(caught.value)


def test_the_report_can_be_had_without_an_exception() -> None:
    """As a table."""
    report = check_store(Lies, examples=0, raise_on_failure=False)
    assert report.failed
    assert statuses(report)["rows"] == "failed"
    assert f"{len(report.passed)} passed, {len(report.failed)} failed, 3 skipped" in str(report)
    assert "\nfailed   rows " in str(report)
    with pytest.raises(ConformanceError):
        report.raise_for_failure()


class Raises(ReferenceStore):
    """A store that is not finished."""

    def context(self, *_: Any, **__: Any) -> list[Any]:
        raise NotImplementedError


def test_what_a_store_raises_is_a_failure_and_not_the_end_of_the_check() -> None:
    """It is told like any other."""
    failed = {outcome.contract: outcome for outcome in check_store(Raises, examples=0, raise_on_failure=False).failed}
    assert "raised NotImplementedError" in failed["context"].why
    assert len(failed["context"].script) == 1


def test_a_store_that_can_not_be_made_fails_everything() -> None:
    """With what it raised."""

    def make_store() -> ReferenceStore:
        raise OSError("no disk")

    report = check_store(make_store, raise_on_failure=False)
    assert not report.passed
    assert {outcome.why for outcome in report.failed} == {"OSError was raised: no disk"}


class OfOneThread(ReferenceStore):
    """A store that may be used from the thread only in which it was made, like a bare sqlite3 connection."""

    def __init__(self, *rows: Any) -> None:
        super().__init__(*rows)
        import threading

        self._thread = threading.get_ident()

    def load(self, key: str) -> Any:
        import threading

        if threading.get_ident() != self._thread:
            raise RuntimeError("made in another thread")
        return super().load(key)


def test_a_store_of_one_thread_is_not_asked_to_serve_two() -> None:
    """That is a reason to skip."""
    report = check_store(OfOneThread, examples=0)
    assert "two threads" in [outcome.contract for outcome in report.skipped]


def test_a_store_that_another_process_can_not_open_is_skipped_with_the_reason() -> None:
    """The output of the process is the reason."""
    report = check_store(ReferenceStore, reopen=lambda _: unopenable, examples=0, raise_on_failure=False)
    (_, reason, *_) = [outcome.why for outcome in report.skipped]
    assert reason == "another process can't open it: OSError: not here"


def test_a_process_that_acknowledged_what_it_did_not_write_is_caught(tmp_path: Path) -> None:
    """By what is there after it was killed, and by two processes that count."""
    numbers = itertools.count()
    urls: list[str] = []

    def make_store() -> Store:
        urls.append(f"sqlite:///{tmp_path}/{next(numbers)}.db")
        return forgetful(urls[-1])

    report = check_store(
        make_store, reopen=lambda _: functools.partial(forgetful, urls[-1]), examples=0, raise_on_failure=False
    )
    failed = {outcome.contract for outcome in report.failed}
    assert {"kill -9", "two processes", "two threads"} <= failed


def test_a_provider_that_can_not_be_asked_fails() -> None:
    """It has neither way."""

    class Nothing:
        name = "nothing"

    report = check_provider(Nothing, raise_on_failure=False)
    assert [outcome.contract for outcome in report.passed] == ["name"]
    assert {outcome.why for outcome in report.failed} == {"it must have a method stream or astream, and has neither"}


def test_a_provider_with_one_way_has_no_twin() -> None:
    """Nothing to compare."""

    class Sync(DemoProvider):
        astream = None

    report = check_provider(Sync)
    assert [(outcome.contract, outcome.why) for outcome in report.skipped] == [("twins", "it has only stream")]


def test_a_provider_without_a_name_fails() -> None:
    """Or with one that changes."""
    numbers = itertools.count()
    for make in (lambda: DemoProvider(name=""), lambda: DemoProvider(name=f"demo-{next(numbers)}")):
        report = check_provider(make, raise_on_failure=False)
        assert [outcome.contract for outcome in report.failed] == ["name"]


# The parts


def test_scripts_are_made_as_small_as_they_can_be() -> None:
    """Down to the one action that matters, with nothing special about it."""
    script = [*TOUR, Reset("b"), *TOUR]
    assert s.smallest(script, lambda shorter: Reset("b") in shorter) == [Reset("b")]


def test_the_tour_meets_every_effect_and_every_status() -> None:
    """So that the fixed script alone leaves nothing out."""
    play = s.Play(ReferenceStore())
    effects, skipped = set(), []
    for action in TOUR:
        step = play.do(action)
        if step is None and not isinstance(action, Clock):
            skipped.append(action)
        effects |= {type(effect).__name__ for effect in (step.effects if step else ())}
    assert effects == {
        *("AddMessage", "BindSession", "MarkSessionDead", "CloseSession", "EndTurn"),
        *("ExtendTurn", "LogTransition", "OpenSession", "StartTurn"),
    }
    assert skipped == []
    turns = play.reference.turns(play.conversation("a"))
    assert {turn.status.value for turn in turns} == {"succeeded", "failed", "interrupted", "superseded"}


def test_a_report_can_be_pickled() -> None:
    """Between the workers of a test run."""
    report = Report(
        "Mine",
        (Outcome(contract="rows", promise="they read back", status="failed", why="they don't", script=("write",)),),
    )
    assert pickle.loads(pickle.dumps(report)) == report


def test_importing_the_kit_needs_no_test_framework() -> None:
    """Hypothesis only."""
    script = "import sys; sys.modules['pytest'] = None; import fsm.testing.mutants; print('peewee' in sys.modules)"
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, env=unmeasured)
    assert done.stdout == "False\n"
