"""What a step writes: one statement for each effect, the guard before them, each value under its name."""

from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import attrs
import pytest
from peewee import Model, SqliteDatabase

from fsm import Conversation, Result, Running, State, TurnStatus
from fsm._core.effects import BindSession, CloseSession, Effect, EndTurn, ExtendTurn, MarkSessionDead, Step
from persistence import models
from persistence.queries import Statement, Statements
from persistence.rows import micros
from persistence.writes import EFFECTS, Writes

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(seconds=1)
SQL = Statements(SqliteDatabase(None))
BEFORE = Conversation("k", 7, NOW, NOW, version=3)
AFTER = attrs.evolve(
    BEFORE,
    state=State.ACTIVE,
    version=4,
    provider="demo",
    session_number=2,
    session_id="s",
    turn_count=5,
    message_count=6,
    transition_count=8,
    running=Running(5, "o", LATER),
    metadata={"a": 1},
    window=9,
    updated_at=LATER,
)
RESULT = Result(
    "error_max_turns",
    is_error=True,
    session_id="s",
    errors=("e",),
    stop_reason="tool_use",
    usage={"tokens": 1},
    cost_usd=0.5,
    http_status=429,
)


def named(step: Step) -> list[dict[str, Any]]:
    """The values of each statement under the names that the statement has for them."""
    return [dict(zip(statement.names, row, strict=True)) for statement, row in Writes(SQL).of(step)]


def test_every_effect_has_its_statement() -> None:
    """An effect that is new and not written would be lost in silence."""
    assert set(EFFECTS) == set(get_args(Effect))
    assert all(isinstance(getattr(SQL, name), Statement) for name, _ in EFFECTS.values())


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("create", models.Conversation),
        ("open_session", models.Session),
        ("start_turn", models.Turn),
        ("add_message", models.Message),
        ("log_transition", models.Transition),
        ("mark_dead", models.DeadId),
    ],
)
def test_a_row_is_inserted_in_the_order_of_its_tables_columns(name: str, model: type[Model]) -> None:
    """In which it is written and read."""
    assert getattr(SQL, name).names == tuple(model._meta.sorted_field_names)


def test_the_guard_comes_first_and_knows_the_commit_before_by_its_version_and_time() -> None:
    assert named(Step(BEFORE, AFTER, ())) == [
        {
            "state": "active",
            "version": 4,
            "provider": "demo",
            "session": 2,
            "session_id": "s",
            "turns": 5,
            "messages": 6,
            "transitions": 8,
            "running_turn": 5,
            "running_owner": "o",
            "running_until": micros(LATER),
            "metadata": '{"a":1}',
            "window": 9,
            "updated_at": micros(LATER),
            "id": 7,
            "expected": 3,
            "seen": micros(NOW),
        }
    ]


def test_a_conversation_that_is_new_is_inserted_whole() -> None:
    """Its guard is that nobody else has inserted it."""
    (row,) = named(Step(attrs.evolve(BEFORE, version=0), AFTER, ()))
    assert (row["id"], row["key"], row["version"], row["created_at"]) == (7, "k", 4, micros(NOW))


@pytest.mark.parametrize(
    ("effect", "row"),
    [
        (
            EndTurn(5, 2, TurnStatus.FAILED, State.ACTIVE, 6, LATER, RESULT, healed=True),
            {
                "session": 2,
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
        (ExtendTurn(5, 6), {"last_message": 6, "conversation": 7, "number": 5}),
        (BindSession(2, "s"), {"session_id": "s", "conversation": 7, "number": 2}),
        (
            CloseSession(2, "r", LATER),
            {"closed_at": micros(LATER), "closed_reason": "r", "conversation": 7, "number": 2},
        ),
        (MarkSessionDead("s", 2, LATER), {"conversation": 7, "session_id": "s", "session": 2, "at": micros(LATER)}),
    ],
)
def test_what_an_effect_changes_stands_under_its_name(effect: Effect, row: dict[str, Any]) -> None:
    assert named(Step(BEFORE, AFTER, (effect,)))[1] == row
