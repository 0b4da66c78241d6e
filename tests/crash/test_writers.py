"""Many writers at once: each turn is acknowledged once, and a worker that lost its lease does not finish its turn."""

import signal
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fsm import ConversationBusy, SessionManager, TurnStatus
from persistence import SQLStore
from tests.crash import TORTURE
from tests.crash.audit import Curious, audit
from tests.crash.worker import Job
from tests.crash.zygote import Process, Report, Zygote, everything

WORKERS = 8
MORE = 10 if TORTURE else 1
LEASE = 0.5

linux_only = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="nothing is concluded without /proc")


def crowd(zygote: Zygote, url: str, *, role: str = "march", turns: int, **job: Any) -> list[Report]:
    """Let eight workers loose at the same moment; what they report until all have done their turns."""
    workers = [
        zygote.spawn(Job(url=url, name=f"worker {number}", seed=number, role=role, turns=turns, **job))
        for number in range(WORKERS)
    ]
    for worker in workers:
        worker.until("ready")
    for worker in workers:
        worker.order()
    return [report for _, report in everything(workers, timeout=100)]


def all_is_told_once(reports: list[Report], turns: int) -> None:
    """Each message was answered once, and heard once by a provider in each of its tries."""
    acked = [report for report in reports if report["kind"] == "acked"]
    texts = Counter(report["text"] for report in acked)
    assert texts == {f"worker {worker} {number}": 1 for worker in range(WORKERS) for number in range(turns)}
    places = Counter((report["key"], report["turn"]) for report in acked)
    assert max(places.values()) == 1
    heard = Counter(report["text"] for report in reports if report["kind"] == "heard")
    assert max(heard.values()) <= 2, "more than one retry (G11)"


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("conversations", "turns"), [(1, 20 * MORE), (80, 25 * MORE)], ids=["one", "eighty"])
def test_g5_g8_eight_processes_are_all_served_and_nothing_is_locked_or_lost(
    zygote: Zygote, url: str, conversations: int, turns: int
) -> None:
    """G5, G8: any error that reaches a worker ends it and fails this test, ``database is locked`` among them."""
    keys = [f"conversation {number}" for number in range(conversations)]
    reports = crowd(zygote, url, turns=turns, keys=keys)
    all_is_told_once(reports, turns)
    with SQLStore(url) as store:
        stored = [turn.status for conversation in store.conversations() for turn in store.turns(conversation)]
        assert len(stored) == WORKERS * turns
        assert not {TurnStatus.INTERRUPTED, TurnStatus.SUPERSEDED, TurnStatus.RUNNING} & set(stored)
        audit(store, reports)


@pytest.mark.timeout(120)
def test_eight_processes_that_open_a_new_database_at_once_find_it_migrated_once(zygote: Zygote, url: str) -> None:
    """And all begin the same first conversation (G5)."""
    reports = crowd(zygote, url, role="race", turns=2)
    all_is_told_once(reports, 2)
    with SQLStore(url) as store:
        ((migrations, names),) = store.dialect.database.execute_sql(
            "SELECT count(*), count(DISTINCT name) FROM conversation_fsm_migration"
        ).fetchall()
        assert migrations == names > 0
        audit(store, reports)


@pytest.mark.timeout(120)
def test_a_worker_that_is_killed_while_it_creates_the_tables_is_in_nobodys_way(zygote: Zygote, url: str) -> None:
    """G9, from the first moment on: each killed a little later than the one before."""
    for number in range(10):
        worker = zygote.spawn(Job(url=url, name=f"worker {number}", role="race"))
        worker.until("ready")
        worker.order()
        worker.read(number * 0.002)
        worker.kill()
    with SQLStore(url) as store:
        store.load("k")
        audit(store, [])
        assert SessionManager(store, Curious()).send("k", "hello").status is TurnStatus.SUCCEEDED


def holding(zygote: Zygote, url: str, **job: Any) -> Process:
    """A worker in the middle of a turn."""
    worker = zygote.spawn(Job(url=url, name="the first", role="hold", **job))
    assert worker.until("holding")["turn"] == 1
    return worker


