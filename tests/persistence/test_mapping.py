"""Records and rows: a record is read back equal, and each effect writes its columns by their names."""

from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import attrs
import pytest
from peewee import SqliteDatabase

from fsm import Conversation, Message, Result, Running, Session, State, Transition, Trigger, Turn, TurnStatus
from fsm.store import (
    AddMessage,
    BindSession,
    CloseSession,
    Effect,
    EndTurn,
    ExtendTurn,
    LogTransition,
    MarkSessionDead,
    OpenSession,
    StartTurn,
    Step,
)
from persistence.mapping import effect_row, micros, read, step_row
from persistence.queries import COLUMNS, Statements

NOW = datetime(2026, 1, 1, 12, 30, 15, 123457, tzinfo=UTC)
LATER = NOW + timedelta(microseconds=1)
SQL = Statements(SqliteDatabase(None))
BEFORE = Conversation(key="k", id=7, created_at=NOW, updated_at=NOW, version=3)
AFTER = Conversation(
    key="k",
    id=7,
    created_at=NOW,
    updated_at=LATER,
    state=State.ACTIVE,
    version=4,
    provider="demo",
    session_number=2,
    session_id="s",
    turn_count=5,
    message_count=6,
    transition_count=8,
    running=Running(5, "o", LATER),
    metadata={"ü": 1},
    window=9,
)
RESULT = Result(
    subtype="error_max_turns",
    is_error=True,
    session_id="s",
    errors=("e",),
    stop_reason="tool_use",
    usage={"tokens": 1},
    cost_usd=0.5,
    http_status=429,
)
SESSION = Session(
    number=2,
    provider="demo",
    opened_at=NOW,
    opened_reason="opened",
    parent=1,
    session_id="s",
    closed_at=LATER,
    closed_reason="closed",
)
TURN = Turn(
    number=3,
    session_number=2,
    status=TurnStatus.FAILED,
    first_message=4,
    last_message=5,
    started_at=NOW,
    ended_at=LATER,
    subtype="error_max_turns",
    is_error=True,
    session_id="s",
    errors=("é",),
    stop_reason="tool_use",
    usage={"tokens": 1},
    cost_usd=0.5,
    http_status=429,
    healed=True,
    state=State.STALE,
    idempotency_key="i",
    brings_results=True,
)
TRANSITION = Transition(
    key="k",
    number=5,
    trigger=Trigger.EXPIRED,
    source=State.ACTIVE,
    target=State.STALE,
    session_number=2,
    session_id="s",
    version=3,
    at=NOW,
    turn=3,
    reason="r",
)


def message(content: Any) -> Message:
    return Message(
        number=4, turn=3, role="assistant", content=content, created_at=NOW, provider_data={"container": "c"}
    )


def inserted(record: Any, effect: Effect) -> Any:
    """Return the record that is read from the row that an effect writes."""
    columns = COLUMNS[type(record).__name__.lower()]
    (found,) = read(type(record), columns, [effect_row(type(effect), columns)(effect, 7)], "k")
    return found


@pytest.mark.parametrize(
    ("record", "effect"),
    [
        (SESSION, OpenSession(SESSION)),
        (TURN, StartTurn(TURN)),
        (message(({"type": "text", "text": "é"},)), AddMessage(message(({"type": "text", "text": "é"},)))),
        (TRANSITION, LogTransition(TRANSITION)),
    ],
)
def test_a_record_with_all_its_fields_is_read_back_equal(record: Any, effect: Effect) -> None:
    assert inserted(record, effect) == record


@pytest.mark.parametrize("conversation", [BEFORE, AFTER])
def test_a_conversation_is_read_back_equal(conversation: Conversation) -> None:
    columns = COLUMNS["conversation"]
    row = step_row(columns)(Step(BEFORE, conversation, ()))
    assert read(Conversation, columns, [row]) == [conversation]


