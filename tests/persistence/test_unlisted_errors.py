"""Whatever a driver or the code raises becomes a ``StoreError`` that says what was stored, and the store goes on."""

import logging
import sqlite3
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest
from peewee import OperationalError

from fsm import Conversation, Message, Result, SessionManager, StoreError
from fsm._core.effects import AddMessage, Step
from fsm._core.turn import Answer
from fsm.content import text_block
from fsm.providers import DemoProvider
from persistence import SQLStore
from tests.persistence.test_lost_connection import GOOD, Losing
from tests.persistence.test_store import NEW, NOW, begin, finish

pytestmark = pytest.mark.thorough


def with_message(content: Any) -> Callable[[Conversation], Step]:
    """A turn that begins, and whose message can't be written."""

    def make(conversation: Conversation) -> Step:
        step = begin(conversation)
        effects = [
            attrs.evolve(effect, message=attrs.evolve(effect.message, content=content))
            if isinstance(effect, AddMessage)
            else effect
            for effect in step.effects
        ]
        return attrs.evolve(step, effects=tuple(effects))

    return make


def nested() -> Any:
    value: Any = "secret text"
    for _ in range(100_000):
        value = [value]
    return value


UNWRITABLE = {
    "half of a pair in a key": lambda c: begin(attrs.evolve(c, key="k\ud800")),
    "a number that is too large": lambda c: begin(attrs.evolve(c, id=2**70)),
    "a number that is no number": with_message(({"type": "x", "secret text": float("nan")},)),
    "what is not JSON": with_message(({"type": "x", "secret text": object()},)),
    "what is nested too deep": with_message(({"type": "x", "value": nested()},)),
    "a time without a zone": lambda c: begin(c, now=NOW.replace(tzinfo=None)),
    "an effect that nobody knows": lambda c: attrs.evolve(begin(c), effects=("secret text",)),
    "what no driver can bind": lambda c: begin(attrs.evolve(c, metadata={}), owner=object()),
}


@pytest.mark.parametrize("grouped", [True, False], ids=["grouped", "alone"])
@pytest.mark.parametrize("make", UNWRITABLE.values(), ids=UNWRITABLE)
def test_a_step_that_can_not_be_written_is_a_store_error_and_the_next_one_is_stored(
    url: str, make: Callable[[Conversation], Step], grouped: bool
) -> None:
    with SQLStore(url, group_commit=grouped) as store:
        if "postgresql" in url and "too large" in str(make):
            pytest.skip("PostgreSQL has numbers of that size")
        step = make(NEW)
        for outcome in (_raised(lambda: store.commit(step)), store.commit_many([step, step])[1]):
            assert type(outcome) is StoreError
            assert str(outcome).startswith("conversation 'k")
            assert "nothing of this step was stored" in str(outcome)
            assert "secret" not in "".join(traceback.format_exception(outcome)).rpartition("StoreError")[2]
        good = begin(NEW)
        store.commit(good)
        assert store.load("k") == good.after


def _raised(call: Callable[[], object]) -> Exception | None:
    try:
        call()
    except Exception as error:  # noqa: BLE001  # whatever it is
        return error
    return None


def test_a_key_that_can_not_be_read_is_a_store_error(url: str) -> None:
    with SQLStore(url) as store, pytest.raises(StoreError, match="the database can't be used"):
        store.load("k\ud800")


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_ends_a_program_passes_and_the_transaction_is_rolled_back(url: str, error: type[BaseException]) -> None:
    with SQLStore(url) as store:
        run = store.dialect.run

        def interrupted(writes: Any) -> Any:
            run(writes)
            raise error

        store.dialect.run = interrupted  # type: ignore[method-assign]
        with pytest.raises(error):
            store.commit(begin(NEW))
        store.dialect.run = run  # type: ignore[method-assign]
        assert store.load("k") is None
        store.commit(begin(NEW))


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_commit_that_is_cut_off_by_a_signal_handler_is_not_said_to_have_stored_nothing(url: str, when: str) -> None:
    """The handler's exception says nothing about the commit; the caller is told to look."""
    with SQLStore(url, group_commit=False) as store:
        dialect: Any = store.dialect
        target, name = (dialect.database, "execute_sql") if "postgresql" in url else (Cut(dialect), "execute")
        execute = getattr(target, name)

        def cut_off(sql: str, *values: Any) -> Any:
            if sql == "COMMIT" and when == "before":
                raise TimeoutError("the watchdog")
            found = execute(sql, *values)
            if sql == "COMMIT":
                raise TimeoutError("the watchdog")
            return found

        setattr(target, name, cut_off)
        with pytest.raises(StoreError, match="load the conversation to see what was stored"):
            store.commit(begin(NEW))
        setattr(target, name, execute)
        assert (store.load("k") is not None) == (when == "after")
        if when == "before":
            store.commit(begin(NEW))