@pytest.mark.timeout(60)
def test_g10_a_stopped_worker_whose_lease_is_taken_over_finishes_nothing_when_it_wakes_up(
    zygote: Zygote, url: str
) -> None:
    """G10: it is alive, so only its lease counts; its text is kept with its turn, outside the context."""
    stopped = holding(zygote, url, lease=LEASE)
    stopped.signal(signal.SIGSTOP)
    with SQLStore(url) as store:
        with pytest.raises(ConversationBusy):
            SessionManager(store, Curious()).send("k", "too early")
        reply = SessionManager(store, Curious(), on_busy="wait", busy_timeout=30).send("k", "the second")
        assert reply.turn == 2
        before = store.load("k")
        assert before is not None
        assert before.updated_at - store.turns(before)[0].started_at >= timedelta(seconds=LEASE)

        stopped.signal(signal.SIGCONT)
        stopped.order()
        ended = stopped.until("ended")
        assert stopped.reap() == 0
        assert (ended["error"], ended["text"]) == ("TurnSuperseded", "one half, the other half")

        after = store.load("k")
        assert after is not None
        same = ("state", "session_number", "session_id", "turn_count", "transition_count", "running", "provider")
        assert [getattr(after, name) for name in same] == [getattr(before, name) for name in same]
        first, second = store.turns(after)
        assert (first.status, second.status) == (TurnStatus.INTERRUPTED, TurnStatus.SUCCEEDED)
        assert [(m.turn, m.text) for m in store.messages(after)] == [
            (1, "the first"),
            (2, "the second"),
            (2, "as ever"),
            (1, "one half, the other half"),
        ]
        context = store.context(after, first_session=1, last_session=after.session_number, limit=None)
        assert [message.turn for message in context] == [2, 2]


def until_dead(pid: int) -> None:
    """Wait until a process that was killed has ended; its pipes are closed a little earlier."""
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(") ")[2][0] != "Z":
        assert time.monotonic() < deadline


@pytest.mark.timeout(60)
def test_g10_a_worker_that_wakes_up_does_not_end_the_turn_that_runs_in_its_place(zygote: Zygote, url: str) -> None:
    """G5, G10: who took over is still at it; the fence is the turn and its owner, not that there is none running."""
    stopped = holding(zygote, url, lease=LEASE)
    stopped.signal(signal.SIGSTOP)
    second = zygote.spawn(Job(url=url, name="the second", role="hold"))
    assert second.until("holding")["turn"] == 2

    stopped.signal(signal.SIGCONT)
    stopped.order()
    assert stopped.until("ended")["error"] == "TurnSuperseded"
    assert stopped.reap() == 0
    with SQLStore(url) as store:
        assert [turn.status.value for turn in store.turns(store.load("k"))] == ["interrupted", "running"]
        second.order()
        assert second.until("ended")["error"] is None
        assert second.reap() == 0
        assert [turn.status.value for turn in store.turns(store.load("k"))] == ["interrupted", "succeeded"]


@linux_only
@pytest.mark.parametrize("reaped", [True, False], ids=["reaped", "zombie"])
def test_g9_a_worker_that_was_killed_in_mid_turn_is_in_nobodys_way(zygote: Zygote, url: str, reaped: bool) -> None:
    """G9: its lease has ten minutes to go, but the process is gone, so the next turn begins at once."""
    worker = holding(zygote, url)
    if reaped:
        worker.kill()
    else:
        worker.signal(signal.SIGKILL)
        assert worker.take() is None
        until_dead(worker.pid)
    with SQLStore(url) as store:
        assert SessionManager(store, Curious()).send("k", "the second").turn == 2
        statuses = [turn.status for turn in store.turns(store.load("k"))]
        assert statuses == [TurnStatus.INTERRUPTED, TurnStatus.SUCCEEDED]
        audit(store, [])
    if not reaped:
        assert worker.reap() == -signal.SIGKILL


@pytest.mark.parametrize("by", ["send", "recover", "reset"])
def test_g9_a_worker_of_whom_nothing_is_known_is_waited_for_until_its_lease_is_over(
    zygote: Zygote, sqlite_url: str, by: str
) -> None:
    """G9: killed on another machine, as it were; the lease decides, to the second."""
    began = datetime.now(UTC)
    holding(zygote, sqlite_url, lease=600.0, owner="another-machine/12/34/56").kill()
    with SQLStore(sqlite_url) as store:
        early = SessionManager(store, Curious(), clock=lambda: began + timedelta(seconds=599))
        late = SessionManager(store, Curious(), clock=lambda: datetime.now(UTC) + timedelta(seconds=601))
        for refused in (lambda: early.send("k", "too early"), lambda: early.reset("k")):
            with pytest.raises(ConversationBusy):
                refused()
        assert early.recover() == []
        {"send": lambda: late.send("k", "the second"), "recover": late.recover, "reset": lambda: late.reset("k")}[by]()
        assert store.turns(store.load("k"))[0].status is TurnStatus.INTERRUPTED
        audit(store, [])