@pytest.mark.parametrize(
    "content",
    [
        ({"type": "text", "text": 'é \ud800 "\\'},),
        ({"text": "the other way round", "type": "text"},),
        ({"type": "text", "text": {"not": "text"}},),
        ({"type": "image", "text": "no text"},),
        ({"type": "text", "text": "a"}, {"type": "text", "text": "b"}),
        (),
    ],
)
def test_blocks_of_every_shape_are_read_back_equal(content: Any) -> None:
    said = message(content)
    assert inserted(said, AddMessage(said)) == said


def test_a_time_is_a_whole_number_of_microseconds() -> None:
    assert micros(NOW) == 1_767_270_615_123_457
    assert isinstance(micros(NOW), int)


def named(step: Step) -> list[dict[str, Any]]:
    """Return the values of each statement under the names that the statement has for them."""
    return [dict(zip(statement.names, row, strict=True)) for statement, row in SQL.writes(step)]


def test_every_effect_has_its_statement_and_its_columns() -> None:
    """An effect that is new and not written would be lost in silence."""
    assert set(SQL.effects) == set(get_args(Effect))


def test_the_guard_comes_first_and_knows_the_commit_before_by_its_version_and_time() -> None:
    assert named(Step(BEFORE, AFTER, ())) == [
        {
            "state": "active",
            "version": 4,
            "provider": "demo",
            "session_number": 2,
            "session_id": "s",
            "turn_count": 5,
            "message_count": 6,
            "transition_count": 8,
            "running_turn": 5,
            "running_owner": "o",
            "running_until": micros(LATER),
            "metadata": '{"ü":1}',
            "window": 9,
            "updated_at": micros(LATER),
            "id": 7,
            "expected": 3,
            "seen": micros(NOW),
        }
    ]


def test_a_conversation_that_is_new_is_inserted_whole() -> None:
    (row,) = named(Step(attrs.evolve(BEFORE, version=0), AFTER, ()))
    assert (row["id"], row["key"], row["version"], row["created_at"]) == (7, "k", 4, micros(NOW))


END = EndTurn(
    number=5,
    session_number=2,
    status=TurnStatus.FAILED,
    state=State.ACTIVE,
    last_message=6,
    at=LATER,
    result=RESULT,
    healed=True,
)


@pytest.mark.parametrize(
    ("effect", "row"),
    [
        (
            END,
            {
                "session_number": 2,
                "status": "failed",
                "last_message": 6,
                "ended_at": micros(LATER),
                "subtype": "error_max_turns",
                "is_error": True,
                "session_id": "s",
                "errors": '["e"]',
                "stop_reason": "tool_use",
                "usage": '{"tokens":1}',
                "cost_usd": 0.5,
                "http_status": 429,
                "healed": True,
                "state": "active",
                "conversation": 7,
                "number": 5,
            },
        ),
        (
            attrs.evolve(END, status=TurnStatus.INTERRUPTED, last_message=None, result=None, healed=False),
            {
                "session_number": 2,
                "status": "interrupted",
                "last_message": None,
                "ended_at": micros(LATER),
                "subtype": None,
                "is_error": False,
                "session_id": None,
                "errors": "[]",
                "stop_reason": None,
                "usage": None,
                "cost_usd": None,
                "http_status": None,
                "healed": False,
                "state": "active",
                "conversation": 7,
                "number": 5,
            },
        ),
        (ExtendTurn(5, 6), {"last_message": 6, "conversation": 7, "number": 5}),
        (BindSession(2, "s"), {"session_id": "s", "conversation": 7, "number": 2}),
        (
            CloseSession(2, "r", LATER),
            {"closed_at": micros(LATER), "closed_reason": "r", "conversation": 7, "number": 2},
        ),
        (
            MarkSessionDead("s", 2, LATER),
            {"conversation": 7, "session_id": "s", "session_number": 2, "at": micros(LATER)},
        ),
    ],
)
def test_the_columns_that_an_effect_changes_have_its_values(effect: Effect, row: dict[str, Any]) -> None:
    assert named(Step(BEFORE, AFTER, (effect,)))[1] == row
