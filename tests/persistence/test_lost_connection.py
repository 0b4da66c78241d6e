"""A commit whose connection was lost: what became of it is read, never guessed, and it is stored once at most.

SQLite has no connection that could be lost; here it is told to lose one where a server would.
"""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import attrs
import pytest
from peewee import OperationalError

from fsm import Conflict, Conversation, Result, StoreError
from fsm._core import decisions as decide
from fsm._core.effects import AddMessage, LogTransition, Step
from fsm._core.turn import Answer
from fsm.content import text_block
from persistence import SQLStore
from tests.persistence.test_store import LEASE, NEW, NOW, begin, committed, everything, finish

GOOD = Result(session_id="s-1")


class Losing(SQLStore):
    """A store that loses its connection at the next COMMIT, before or after it was done, and may be overtaken then."""

    lost: str | None = None

    @staticmethod
    def meanwhile() -> None:
        """Changes by others before this store has a connection again."""

    def connect(self, url: str) -> Any:
        dialect: Any = super().connect(url)
        commit = dialect.commit

        def commit_or_lose() -> None:
            lost, self.lost = self.lost, None
            if lost != "before":
                commit()
            if lost is not None:
                if lost == "before":
                    dialect.roll_back()
                self.meanwhile()
                raise OperationalError("the connection is lost")

        dialect.commit = commit_or_lose
        dialect.is_lost = lambda error: "lost" in str(error)
        return dialect


@pytest.fixture
def store(sqlite_url: str) -> Iterator[Losing]:
    """A store on a file."""
    with Losing(sqlite_url) as store:
        yield store


@pytest.fixture
def other(sqlite_url: str) -> Iterator[SQLStore]:
    """Somebody else's store on the same file."""
    with SQLStore(sqlite_url) as store:
        yield store


def extend(conversation: Conversation) -> Step:
    """A longer lease: neither a message nor a move."""
    return decide.extend(conversation, turn=conversation.turn_count, owner="o", now=NOW, lease=2 * LEASE)


def reset(conversation: Conversation, reason: str = "r") -> Step:
    """A move without a message."""
    return decide.reset(conversation, reason=reason, provider="demo", now=NOW, force=True)


def later(step: Step) -> Step:
    """The same, decided a moment later: no two workers decide in one microsecond."""
    return attrs.evolve(step, after=attrs.evolve(step.after, updated_at=NOW + timedelta(seconds=1)))


def good(conversation: Conversation, text: str = "hello") -> Step:
    """A message and a move."""
    return finish(conversation, GOOD, Answer((("assistant", (text_block(text),), None),)))


STEPS = {
    "the first begin": ([], begin),
    "a begin": ([begin, good], begin),
    "an end": ([begin], good),
    "a reset": ([begin, good], reset),
    "a longer lease": ([begin], extend),
}


@pytest.mark.parametrize("lost", ["before", "after"])
@pytest.mark.parametrize(("past", "make"), STEPS.values(), ids=STEPS)
def test_a_step_is_stored_once_whenever_its_connection_was_lost(
    store: Losing, sqlite_url: str, past: list[Any], make: Callable[[Conversation], Step], lost: str
) -> None:
    step = make(committed(store, *past))
    store.lost = lost
    store.commit(step)
    assert store.lost is None
    assert store.load("k") == step.after
    stored = everything(sqlite_url)
    assert len(stored["message"]) == step.after.message_count
    assert len(stored["transition"]) == step.after.transition_count
    assert len(stored["turn"]) == step.after.turn_count


@pytest.mark.parametrize(
    ("past", "make", "after"),
    [
        ([], begin, [good, begin]),
        ([begin, good], begin, [good]),
        ([begin], good, [begin]),
        ([begin], good, [reset, begin, good]),
        ([begin, good], reset, [begin]),
    ],
)
def test_a_step_that_was_stored_and_then_overtaken_is_stored(
    store: Losing, other: SQLStore, past: list[Any], make: Callable[[Conversation], Step], after: list[Any]
) -> None:
    step = make(committed(store, *past))

    def meanwhile() -> None:
        conversation = step.after
        for follow in after:
            following = follow(conversation)
            other.commit(following)
            conversation = following.after

    store.lost, store.meanwhile = "after", meanwhile  # type: ignore[method-assign]
    store.commit(step)
    found = store.load("k")
    assert found is not None
    assert found.version == step.after.version + len(after)


