"""The reference store: the same scripts leave the same rows as in the store for SQL databases."""

from datetime import UTC, datetime

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsm import Conflict, Conversation, InvalidInput, SessionManager, StoreError, TurnStatus
from fsm._core.effects import EndTurn, OpenSession, StartTurn, Step
from fsm.providers import DemoProvider
from fsm.testing import ReferenceStore
from persistence import SQLStore
from tests.properties.test_twins import MESSAGES, Run, sync_batch

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@given(script=MESSAGES)
def test_it_stores_the_same_rows_as_sqlite(script: list[object]) -> None:
    """Whatever happens."""
    with SQLStore("sqlite:///:memory:") as sqlite:
        runs = [Run(store, script, "k") for store in (sqlite, ReferenceStore())]
        for run in runs:
            sync_batch(run)
        assert runs[0].rows() == runs[1].rows()


@given(limit=st.none() | st.integers(0, 9), before=st.none() | st.integers(0, 9))
def test_it_reads_the_same_pages_as_sqlite(limit: int | None, before: int | None) -> None:
    """From any number on."""
    with SQLStore("sqlite:///:memory:") as sqlite:
        stores = [sqlite, ReferenceStore()]
        pages = []
        for store in stores:
            manager = SessionManager(store, DemoProvider(), clock=lambda: NOW)
            for text in ("a", "b", "c"):
                manager.send("k", text)
            pages.append(manager.conversations.messages("k", limit=limit, before=before))
        assert list(pages[0]) == list(pages[1])


def test_a_step_from_an_old_snapshot_is_a_conflict() -> None:
    """Also one of a conversation that is another now."""
    store = ReferenceStore()
    new = Conversation(key="k", id=1, created_at=NOW, updated_at=NOW)
    step = Step(new, attrs.evolve(new, version=1), ())
    store.commit(step)
    for stale in (step, Step(attrs.evolve(step.after, id=2), attrs.evolve(step.after, id=2, version=2), ())):
        with pytest.raises(Conflict):
            store.commit(stale)
    assert store.load("k") == step.after


@pytest.mark.parametrize("number", [0, 2])
def test_a_step_that_is_refused_half_way_leaves_no_trace(number: int) -> None:
    """A row that is not due, a row that is missing."""
    store = ReferenceStore()
    manager = SessionManager(store, DemoProvider())
    manager.send("k", "hello")
    before = store.load("k")
    (turn,) = store.turns(before)
    for effect in (
        StartTurn(attrs.evolve(turn, number=5)),
        EndTurn(number=number, session_number=1, status=TurnStatus.FAILED, state=before.state, last_message=1, at=NOW),
        EndTurn(number=1, session_number=1, status=TurnStatus.FAILED, state=before.state, last_message=1, at=NOW),
    ):
        with pytest.raises(StoreError):
            store.commit(Step(before, attrs.evolve(before, version=before.version + 1), (effect,)))
    assert store.load("k") == before
    assert list(store.turns(before)) == [turn]


def test_what_other_stores_leave_to_unique_indexes_is_refused() -> None:
    """A second running turn, a second turn of a name, a second open session."""
    store = ReferenceStore()
    manager = SessionManager(store, DemoProvider())
    manager.send("k", "hello", idempotency_key="i")
    before = store.load("k")
    (turn,), (session,) = store.turns(before), store.sessions(before)
    running = attrs.evolve(turn, number=2, status=TurnStatus.RUNNING, idempotency_key=None)
    for effects in (
        (StartTurn(attrs.evolve(turn, number=2)),),
        (StartTurn(running), StartTurn(attrs.evolve(running, number=3))),
        (OpenSession(attrs.evolve(session, number=2)),),
    ):
        with pytest.raises(StoreError, match="already"):
            store.commit(Step(before, attrs.evolve(before, version=before.version + 1), effects))
    assert store.load("k") == before


def test_leases_and_keys_are_found_as_in_any_store() -> None:
    """In their order, through a second store too."""
    store = ReferenceStore()
    with SessionManager(store, DemoProvider(), clock=lambda: NOW).stream("b", "hello"):
        SessionManager(store, DemoProvider()).send("a", "hello")
        again = store.reopened()
        assert [conversation.key for conversation in again.conversations()] == ["a", "b"]
        assert [conversation.key for conversation in again.conversations(after="a", limit=1)] == ["b"]
        assert [conversation.key for conversation in again.running()] == ["b"]
        assert again.running(until=NOW) == []
    conversation = store.load("a")
    for read in (
        lambda: store.messages(conversation, limit=-1),
        lambda: store.messages(conversation, before=-1),
        lambda: store.conversations(limit=-1),
        lambda: store.running(limit=-1),
    ):
        with pytest.raises(InvalidInput):
            read()
    store.close()
