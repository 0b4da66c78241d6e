"""A heal is one step with two moves; the decisions are pure, so they can be looked at without a database."""

# [heal]
from datetime import UTC, datetime, timedelta

from fsm import Conversation, Result, Running, State
from fsm._core.decisions import heal

noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
minute = timedelta(minutes=1)
conversation = Conversation(
    key="ticket-42",
    id=1,
    created_at=noon,
    updated_at=noon,
    state=State.ACTIVE,
    version=7,
    provider="demo",
    session_number=1,
    session_id="s-1",
    turn_count=4,
    message_count=7,
    transition_count=3,
    running=Running(turn=4, owner="me", until=noon + minute),
)
dead = Result(subtype="error_during_execution", is_error=True, session_id="s-1")

step = heal(conversation, turn=4, owner="me", result=dead, now=noon, lease=minute)

print(step.before.state, step.before.version, "->", step.after.state, step.after.version)
for effect in step.effects:
    print(type(effect).__name__)
# [heal end]
