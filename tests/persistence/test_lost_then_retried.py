"""A commit whose connection was lost and whose next attempts fail for another reason is still read, never guessed.

PostgreSQL is real: a relay forwards a COMMIT and cuts the connection before its answer comes back; a trigger raises
a serialization failure in the attempt after that.
"""

import socket
import tempfile
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from peewee import OperationalError

from fsm import Conflict, Conversation, SessionManager, TurnStatus
from fsm._core.effects import Step
from fsm.providers import DemoProvider
from persistence import SQLStore
from tests.persistence.test_lost_connection import STEPS, Losing, good, later
from tests.persistence.test_store import begin, committed, everything

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(120)]


# SQLite, told to fail as a server would


class Failing(Losing):
    """Loses its connection at a COMMIT, and is told to try again in the attempts after that."""

    retried = 0

    def connect(self, url: str) -> Any:
        dialect: Any = super().connect(url)
        begins, may_retry = dialect.begin, dialect.may_retry

        def begin_or_fail(*, synced: bool) -> None:
            if self.was_lost and self.retried:
                self.retried -= 1
                raise OperationalError("serialization failure")
            begins(synced=synced)

        dialect.begin = begin_or_fail
        dialect.may_retry = lambda error: "serialization" in str(error) or may_retry(error)
        return dialect

    was_lost = False

    def meanwhile(self) -> None:  # type: ignore[override]
        self.was_lost = True


@pytest.mark.parametrize("retries", [1, 3])
@pytest.mark.parametrize("lost", ["before", "after"])
@pytest.mark.parametrize(("past", "make"), STEPS.values(), ids=STEPS)
def test_a_step_is_stored_once_if_it_is_tried_again_after_its_connection_was_lost(
    sqlite_url: str, past: list[Any], make: Callable[[Conversation], Step], lost: str, retries: int
) -> None:
    with Failing(sqlite_url) as store:
        step = make(committed(store, *past))
        store.lost, store.retried = lost, retries
        store.commit(step)
        assert (store.lost, store.retried) == (None, 0)
        assert store.load("k") == step.after
    assert len(everything(sqlite_url)["message"]) == step.after.message_count


def test_a_step_that_was_not_stored_and_was_overtaken_is_a_conflict_after_the_retries(sqlite_url: str) -> None:
    with Failing(sqlite_url) as store, SQLStore(sqlite_url) as other:
        before = committed(store, begin)
        theirs = later(good(before, "something else"))

        def overtaken() -> None:
            store.was_lost = True
            other.commit(theirs)

        store.lost, store.retried, store.meanwhile = "before", 2, overtaken  # type: ignore[method-assign]
        with pytest.raises(Conflict):
            store.commit(good(before))
        assert store.load("k") == theirs.after


# PostgreSQL


class Relay:
    """Stands between a store and its server, and may cut a connection once a COMMIT has been answered.

    Args:
        server: the path of the server's socket.
        folder: where the relay's own socket is.
    """

    def __init__(self, server: str, folder: Path) -> None:
        self._server = server
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / Path(server).name))
        self._listener.listen()
        self.cuts = 0
        self.cut = 0
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._server)
            threading.Thread(target=self._forward, args=(client, server), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        """Pass on what the client sends, and another thread what the server answers."""
        cutting = threading.Event()
        answers = threading.Thread(target=self._answer, args=(client, server, cutting), daemon=True)
        answers.start()
        with suppress(OSError):
            while sent := client.recv(65536):
                if b"COMMIT" in sent and self.cuts:
                    self.cuts -= 1
                    self.cut += 1
                    cutting.set()
                server.sendall(sent)
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        answers.join()
        client.close()
        server.close()

    @staticmethod
    def _answer(client: socket.socket, server: socket.socket, cutting: threading.Event) -> None:
        with suppress(OSError):
            while answer := server.recv(65536):
                if cutting.is_set():
                    break
                client.sendall(answer)
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Take no more connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()


@pytest.fixture
def relay(postgresql_url: str) -> Iterator[tuple[Relay, str]]:
    """A relay in front of an empty database, and the URL that leads through it."""
    with psycopg.connect(postgresql_url) as connection:
        info = connection.info
        host, port = info.host, info.port
    if not host.startswith("/"):
        pytest.skip("the named server has no socket on this machine")
    # A socket's path has 107 characters at most, which pytest's folder may exceed.
    with tempfile.TemporaryDirectory(prefix="relay") as folder:
        relay = Relay(f"{host}/.s.PGSQL.{port}", Path(folder))
        parts = urllib.parse.urlsplit(postgresql_url)
        query = {**dict(urllib.parse.parse_qsl(parts.query)), "host": folder, "port": str(port)}
        yield relay, parts._replace(query=urllib.parse.urlencode(query, quote_via=urllib.parse.quote)).geturl()
        relay.close()


def fail_once(url: str, *, after: int) -> None:
    """Let the database fail to serialize one statement that changes a conversation, after so many that go through."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE SEQUENCE changes")
        connection.execute(
            f"""
            CREATE FUNCTION fail_once() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF nextval('changes') = {after + 1} THEN
                    RAISE EXCEPTION 'could not serialize access' USING ERRCODE = '40001';
                END IF;
                RETURN NULL;
            END $$"""
        )
        connection.execute(
            "CREATE TRIGGER fail_once BEFORE INSERT OR UPDATE ON conversation "
            "FOR EACH STATEMENT EXECUTE FUNCTION fail_once()"
        )


@pytest.mark.parametrize(("past", "make"), STEPS.values(), ids=STEPS)
def test_a_commit_whose_answer_was_lost_is_found_stored_after_a_serialization_failure(
    relay: tuple[Relay, str], postgresql_url: str, past: list[Any], make: Callable[[Conversation], Step]
) -> None:
    cutter, url = relay
    with SQLStore(url) as store:
        step = make(committed(store, *past))
        fail_once(postgresql_url, after=1)
        cutter.cuts = 1
        store.commit(step)
        assert cutter.cut == 1
        assert store.load("k") == step.after
        found = store.load("k")
        assert found is not None
        assert len(store.messages(found)) == step.after.message_count
    with psycopg.connect(postgresql_url) as connection:
        assert connection.execute("SELECT last_value FROM changes").fetchone()[0] >= 2, "nothing was tried again"


def test_a_turn_is_answered_once_though_the_answer_to_its_last_commit_was_lost(
    relay: tuple[Relay, str], postgresql_url: str
) -> None:
    cutter, url = relay
    with SQLStore(url) as store:
        provider = DemoProvider()
        sessions = SessionManager(store, provider)
        sessions.send("k", "before")
        fail_once(postgresql_url, after=2)
        with sessions.stream("k", "hello") as turn:
            next(turn)
            cutter.cuts = 1
            list(turn)
        assert (turn.reply.status, cutter.cut) == (TurnStatus.SUCCEEDED, 1)
        assert [found.status for found in sessions.conversations.turns("k")] == [TurnStatus.SUCCEEDED] * 2
        assert len(sessions.conversations.messages("k")) == 4
