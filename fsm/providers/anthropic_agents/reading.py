"""Reading what the Anthropic SDK has parsed of a Managed Agents session: pure, no I/O.

The SDK does not check what it parses: an event may lack what its type promises, or have it in another type. So nothing
here takes a field for granted.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from fsm.providers.anthropic_agents.content import Call

__all__ = ["CALLS", "ENDS", "RUNS", "SENT", "as_json", "call_of", "items_of", "of", "pending_of", "text_of", "time_of"]

CALLS = frozenset({"agent.tool_use", "agent.mcp_tool_use", "agent.custom_tool_use"})
"""The agent calls a tool."""

SENT = frozenset({"user.message", "user.tool_result", "user.custom_tool_result", "user.tool_confirmation"})
"""The user says something, or answers a call."""

RUNS = frozenset({"session.status_running", "session.status_rescheduled"})
"""The session is at work."""

ENDS = frozenset({"session.status_terminated", "session.deleted"})
"""The session ends for good."""


def of(value: Any, *names: str) -> Any:
    """Return what an object has under this name, and that under the next; None if there is nothing.

    >>> of(3 + 4j, "real", "is_integer") is not None, of(None, "content", "text")
    (True, None)
    """
    for name in names:
        value = getattr(value, name, None)
    return value


def items_of(value: Any) -> list[Any]:
    """Return a list as it is, and an empty one for anything else."""
    return value if isinstance(value, list) else []


def text_of(block: Any) -> str:
    """Return the text of a text block, and the empty text for any other."""
    text = of(block, "text")
    return text if of(block, "type") == "text" and isinstance(text, str) else ""


def as_json(value: Any) -> Any:
    """Return an object of the SDK as JSON, and anything else as it is."""
    return value.to_dict(mode="json", warnings=False) if hasattr(value, "to_dict") else value


def time_of(event: Any) -> datetime | None:
    """Return when an event was processed; None if it does not say so."""
    when = of(event, "processed_at")
    if not isinstance(when, datetime) or when.year == 1:  # a time that was never set
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def call_of(event: Any) -> Call:
    """Return the tool call that an event tells of."""
    return Call(event.type, str(of(event, "name") or "?"), asks=of(event, "evaluated_permission") == "ask")


def pending_of(idle: Any, calls: Mapping[str, Call]) -> dict[str, Call]:
    """Return the calls that an idle session waits for.

    A call that is not among ``calls`` is taken for one of a tool of the caller's.
    """
    ids = items_of(of(idle, "stop_reason", "event_ids"))
    return {id_: calls.get(id_, Call("agent.custom_tool_use", "?")) for id_ in ids if isinstance(id_, str)}
