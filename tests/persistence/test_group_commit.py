"""Group commit: one transaction for all who come at the same time, and each gets what is its own."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from peewee import OperationalError

from fsm import Conflict, Conversation, StoreError
from fsm._core import decisions as decide
from fsm._core.effects import StartTurn, Step
from persistence import SQLStore
from persistence.group_commit import GroupCommit

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TIMEOUT = 30.0


def begin(number: int, key: str | None = None) -> Step:
    return decide.begin(
        Conversation(key=key or f"k{number}", id=number, created_at=NOW, updated_at=NOW),
        content=({"type": "text", "text": "hello"},),
        provider="p",
        owner="o",
        now=NOW,
        lease=timedelta(seconds=60),
    )


class Listening(SQLStore):
    """The real store; SQLite tells what it is asked to do."""

    def __init__(self, url: str, **options: Any) -> None:
        self.heard: list[str] = []
        super().__init__(url, **options)
        connect = self.dialect.database._connect

        def listen() -> Any:
            connection = connect()
            connection.set_trace_callback(self.heard.append)
            return connection

        self.dialect.database._connect = listen
        self.dialect.database.close()


@contextmanager
def at_once(
    group: GroupCommit, commit: Callable[[Step], None], steps: Sequence[Step]
) -> Iterator[list[Exception | None]]:
    """Commit steps in threads, in their order, all while somebody else commits; what came of each."""
    outcomes: list[Exception | None] = [None] * len(steps)

    def work(place: int) -> None:
        try:
            commit(steps[place])
        except Exception as error:  # noqa: BLE001  # it is what is looked at
            outcomes[place] = error

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(steps))]
    with group.leading:
        for number, thread in enumerate(threads, start=1):
            thread.start()
            deadline = time.monotonic() + TIMEOUT
            while group.waiting < number:
                assert time.monotonic() < deadline
                time.sleep(0.001)
    for thread in threads:
        thread.join(TIMEOUT)
    yield outcomes


def test_steps_that_come_at_once_share_a_transaction(sqlite_url: str) -> None:
    steps = [begin(number) for number in range(1, 11)]
    with Listening(sqlite_url) as store:
        assert store.transactions.group is not None
        with at_once(store.transactions.group, store.commit, steps) as outcomes:
            assert outcomes == [None] * 10
        assert store.heard.count("BEGIN IMMEDIATE") == store.heard.count("COMMIT") == 1
        assert [store.load(step.after.key) for step in steps] == [step.after for step in steps]


@pytest.mark.parametrize(
    ("durability", "begun", "ended"), [("acknowledged", 1, 2), ("strict", 2, 2), ("relaxed", 1, 1)]
)
def test_a_shared_transaction_is_synced_if_any_of_its_steps_must_be(
    sqlite_url: str, durability: Any, begun: int, ended: int
) -> None:
    """1 is NORMAL, which in WAL mode does not sync; 2 is FULL, which does."""
    with SQLStore(sqlite_url, durability=durability) as store:
        store.transactions.together([begin(1), begin(2)])
        assert store.dialect.database.pragma("synchronous") == begun
        reset = decide.reset(begin(1).after, reason="r", provider="p", now=NOW, force=True)
        assert store.transactions.together([begin(3), reset, begin(4)]) == [None] * 3
        assert store.dialect.database.pragma("synchronous") == ended


def test_a_transaction_can_be_shared_on_every_database(store: SQLStore) -> None:
    outcomes = store.transactions.together([begin(1), begin(2, key="k1"), begin(3)])
    assert [type(outcome) for outcome in outcomes] == [type(None), Conflict, type(None)]
    assert [store.load(key) for key in ("k1", "k3")] == [begin(1).after, begin(3).after]


def test_a_lone_caller_commits_as_without(sqlite_url: str) -> None:
    heard = []
    for group_commit in (True, False):
        with Listening(f"{sqlite_url}{group_commit}", group_commit=group_commit) as store:
            store.commit(begin(1))
            heard.append(store.heard)
    assert heard[0] == heard[1]
    assert not [sql for sql in heard[0] if "SAVEPOINT" in sql]


def test_a_step_that_is_refused_does_not_affect_the_others(sqlite_url: str) -> None:
    doubled = begin(3)
    doubled = Step(
        doubled.before, doubled.after, (*doubled.effects, *(one for one in doubled.effects if type(one) is StartTurn))
    )
    steps = [begin(1), begin(2, key="k1"), doubled, begin(4)]
    with Listening(sqlite_url) as store:
        assert store.transactions.group is not None
        with at_once(store.transactions.group, store.commit, steps) as outcomes:
            assert [type(outcome) for outcome in outcomes] == [type(None), Conflict, StoreError, type(None)]
        assert "conversation 'k1'" in str(outcomes[1])
        assert "conversation 'k3'" in str(outcomes[2])
        assert store.heard.count("COMMIT") == 1
        assert [conversation.key for conversation in store.conversations()] == ["k1", "k4"]
        assert store.turns(steps[0].after) == [steps[0].effects[1].turn]  # type: ignore[union-attr]


def test_a_shared_transaction_that_fails_is_done_again_one_by_one(
    sqlite_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [begin(1), begin(2, key="k1"), begin(3)]
    with SQLStore(sqlite_url) as store:
        begin_transaction, failures = store.dialect.begin, [OperationalError("the disk is full")]

        def fail_once(*, synced: bool) -> None:
            if failures:
                raise failures.pop()
            begin_transaction(synced=synced)

        monkeypatch.setattr(store.dialect, "begin", fail_once)
        assert store.transactions.group is not None
        with at_once(store.transactions.group, store.commit, steps) as outcomes:
            assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Conflict", "NoneType", "NoneType"]
        assert [conversation.key for conversation in store.conversations()] == ["k1", "k3"]
    (record,) = caplog.records
    assert (record.getMessage(), vars(record)["steps"]) == ("store.group_failed", 3)


def test_a_lone_step_that_is_refused_is_not_tried_again() -> None:
    tried: list[Step] = []

    def alone(step: Step) -> None:
        tried.append(step)
        raise Conflict("no", step.before.key)

    step = begin(1)
    with pytest.raises(Conflict, match="'k1': no"):
        GroupCommit(alone, lambda steps: []).commit(step)
    assert tried == [step]


def test_memory_has_no_use_for_it_and_a_file_may_do_without(sqlite_url: str) -> None:
    for url, group_commit in (("sqlite:///:memory:", True), (sqlite_url, False)):
        with SQLStore(url, group_commit=group_commit) as store:
            assert store.transactions.group is None
            store.commit(begin(1))
            assert store.load("k1") == begin(1).after


def test_more_than_fit_into_one_transaction_take_several(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("persistence.group_commit.MOST", 3)
    with Listening(sqlite_url) as store:
        assert store.transactions.group is not None
        with at_once(store.transactions.group, store.commit, [begin(number) for number in range(1, 8)]) as outcomes:
            assert outcomes == [None] * 7
        assert store.heard.count("COMMIT") == 3


def test_an_error_of_a_leader_is_its_own_and_those_who_follow_lead_themselves() -> None:
    committed: list[Step] = []

    def alone(step: Step) -> None:
        if step.after.key == "k1":
            raise StoreError("no", "k1")
        committed.append(step)

    group = GroupCommit(alone, lambda steps: [None for _ in steps])
    with pytest.raises(StoreError, match="no"):
        group.commit(begin(1))
    group.commit(begin(2))
    assert [step.after.key for step in committed] == ["k2"]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_process_does_not_wait_for_a_lock_that_a_thread_of_its_parent_holds(sqlite_url: str) -> None:
    with SQLStore(sqlite_url) as store:
        assert store.transactions.group is not None
        with store.transactions.group.leading:
            child = os.fork()
            if not child:
                try:
                    store.commit(begin(1))
                finally:
                    os._exit(store.load("k1") is None)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        store.commit(begin(2))
        assert [conversation.key for conversation in store.conversations()] == ["k1", "k2"]


def test_memory_and_postgresql_have_no_use_for_it(postgresql_url: str) -> None:
    for url in ("sqlite:///:memory:", postgresql_url):
        with SQLStore(url) as store:
            assert store.transactions.group is None
