"""The auditor can fail: whatever is tampered with, it finds it."""

import pytest

from fsm import SessionManager
from fsm.providers import DemoProvider
from fsm.testing import TraceError
from persistence import SQLStore
from tests.crash.audit import Report, audit
from tests.crash.worker import PROVIDER


def told(store: SQLStore) -> list[Report]:
    """Three turns and a heal, and what a worker would report of them."""
    reports: list[Report] = []
    provider = DemoProvider(name=PROVIDER)
    manager = SessionManager(store, provider)
    for text in ("one", "two", "three"):
        reply = manager.send("k", text)
        fields = {"key": "k", "turn": reply.turn, "text": text}
        reports.append({"kind": "heard", **fields})
        reports.append({"kind": "acked", **fields, "answer": reply.text, "status": reply.status.value})
        provider.forget()
    return reports


def test_what_is_as_it_should_be_passes(sqlite_url: str) -> None:
    """G1 to G9."""
    with SQLStore(sqlite_url) as store:
        reports = told(store)
        stories = audit(store, reports)
        assert [message.text for message in stories["k"][::2]][:3] == ["one", "two", "three"]
        audit(store, reports, stories)


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("DELETE FROM message WHERE number = 6", "G5"),
        ("DELETE FROM message WHERE number = 3", "G5"),
        ("DELETE FROM turn WHERE number = 2", "G5"),
        ("UPDATE turn SET status = 'failed' WHERE number = 3", "G6"),
        ("UPDATE turn SET first_message = 4 WHERE number = 2", "G5"),
        ("UPDATE message SET content = replace(content, 'two', 'too') WHERE number = 3", "G8"),
        ("UPDATE message SET content = replace(content, 'said', 'sang') WHERE number = 4", "G8"),
        ("UPDATE message SET role = 'assistant' WHERE number = 1", "G5"),
        ("UPDATE session SET parent = 1 WHERE number = 3", "G7"),
        ("UPDATE session SET session_id = 'other' WHERE closed_at IS NULL", "G6"),
        ("UPDATE conversation SET session_id = 'demo-k-1'", "G6"),
        ("UPDATE conversation SET turn_count = 4", "G5"),
        ("DELETE FROM transition WHERE number = 2", "G5"),
        ("UPDATE transition SET source = 'fresh' WHERE number = 2", "G6"),
        ("UPDATE transition SET version = 99 WHERE number = 2", "G6"),
        ("UPDATE transition SET session_id = 'demo-k-1' WHERE number = 4", "G2"),
    ],
)
def test_what_was_tampered_with_is_found(sqlite_url: str, sql: str, found: str) -> None:
    with SQLStore(sqlite_url) as store:
        reports = told(store)
        store.dialect.database.execute_sql("PRAGMA foreign_keys = 0")
        assert store.dialect.database.execute_sql(sql).rowcount == 1
        with pytest.raises((AssertionError, TraceError), match=found):
            audit(store, reports)


def test_a_whole_turn_that_is_missing_is_found(sqlite_url: str) -> None:
    """G8, although all that is left is in order."""
    with SQLStore(sqlite_url) as store:
        reports = told(store)
        with pytest.raises(AssertionError, match="G8"):
            audit(store, [*reports, {**reports[-1], "turn": 4}])


def test_a_message_that_is_stored_twice_is_found(sqlite_url: str) -> None:
    with SQLStore(sqlite_url) as store:
        told(store)
        with pytest.raises(AssertionError, match="twice"):
            audit(store, told(store))