@pytest.mark.parametrize(
    ("past", "make", "instead"),
    [
        ([], begin, [lambda _: begin(attrs.evolve(NEW, id=2))]),
        ([], begin, [lambda _: begin(attrs.evolve(NEW, id=2)), good]),
        ([begin], good, [lambda c: good(c, "something else")]),
        ([begin], good, [lambda c: finish(c, Result(is_error=True))]),
        ([begin], good, [lambda c: good(c, "something else"), begin]),
        # the same message, another move; the same move, another message; the same of neither
        ([begin], good, [lambda c: finish(c, Result(session_id="s-2")), begin]),
        ([begin], good, [lambda c: decide.interrupt(c, turn=1, owner="o", answer=Answer(), now=NOW), begin]),
        ([begin, good], reset, [lambda c: reset(c, "another reason")]),
        ([begin, good], reset, [lambda c: reset(c, "another reason"), begin]),
        ([begin, good], begin, [reset, lambda c: begin(c, content=(text_block("another"),))]),
    ],
)
def test_a_step_that_was_not_stored_and_was_overtaken_is_a_conflict(
    store: Losing, other: SQLStore, past: list[Any], make: Callable[[Conversation], Step], instead: list[Any]
) -> None:
    before = committed(store, *past)
    step = make(before)
    left = before

    def meanwhile() -> None:
        nonlocal left
        for act in instead:
            theirs = later(act(left))
            other.commit(theirs)
            left = theirs.after

    store.lost, store.meanwhile = "before", meanwhile  # type: ignore[method-assign]
    with pytest.raises(Conflict):
        store.commit(step)
    assert store.load("k") == left


def test_a_longer_lease_that_was_overtaken_is_decided_again(store: Losing, other: SQLStore) -> None:
    step = extend(committed(store, begin))
    store.lost, store.meanwhile = "after", lambda: other.commit(good(step.after))  # type: ignore[method-assign]
    with pytest.raises(Conflict):
        store.commit(step)


def test_a_conversation_that_is_gone_meanwhile_has_not_stored_the_step(store: Losing, other: SQLStore) -> None:
    step = good(committed(store, begin))

    def meanwhile() -> None:
        other.dialect.database.execute_sql("DELETE FROM conversation")

    store.lost, store.meanwhile = "after", meanwhile  # type: ignore[method-assign]
    with pytest.raises(Conflict):
        store.commit(step)


def test_a_conflict_on_a_sound_connection_is_a_conflict_even_if_the_step_is_there(store: Losing) -> None:
    step = begin(NEW)
    store.commit(step)
    with pytest.raises(Conflict):
        store.commit(step)


def test_a_connection_that_does_not_come_back_is_told_with_what_is_not_known(sqlite_url: str) -> None:
    class Gone(Losing):
        def meanwhile(self) -> None:  # type: ignore[override]
            self.lost = "before"

    with Gone(sqlite_url, timeout=0.1) as store:
        store.lost = "before"
        with pytest.raises(StoreError, match=r"conversation 'k': .* load the conversation to see what was stored"):
            store.commit(begin(NEW))
        store.lost = None
        assert store.load("k") is None


def test_steps_of_every_kind_are_among_them() -> None:
    kinds = set()
    for past, make in STEPS.values():
        conversation = NEW
        for before in past:
            conversation = before(conversation).after
        effects = {type(effect) for effect in make(conversation).effects}
        kinds.add((AddMessage in effects, LogTransition in effects))
    assert kinds == {(True, False), (True, True), (False, True), (False, False)}
