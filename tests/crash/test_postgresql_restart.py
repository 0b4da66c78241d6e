"""PostgreSQL killed, and its connections cut, in the middle of everything: committed once, or not at all."""

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from peewee import __exception_wrapper__

from fsm import Result, SessionManager, StoreError, TextDelta, TurnStatus, TurnSuperseded
from fsm.events import EXPIRED
from fsm.manager import StreamedTurn
from fsm.providers import DemoProvider
from persistence import SQLStore
from tests.conftest import embedded_postgresql
from tests.crash import TORTURE
from tests.crash.audit import Curious, audit, check
from tests.crash.test_kill import SEED
from tests.crash.worker import PROVIDER, Job
from tests.crash.zygote import Zygote, everything

TIMEOUT = 30.0
"""For how long a store tries to reach its server."""

WORKERS, TURNS = 4, 500 if TORTURE else 50
KILLS = 30 if TORTURE else 3


class Server:
    """An embedded server that can be killed."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self.url: str = server.get_uri()

    def kill(self) -> None:
        """Without a chance to write anything: what is not on disk by now is lost."""
        self._pg_ctl("-m", "immediate", "-w", "stop")

    def start(self) -> None:
        """Start again; its database recovers from its log."""
        self._server.ensure_postgres_running()

    def restart(self) -> None:
        """Kill it, and start it again."""
        self.kill()
        self.start()

    def write_late(self) -> None:
        """Write the log of what need not be synced as late as can be, so that a kill loses as much as can be."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
        self.restart()

    def _pg_ctl(self, *arguments: str) -> None:
        subprocess.run(
            [self._server.bin_path / "pg_ctl", "-D", self._server.pgdata, *arguments],
            user=self._server.system_user,
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=60,
        )


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server that nobody else uses, and that writes its log late."""
    with embedded_postgresql() as embedded:
        server = Server(embedded)
        server.write_late()
        yield server


@pytest.fixture
def database(server: Server) -> str:
    """The URL of an empty database on that server."""
    name = f"test_{random.getrandbits(64):x}"
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return server.url.replace("/postgres?", f"/{name}?")


@pytest.mark.timeout(100 * KILLS)
@pytest.mark.parametrize("durability", ["acknowledged", "strict"])
def test_g8_g9_a_server_that_is_killed_loses_nothing_acknowledged_and_workers_go_on(
    zygote: Zygote, server: Server, database: str, durability: str
) -> None:
    """G8, G9, G16: no message is missing or stored twice; a strict store shows its callers nothing of it all.

    One that is not may tell a caller that a turn which nobody was told of has lost its place; it sends it again.
    """
    print(f"again with: CONVERSATION_FSM_SEED={SEED}", file=sys.stderr)
    chance = random.Random(SEED)
    SQLStore(database).close()
    workers = [
        zygote.spawn(
            Job(
                url=database,
                name=f"worker {number}",
                seed=number,
                turns=TURNS,
                timeout=TIMEOUT,
                keys=["a", "b", "c"],
                durability=durability,
                again=durability != "strict",
            )
        )
        for number in range(WORKERS)
    ]
    kills = sorted(chance.sample(range(1, WORKERS * TURNS * 9 // 10), KILLS))
    reports = []
    for _, report in everything(workers, timeout=60 + 10 * KILLS):
        reports.append(report)
        acknowledged = sum(each["kind"] == "acked" for each in reports)
        if kills and acknowledged >= kills[0]:
            del kills[0]
            server.restart()
    assert not kills
    acked = Counter(report["text"] for report in reports if report["kind"] == "acked")
    assert acked == {f"worker {number} {turn}": 1 for number in range(WORKERS) for turn in range(TURNS)}
    with SQLStore(database) as store:
        audit(store, [report for report in reports if report["kind"] == "acked"])
    again = sum(report["kind"] == "again" for report in reports)
    assert again <= WORKERS * KILLS
    print(f"{KILLS} kills of the server, {len(acked)} replies, all stored once; {again} messages sent again")


# What a server that was killed has forgotten: the beginning of a turn is not synced


class Fragile:
    """A provider in the middle of whose answers something happens."""

    name = PROVIDER

    def __init__(self, happens: Callable[[], object], *, after_heal: bool = False) -> None:
        self.requests: list[Any] = []
        self.happens = happens
        self._after_heal = after_heal

    def stream(self, request: Any) -> Iterator[Any]:
        """Answer; a session is dead first, if it is to be healed."""
        self.requests.append(request)
        if self._after_heal and request.session_id is not None:
            yield Result(subtype=EXPIRED, is_error=True, session_id=request.session_id)
            return
        yield TextDelta("one half")
        self.happens()
        yield TextDelta(", the other half")
        yield Result(session_id=f"f-{random.random()}")


def crashing(server: Server, store: SQLStore, before: str, then: Callable[[str], object]) -> Iterator[tuple[str, Any]]:
    """Conversations, and a provider for each in whose answer the server is killed, until that made it forget a turn.

    Args:
        server: the server.
        store: a store on it.
        before: what happens in a conversation before.
        then: done with its key in the middle of the answer, if the server has forgotten that it is running.
    """
    forgotten: list[str] = []
    for number in range(10):
        key = f"k{number}"
        if before != "nothing":
            SessionManager(store, Curious()).send(key, f"before {number}")

        def crash(key: str = key) -> None:
            server.restart()
            conversation = store.load(key)
            if conversation is None or conversation.running is None:
                forgotten.append(key)
                then(key)

        yield key, Fragile(crash, after_heal=before.endswith("session"))
        if forgotten:
            return
    raise AssertionError("the server has forgotten nothing, so this proves nothing")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("before", ["nothing", "a turn", "a turn, and a dead session"])
def test_g8_g16_a_beginning_that_the_server_forgot_is_stored_again_with_its_end(
    server: Server, database: str, before: str
) -> None:
    """G8, G16: the caller gets its reply, and all of it is stored."""
    with SQLStore(database, timeout=TIMEOUT) as store:
        reports = []
        for key, provider in crashing(server, store, before, lambda key: None):
            reply = SessionManager(store, provider).send(key, f"hello {key}")
            assert (reply.status, reply.text) == (TurnStatus.SUCCEEDED, "one half, the other half")
            assert reply.healed == before.endswith("session")
            fields = {"key": key, "turn": reply.turn, "text": f"hello {key}"}
            reports.append({"kind": "acked", **fields, "answer": reply.text, "status": "succeeded"})
        audit(store, reports)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("before", ["nothing", "a turn"])
def test_g10_g16_a_forgotten_turn_does_not_end_the_one_that_runs_in_its_place(
    server: Server, database: str, before: str
) -> None:
    """G10, G16: the other turn has the same number, owner and version, but it is another turn."""
    with SQLStore(database, timeout=TIMEOUT) as store, ExitStack() as running:
        errors: list[StoreError] = []
        managers: list[SessionManager] = []
        others: list[StreamedTurn] = []

        def take_its_place(key: str) -> None:
            others.append(running.enter_context(managers[-1].stream(key, f"in its place {key}")))

        for key, provider in crashing(server, store, before, take_its_place):
            managers.append(SessionManager(store, provider))
            try:
                managers[-1].send(key, f"hello {key}")
            except StoreError as error:
                errors.append(error)
        assert "lost the beginning" in str(errors)
        provider.happens = lambda: None
        (other,) = others
        assert [event for event in other if isinstance(event, Result)]
        assert other.reply.status is TurnStatus.SUCCEEDED
        said = [message.text for message in store.messages(store.load(key))][-2:]
        assert said == [f"in its place {key}", "one half, the other half"]
        audit(store, [])


@pytest.mark.timeout(120)
@pytest.mark.parametrize("before", ["nothing", "a turn"])
def test_g10_g16_a_forgotten_turn_whose_place_is_taken_is_told_and_leaves_no_trace(
    server: Server, database: str, before: str
) -> None:
    """G10, G16: its text is not put into somebody else's turn; the caller has it, with the error."""
    with SQLStore(database, timeout=TIMEOUT) as store:
        errors: list[StoreError] = []
        rival = SessionManager(store, Curious())
        for key, provider in crashing(server, store, before, lambda key: rival.send(key, f"in its place {key}")):
            try:
                SessionManager(store, provider).send(key, f"hello {key}")
            except StoreError as error:
                errors.append(error)
        (error,) = errors
        assert "lost the beginning" in str(error)
        assert error.reply is not None
        assert error.reply.text == "one half, the other half"
        said = [message.text for message in store.messages(store.load(key))]
        assert said == [f"before {key[1:]}", "as ever"] * (before != "nothing") + [f"in its place {key}", "as ever"]
        audit(store, [])


