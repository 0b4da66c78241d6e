"""A heal marks each id dead once: the one that was held, and the one that the result names."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import chain, repeat
from typing import Any

import pytest

from fsm import Conversation, Request, Result, SessionManager, State, TextDelta, TurnStatus
from fsm._core import decisions as decide
from fsm._core.effects import MarkSessionDead
from fsm._core.turn import Answer
from fsm.content import text_block
from fsm.events import EXPIRED
from fsm.providers import DemoProvider
from fsm.testing import ReferenceStore, check_database
from persistence import SQLStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LEASE = timedelta(seconds=60)


@pytest.fixture(params=["sqlite", "postgresql", "reference"])
def store(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A real store on each kind of database, and the reference store."""
    if request.param == "reference":
        yield ReferenceStore()
        return
    with SQLStore(request.getfixturevalue(f"{request.param}_url")) as store:
        yield store


def dead(named: str | None) -> Result:
    """A result that reports the resumed session dead and names an id."""
    return Result(subtype=EXPIRED, is_error=True, session_id=named)


def begun(conversation: Conversation) -> Conversation:
    """The conversation with a running turn."""
    return decide.begin(
        conversation, content=(text_block("hello"),), provider="demo", owner="o", now=NOW, lease=LEASE
    ).after


def holding(session_id: str) -> Conversation:
    """A conversation in a turn that resumes this session."""
    first = begun(Conversation(key="k", id=1, created_at=NOW, updated_at=NOW))
    result = Result(session_id=session_id)
    ended = decide.finish(first, turn=1, owner="o", result=result, answer=Answer(result=result), now=NOW)
    return begun(ended.after)


@pytest.mark.parametrize(
    ("named", "known", "marked"),
    [
        ("held", frozenset(), ["held"]),
        ("other", frozenset(), ["held", "other"]),
        ("other", frozenset({"other"}), ["held"]),
        ("held", frozenset({"held"}), []),
        ("other", frozenset({"held", "other"}), []),
        (None, frozenset(), ["held"]),
    ],
)
def test_a_heal_marks_each_id_dead_once(named: str | None, known: frozenset[str], marked: list[str]) -> None:
    step = decide.heal(holding("held"), turn=2, owner="o", result=dead(named), now=NOW, lease=LEASE, dead=known)
    assert [effect.session_id for effect in step.effects if isinstance(effect, MarkSessionDead)] == marked
    assert (step.after.state, step.after.session_id) == (State.FRESH, None)


def test_a_turn_is_healed_though_its_result_names_an_id_that_is_dead_already(store: Any) -> None:
    """The database has one row for each dead id, and refuses a second."""
    provider = DemoProvider(
        [
            Result(session_id="s-1"),
            dead("s-1"),
            Result(session_id="s-2"),
            dead("s-1"),
            Result(session_id="s-3"),
            dead("s-3"),
            Result(session_id="s-4"),
        ]
    )
    sessions = SessionManager(store, provider)
    replies = [sessions.send("k", f"message {number}") for number in range(4)]
    assert [(reply.status, reply.healed) for reply in replies] == [
        (TurnStatus.SUCCEEDED, healed) for healed in (False, True, True, True)
    ]
    conversation = sessions.conversations.get("k")
    assert store.dead(conversation, {"s-1", "s-2", "s-3", "s-4"}) == {"s-1", "s-2", "s-3"}
    check_database(store)


@pytest.mark.parametrize("named", ["s-2", "s-1"])
def test_a_turn_that_finds_the_healed_session_dead_too_ends_in_one_piece(store: Any, named: str) -> None:
    """The second death of a turn is not healed; the id that it names may be dead already."""
    script = chain([Result(session_id="s-1"), dead("s-1"), dead(named)], repeat(None))
    sessions = SessionManager(store, DemoProvider(script))
    sessions.send("k", "hello")
    reply = sessions.send("k", "again")
    assert (reply.status, reply.state) == (TurnStatus.FAILED, State.STALE)
    assert sessions.send("k", "and now").status is TurnStatus.SUCCEEDED
    check_database(store)


def test_a_dead_session_that_names_itself_is_told_to_the_provider_no_more(store: Any) -> None:
    asked: list[str | None] = []

    def noted(request: Request) -> Any:
        asked.append(request.session_id)
        return dead(request.session_id) if request.session_id else [TextDelta("a"), Result(session_id="s-1")]

    sessions = SessionManager(store, DemoProvider([noted] * 5))
    for number in range(2):
        sessions.send("k", f"message {number}")
    assert asked == [None, "s-1", None]