class Cut:
    """Stands in for the cursor of a store."""

    def __init__(self, dialect: Any) -> None:
        dialect.database.connect(reuse_if_open=True)
        self._cursor = dialect.connections.mine.cursor
        dialect.connections.mine.cursor = self

    def execute(self, *arguments: Any) -> Any:
        return self._cursor.execute(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)


def test_a_connection_that_can_not_even_roll_back_is_given_up(sqlite_url: str) -> None:
    with SQLStore(sqlite_url) as store:
        store.load("k")
        connection = store.dialect.connections.mine.cursor.connection  # type: ignore[attr-defined]

        def refuse() -> None:
            raise sqlite3.OperationalError("no")

        store.dialect.database.rollback = refuse  # type: ignore[method-assign]
        with pytest.raises(StoreError):
            store.commit(begin(attrs.evolve(NEW, id=2**70)))
        with pytest.raises(sqlite3.ProgrammingError):
            connection.execute("SELECT 1")
        store.commit(begin(NEW))
        assert store.load("k") is not None


def test_the_values_of_a_row_are_not_in_what_an_error_came_from(store: SQLStore) -> None:
    """PostgreSQL quotes the row that was refused."""
    step = begin(NEW)
    store.commit(step)
    bad = Message(number=9, turn=1, role="system", content=(text_block("secret text"),), created_at=NOW)  # type: ignore[arg-type]
    end = finish(step.after, Result(), Answer())
    with pytest.raises(StoreError) as caught:
        store.commit(attrs.evolve(end, effects=(*end.effects, AddMessage(bad))))
    error: BaseException | None = caught.value
    while error is not None:
        assert "secret text" not in f"{error} {error!r}"
        error = error.__cause__ or error.__context__


def test_the_memory_of_a_lost_connection_outlives_a_later_retry(sqlite_url: str) -> None:
    """The step was stored when its connection was lost; then the database is busy once; then it is found stored."""
    with Losing(sqlite_url, group_commit=False) as store:
        begun = begin(NEW)
        store.commit(begun)
        step = finish(begun.after, GOOD)
        dialect: Any = store.dialect
        begin_transaction, is_busy = dialect.begin, dialect.may_retry
        attempts: list[str] = []

        def busy_once(*, synced: bool) -> None:
            attempts.append("begin")
            if len(attempts) == 2:
                raise OperationalError("busy")
            begin_transaction(synced=synced)

        dialect.begin = busy_once
        dialect.may_retry = lambda error: "busy" in str(error) or is_busy(error)
        store.lost = "after"
        store.commit(step)
        assert len(attempts) == 3
        assert store.load("k") == step.after


def test_after_a_lost_connection_an_error_that_would_come_again_is_not_tried_again(sqlite_url: str) -> None:
    with Losing(sqlite_url, group_commit=False, timeout=30) as store:
        dialect: Any = store.dialect
        begin_transaction = dialect.begin
        attempts: list[str] = []

        def refuse(*, synced: bool) -> None:
            attempts.append("begin")
            if len(attempts) > 1:
                raise OperationalError("no such table")
            begin_transaction(synced=synced)

        dialect.begin = refuse
        store.lost = "before"
        with pytest.raises(StoreError, match="no such table"):
            store.commit(begin(NEW))
        assert len(attempts) == 2


@pytest.fixture
def heard(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """The log records at INFO and above."""
    with caplog.at_level(logging.INFO):
        yield caplog


def test_peewee_does_not_log_into_the_application(url: str, heard: pytest.LogCaptureFixture) -> None:
    with SQLStore(url) as store:
        SessionManager(store, DemoProvider()).send("k", "hello")
    assert not [record for record in heard.records if record.name.startswith("peewee")]
    logging.getLogger("peewee.migrations").info("the application's own")
    assert [record.name for record in heard.records][-1] == "peewee.migrations"


@pytest.mark.parametrize("encoding", ["UTF-16le", "UTF-16be"])
def test_a_file_that_can_not_hold_every_text_is_refused_and_stays_as_it_is(sqlite_url: str, encoding: str) -> None:
    """SQLite turns U+FFFF into U+FFFD there, so two keys would be one."""
    other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))
    other.execute(f"PRAGMA encoding = '{encoding}'")
    other.execute("CREATE TABLE mine (a)")
    with pytest.raises(StoreError, match=f"has the encoding {encoding}, which can't hold every text"):
        SQLStore(sqlite_url)
    assert other.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    other.close()