# Commits of unknown fate


class Cut(SQLStore):
    """The real store, whose connection the server cuts at chosen statements."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self.statements = 0
        self.cut_at: Callable[[int, str], str | None] = lambda number, sql: None
        self.meanwhile: Callable[[], object] = lambda: None
        self._url = url
        self._execute = self.dialect.database.execute_sql
        self.dialect.database.execute_sql = self._execute_or_cut
        self._transact = self.dialect.transact
        self.dialect.transact = self._transact_or_cut

    def _transact_or_cut(self, writes: Any, *, synced: bool) -> Any:
        """All statements of a step go to the server at once, so they count as one."""
        self.statements += 1
        where = self.cut_at(self.statements, "transact")
        if where == "before":
            self._cut()
        result = self._transact(writes, synced=synced)
        if where == "after":
            self._cut()
        return result

    def _execute_or_cut(self, sql: str, params: Any = None) -> Any:
        self.statements += 1
        where = self.cut_at(self.statements, sql)
        if where == "before":
            self._cut()
        result = self._execute(sql, params)
        if where == "after":
            self._cut()
            self.meanwhile()
            self._execute("SELECT 1")
        return result

    def _cut(self) -> None:
        pid = self.dialect.database.connection().info.backend_pid
        with psycopg.connect(self._url, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,))


def nth_commit(nth: int, where: str) -> Callable[[int, str], str | None]:
    """Cut the connection at the nth commit from now on, once."""
    commits = iter(range(1, 1000))
    return lambda _, sql: where if sql == "COMMIT" and next(commits) == nth else None


def healing(store: SQLStore) -> tuple[SessionManager, DemoProvider]:
    """A manager whose next turn in ``k`` heals: three commits."""
    provider = DemoProvider(name=PROVIDER)
    manager = SessionManager(store, provider)
    manager.send("k", "before")
    provider.forget()
    return manager, provider


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize("nth", [1, 2, 3], ids=["begin", "heal", "finish"])
def test_g5_g8_a_commit_whose_connection_dies_is_committed_once(postgresql_url: str, nth: int, where: str) -> None:
    """G5, G8: whether ``COMMIT`` had reached the server or not; the provider is asked no more than without."""
    with Cut(postgresql_url) as store:
        manager, provider = healing(store)
        store.cut_at = nth_commit(nth, where)
        reply = manager.send("k", "hello")
        assert (reply.turn, reply.healed, reply.status) == (2, True, TurnStatus.SUCCEEDED)
        assert len(provider.requests) == 3
        assert [turn.number for turn in store.turns(store.load("k"))] == [1, 2]
        fields = {"key": "k", "turn": 2, "text": "hello"}
        audit(store, [{"kind": "acked", **fields, "answer": reply.text, "status": "succeeded"}])


@pytest.mark.parametrize("where", ["before", "after"])
def test_g5_g8_the_first_commit_of_all_is_committed_once(postgresql_url: str, where: str) -> None:
    """G5, G8: there is no version yet that could be read back."""
    with Cut(postgresql_url) as store:
        store.cut_at = nth_commit(1, where)
        reply = SessionManager(store, Curious()).send("k", "hello")
        assert (reply.turn, reply.status) == (1, TurnStatus.SUCCEEDED)
        audit(store, [])


@pytest.mark.parametrize("where", ["before", "after"])
def test_g8_a_connection_may_die_before_or_after_any_statement_of_a_turn(postgresql_url: str, where: str) -> None:
    """G8: at each statement in turn, reads and writes, the turn heals and is stored once."""
    with Cut(postgresql_url) as store:
        nth, cuts = 1, 0
        while cuts == nth - 1:
            manager, provider = healing(store)
            first, asked = store.statements, len(provider.requests)
            store.cut_at = lambda number, _, at=first + nth: where if number == at else None
            reply = manager.send("k", f"hello {nth}")
            cuts += store.statements >= first + nth
            store.cut_at = lambda number, sql: None
            assert (reply.healed, reply.status, len(provider.requests)) == (True, TurnStatus.SUCCEEDED, asked + 2)
            nth += 1
        assert cuts >= 9
        for conversation in store.conversations():
            check(store, conversation)
        said = Counter(message.text for message in store.messages(store.load("k")))
        assert all(said[f"hello {number}"] == 1 for number in range(1, nth))


@pytest.mark.parametrize("nth", [1, 3], ids=["begin", "finish"])
def test_g5_g8_a_commit_of_unknown_fate_that_was_overtaken_is_found_by_its_rows(postgresql_url: str, nth: int) -> None:
    """G5, G8: the version is a later one by now, so what it wrote is looked for."""
    with Cut(postgresql_url) as store, SQLStore(postgresql_url) as other:
        manager, _ = healing(store)
        overtaking = SessionManager(other, Curious())

        def overtake() -> None:
            overtaking.reset("k", reason="in its way", force=True)
            overtaking.send("k", "overtaking")

        store.cut_at, store.meanwhile = nth_commit(nth, "after"), overtake
        if nth == 1:
            with pytest.raises(TurnSuperseded):
                manager.send("k", "hello")
        else:
            assert manager.send("k", "hello").status is TurnStatus.SUCCEEDED
        said = [(turn.number, turn.status.value) for turn in store.turns(store.load("k"))]
        assert said == [(1, "succeeded"), (2, "superseded" if nth == 1 else "succeeded"), (3, "succeeded")]
        audit(store, [])


SLOW_COMMIT = """
CREATE FUNCTION wait_for_it() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_advisory_xact_lock_shared(4711); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER slow AFTER INSERT OR UPDATE ON conversation
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait_for_it();
"""


class Unheard(SQLStore):
    """The real store; on its way to a ``COMMIT`` that takes long, the connection is lost to the client only."""

    unheard = False

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._execute = self.dialect.database.execute_sql
        self.dialect.database.execute_sql = self._execute_unheard

    def _execute_unheard(self, sql: str, params: Any = None) -> Any:
        if sql != "COMMIT" or not self.unheard:
            return self._execute(sql, params)
        self.unheard = False
        connection = self.dialect.database.connection()
        connection.pgconn.send_query(b"COMMIT")
        connection.pgconn.flush()
        connection.close()
        with __exception_wrapper__:
            raise psycopg.OperationalError("the network is down")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("before", ["nothing", "a turn"])
def test_g5_g8_a_commit_that_is_still_under_way_when_it_is_looked_for_is_committed_once(
    postgresql_url: str, before: str
) -> None:
    """G5, G8: the client's connection is dead, but the server is still at its ``COMMIT`` and succeeds in the end."""
    with Unheard(postgresql_url, timeout=TIMEOUT) as store, psycopg.connect(postgresql_url, autocommit=True) as other:
        if before != "nothing":
            SessionManager(store, Curious()).send("k", "before")
        other.execute(SLOW_COMMIT)
        other.execute("SELECT pg_advisory_lock(4711)")
        store.unheard = True
        replies: list[Any] = []
        sending = threading.Thread(
            target=lambda: replies.append(SessionManager(store, Curious()).send("k", "hello")), daemon=True
        )
        sending.start()
        until_blocked(other, 2)
        other.execute("SELECT pg_advisory_unlock(4711)")
        sending.join(TIMEOUT)
        assert [reply.status for reply in replies] == [TurnStatus.SUCCEEDED]
        said = [message.text for message in store.messages(store.load("k")) if message.role == "user"]
        assert said == ["before"] * (before != "nothing") + ["hello"]
        audit(store, [])


def until_blocked(connection: Any, backends: int) -> None:
    """Wait until so many wait for a lock: the commit that is under way, and the one that tries again."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        ((blocked,),) = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE cardinality(pg_blocking_pids(pid)) > 0"
        ).fetchall()
        if blocked >= backends:
            return
    raise TimeoutError(f"{blocked} blocked, {backends} expected")
