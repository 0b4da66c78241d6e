"""Scripts of a Managed Agents session: events, and faults of the connection between them. The events are built from the
SDK's types, so that a wrong shape fails here."""

from __future__ import annotations

from enum import Enum
from typing import Any, get_args

from anthropic.types.beta.sessions import BetaManagedAgentsStreamSessionEvents
from attrs import frozen
from pydantic import BaseModel

TYPES: dict[str, type[BaseModel]] = {
    get_args(kind.model_fields["type"].annotation)[0]: kind
    for kind in get_args(get_args(BetaManagedAgentsStreamSessionEvents)[0])
}
"""The SDK's class for each type of event."""

TEXT_USAGE = {
    "input_tokens": 10,
    "output_tokens": 5,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
}


class Act(Enum):
    """A fault of the connection between two events."""

    CUT = "the open streams break"
    END = "the open streams end"
    HOLD = "nothing, until the agent is interrupted; then the steps after this are played"
    UNTIL_OPEN = "nothing, until a stream is opened"
    UNTIL_ASKED = "nothing, until the session is retrieved"


class Odd(dict[str, Any]):
    """An event that is not what the SDK's type says: a gateway's, or one of a newer service."""


@frozen
class Raw:
    """Bytes on the open streams, and nothing in the list of events."""

    data: bytes


Step = dict[str, Any] | Act | Raw


def built(kind: type[BaseModel], values: dict[str, Any]) -> dict[str, Any]:
    """A JSON object that is what the SDK's type says, with nothing left out and nothing added."""
    made = kind.model_validate(values)
    _refuse_extra(made)
    return made.model_dump(mode="json", exclude_unset=True)


def _refuse_extra(value: object) -> None:
    if isinstance(value, BaseModel):
        assert not value.model_extra, f"{type(value).__name__} has no {value.model_extra}"
        for inner in dict(value).values():
            _refuse_extra(inner)
    elif isinstance(value, list):
        for inner in value:
            _refuse_extra(inner)


# Events


def event(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, **fields}


def running() -> dict[str, Any]:
    return event("session.status_running")


def said(*texts: str, **fields: Any) -> dict[str, Any]:
    return event("agent.message", content=[{"type": "text", "text": text} for text in texts], **fields)


def previewed(message_id: str, *pieces: str) -> tuple[dict[str, Any], ...]:
    """The preview of a message, piece by piece."""
    deltas = [{"type": "content_delta", "index": 0, "content": {"type": "text", "text": piece}} for piece in pieces]
    return (
        event("event_start", event={"type": "agent.message", "id": message_id}),
        *(event("event_delta", event_id=message_id, delta=delta) for delta in deltas),
    )


def called(call_id: str, name: str = "add", kind: str = "agent.custom_tool_use", **fields: Any) -> dict[str, Any]:
    return event(kind, id=call_id, name=name, **{"input": {"a": 1}, **fields})


def resulted(call_id: str, text: str = "2", **fields: Any) -> dict[str, Any]:
    return event("agent.tool_result", tool_use_id=call_id, content=[{"type": "text", "text": text}], **fields)


def spent(**usage: Any) -> dict[str, Any]:
    return event("span.model_request_end", model_request_start_id="sevt_start", model_usage={**TEXT_USAGE, **usage})


def idle(stop: str = "end_turn", *, waits: tuple[str, ...] = (), **fields: Any) -> dict[str, Any]:
    reason: dict[str, Any] = {"type": stop}
    if stop == "requires_action":
        reason["event_ids"] = list(waits)
    return event("session.status_idle", stop_reason=reason, **fields)


def error(kind: str, retry: str = "exhausted", **fields: Any) -> dict[str, Any]:
    told = {"type": kind, "message": f"told of {kind}", "retry_status": {"type": retry}, **fields}
    return event("session.error", error=told)


def terminated() -> dict[str, Any]:
    return event("session.status_terminated")


def deleted() -> dict[str, Any]:
    return event("session.deleted")


def turn(*steps: Step, stop: str = "end_turn", **ending: Any) -> tuple[Step, ...]:
    """A turn from its beginning to its end."""
    return (running(), event("span.model_request_start"), *steps, spent(), idle(stop, **ending))
