"""How a Managed Agents session stands before, and after, a message is sent to it: pure, no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from attrs import field, frozen

from fsm.providers._anthropic.errors import Failed
from fsm.providers.anthropic_agents.content import Call
from fsm.providers.anthropic_agents.evidence import of_session_error
from fsm.providers.anthropic_agents.reading import (
    CALLS,
    ENDS,
    RUNS,
    SENT,
    call_of,
    items_of,
    of,
    pending_of,
    text_of,
    time_of,
)

__all__ = ["Standing", "has_arrived", "standing"]


@frozen(kw_only=True)
class Standing:
    """How a session stands before a message is sent to it.

    Attributes:
        is_idle: whether its events say for certain that it waits for a message.
        ended: what ended it for good, or None.
        cause: the error that it ended with, or None.
        is_paused: whether its budget is used up; then it takes no message until the budget is raised.
        pending: the calls that it waits for an answer to.
        calls: the calls among its newest events.
    """

    is_idle: bool = False
    ended: str | None = None
    cause: Failed | None = None
    is_paused: bool = False
    pending: Mapping[str, Call] = field(factory=dict)
    calls: Mapping[str, Call] = field(factory=dict)


def standing(newest_first: Sequence[Any]) -> Standing:
    """Return how a session stands, from its newest events.

    >>> standing([]).is_idle
    True
    """
    calls = {event.id: call_of(event) for event in newest_first if of(event, "type") in CALLS and of(event, "id")}
    for number, event in enumerate(newest_first):
        kind = of(event, "type")
        if kind == "session.status_idle":
            is_paused = of(event, "stop_reason", "type") == "budget_reached"
            return Standing(is_idle=True, is_paused=is_paused, pending=pending_of(event, calls), calls=calls)
        if kind in ENDS:
            return Standing(ended=kind, cause=_cause(newest_first[number + 1 :]))
        if kind in RUNS or kind in SENT:
            return Standing(calls=calls)
    return Standing(is_idle=not newest_first, calls=calls)


def _cause(newest_first: Iterable[Any]) -> Failed | None:
    """Return the error that came right before the end of a session."""
    for event in newest_first:
        if of(event, "type") == "session.error":
            return of_session_error(of(event, "error"))
        if of(event, "type") in RUNS or of(event, "type") == "session.status_idle":
            return None
    return None


def has_arrived(events: Iterable[Any], message: Sequence[Mapping[str, Any]], since: datetime | None) -> bool:
    """Whether these events of a session show that the message has arrived there.

    Args:
        events: events that are newer than what the session was looked back at.
        message: the events that were sent.
        since: when the newest of the older events was processed, if that is known.
    """
    found = list(events)
    others = [event for event in found if of(event, "type") in SENT]
    if any(_is_same(event, message[-1]) for event in others):
        return True
    begun = [time_of(event) for event in found if of(event, "type") in RUNS]
    return not others and any(when is not None and (since is None or when > since) for when in begun)


def _is_same(event: Any, sent: Mapping[str, Any]) -> bool:
    """Whether an event of the session is this one, which was sent to it.

    The API may keep a text withheld (``redacted``) or trimmed.
    """
    if of(event, "type") != sent["type"]:
        return False
    if sent["type"] != "user.message":
        name = "custom_tool_use_id" if "custom_tool_use_id" in sent else "tool_use_id"
        return bool(of(event, name) == sent[name])
    blocks = items_of(of(event, "content"))
    if any(of(block, "type") == "redacted" for block in blocks):
        return True
    told = " ".join(map(text_of, blocks))
    said = " ".join(block["text"] for block in sent["content"] if block["type"] == "text")
    return told.split() == said.split()
