"""Rows and records: what is written is what is read."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fsm import Conversation, Message, Running, Session, State, Transition, Trigger, Turn, TurnStatus
from fsm._core.effects import AddMessage, LogTransition, OpenSession, StartTurn
from persistence import reading, rows

NOW = datetime(2026, 1, 1, 12, 30, 15, 123457, tzinfo=UTC)
LATER = NOW + timedelta(microseconds=1)
RECORDS: dict[str, tuple[Any, Any, Any]] = {
    "conversation": (
        Conversation(
            "k",
            7,
            NOW,
            LATER,
            state=State.ACTIVE,
            version=3,
            provider="demo",
            session_number=2,
            session_id="s",
            turn_count=4,
            message_count=5,
            transition_count=6,
            running=Running(4, "o", LATER),
            metadata={"ü": 1},
            window=9,
        ),
        rows.conversation_row,
        reading.read_conversation,
    ),
    "session": (
        Session(2, "demo", NOW, "opened", parent=1, session_id="s", closed_at=LATER, closed_reason="closed"),
        lambda session: rows.session_row(7, OpenSession(session)),
        reading.read_session,
    ),
    "turn": (
        Turn(
            3,
            2,
            TurnStatus.FAILED,
            4,
            5,
            NOW,
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
        ),
        lambda turn: rows.turn_row(7, StartTurn(turn)),
        reading.read_turn,
    ),
    "message": (
        Message(4, 3, "assistant", ({"type": "text", "text": "é"},), NOW, {"container": "c"}),
        lambda message: rows.message_row(7, AddMessage(message)),
        reading.read_message,
    ),
    "transition": (
        Transition(
            "k",
            5,
            Trigger.EXPIRED,
            State.ACTIVE,
            State.STALE,
            session_number=2,
            session_id="s",
            version=3,
            at=NOW,
            turn=3,
            reason="r",
        ),
        lambda transition: rows.transition_row(7, LogTransition(transition)),
        lambda row: reading.read_transition(row, "k"),
    ),
}


@pytest.mark.parametrize(("record", "row", "read"), RECORDS.values(), ids=RECORDS)
def test_a_record_with_all_its_fields_is_read_back_equal(record: Any, row: Any, read: Any) -> None:
    """The columns stand in the order of their table."""
    assert read(row(record)) == record


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
    """Though a lone block of text is written in a way of its own."""
    message = Message(4, 3, "assistant", content, NOW)
    assert reading.read_message(rows.message_row(7, AddMessage(message))) == message


def test_a_time_is_a_whole_number_of_microseconds() -> None:
    """Whatever the database would make of another."""
    assert rows.micros(NOW) == 1_767_270_615_123_457
    assert isinstance(rows.micros(NOW), int)
