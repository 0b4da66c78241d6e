"""What the events of a Managed Agents session mean within one turn: pure, no I/O.

:class:`Hearing` takes the SDK's events, streamed or listed, and returns ours; it knows when the turn is over and how.
It promises that

* an event counts once, however often it comes: streamed, listed after a broken stream, and streamed again;
* a preview of a message and the message itself give its text once;
* what an earlier turn left behind is not heard.

:func:`standing` reads from the newest events of a session how an earlier turn left it.

Thinking has no event of ours; the API says only that it happens. Threads of other agents, workflow runs, outcomes and
status changes are the session's own business, and end no turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from attrs import field, frozen

from fsm.providers.agents_content import Call
from fsm.results import EXPIRED, Event, TextDelta, ToolResult, ToolUse

__all__ = ["OVER_BUDGET", "Hearing", "Standing", "standing"]

PARAGRAPH = "\n\n"
"""What stands between two messages of the agent in one turn."""

_CALLS = frozenset({"agent.tool_use", "agent.mcp_tool_use", "agent.custom_tool_use"})
_RESULTS = {
    "agent.tool_result": "tool_use_id",
    "agent.mcp_tool_result": "mcp_tool_use_id",
    "user.tool_result": "tool_use_id",
    "user.custom_tool_result": "custom_tool_use_id",
}
"""Where each kind of result names its call. The user's are told too, unless this turn sent them: a worker did."""
_SENT = frozenset({"user.message", "user.tool_result", "user.custom_tool_result", "user.tool_confirmation"})
_ENDS = frozenset({"session.status_terminated", "session.deleted"})
_RUNS = frozenset({"session.status_running", "session.status_rescheduled"})

_BORNE = frozenset(
    {
        "mcp_connection_failed_error",
        "mcp_authentication_failed_error",
        "credential_host_unreachable_error",
        "repository_authentication_error",
        "repository_checkout_error",
        "repository_clone_error",
        "repository_forbidden_error",
        "repository_not_found_error",
    }
)
"""Errors that the agent goes on without."""

_MEANING: Mapping[str, tuple[str, int | None]] = {
    "billing_error": ("error_api", 402),
    "model_overloaded_error": ("error_api", 529),
    "model_rate_limited_error": ("error_api", 429),
    "tool_use_limit_reached_error": ("error_max_turns", None),
}
"""The subtype and the HTTP status that stand for an error of the session; others are told as ``EXHAUSTED``."""

EXHAUSTED = "error_retries_exhausted"
OVER_BUDGET = "error_max_budget_usd"


@frozen
class Standing:
    """How a session stands before a message is sent to it.

    Attributes:
        is_idle: whether its events say for certain that it waits for a message.
        ended: what ended it for ever, or None.
        is_paused: whether its budget is used up; then it takes no message until the budget is raised.
        pending: the calls that it waits for an answer to.
        calls: the calls among its newest events.
    """

    is_idle: bool = False
    ended: str | None = None
    is_paused: bool = False
    pending: Mapping[str, Call] = field(factory=dict)
    calls: Mapping[str, Call] = field(factory=dict)


def standing(newest_first: Sequence[Any]) -> Standing:
    """How a session stands, from its newest events.

    >>> standing([]).is_idle
    True
    """
    calls = {event.id: _call(event) for event in newest_first if event.type in _CALLS}
    for event in newest_first:
        if event.type == "session.status_idle":
            is_paused = event.stop_reason.type == "budget_reached"
            return Standing(is_idle=True, is_paused=is_paused, pending=_pending(event, calls), calls=calls)
        if event.type in _ENDS:
            return Standing(ended=event.type)
        if event.type in _RUNS or event.type in _SENT:
            return Standing(calls=calls)
    return Standing(is_idle=not newest_first, calls=calls)


class Hearing:
    """What a session has said since the message was sent.

    Attributes:
        ending: once the turn is over, how: arguments of :class:`~fsm.results.Result`; None before.
        usage: the tokens that the turn has used.
        newest: when the newest event was processed, as the API tells it.
    """

    def __init__(self) -> None:
        self.ending: dict[str, Any] | None = None
        self.usage: dict[str, int] = {}
        self.newest: datetime | None = None
        self._seen: set[str] = set()
        self._calls: dict[str, Call] = {}
        self._answered: set[str] = set()
        self._is_begun = False
        self._previews: dict[str, str] = {}
        self._speaker: str | None = None
        self._error: Any = None
        self._told: list[str] = []

    def skip(self, events: Iterable[Any], calls: Mapping[str, Call]) -> None:
        """These events are of earlier turns; the calls among them may still be answered."""
        self._seen |= {event.id for event in events}
        self._calls |= calls

    def sent(self, events: Iterable[Mapping[str, Any]]) -> None:
        """This is going to be sent: its own answers to calls need not be told again."""
        self._answered = {str(event.get("tool_use_id") or event.get("custom_tool_use_id")) for event in events}

    def is_new(self, event: Any) -> bool:
        """Whether this event was neither heard nor skipped."""
        return event.id not in self._seen

    def take(self, event: Any) -> list[Event]:
        """Take the next event; return what the caller is to hear."""
        if event.type == "event_start":
            if self._is_begun and event.event.type == "agent.message":
                self._previews.setdefault(event.event.id, "")
            return []
        if event.type == "event_delta":
            return self._preview(event)
        if self.ending is not None or (event.id and event.id in self._seen):
            return []
        self._seen.add(event.id)
        self._note(event)
        return self._heard(event)

    def _note(self, event: Any) -> None:
        when = getattr(event, "processed_at", None)
        if isinstance(when, datetime) and (self.newest is None or when > self.newest):
            self.newest = when
        domain = event.type.partition(".")[0]
        if event.type in _SENT or event.type in _RUNS or domain in {"agent", "span"}:
            self._is_begun = True

    def _heard(self, event: Any) -> list[Event]:
        if event.type == "agent.message":
            return self._message(event)
        if event.type in _CALLS:
            self._calls[event.id] = _call(event)
            return [ToolUse(event.id, event.name, event.input)]
        if event.type in _RESULTS:
            return self._result(getattr(event, _RESULTS[event.type]), event)
        self._learn(event)
        return []

    def _learn(self, event: Any) -> None:
        """What is not for the caller to hear; every type that is not named here says nothing about the turn."""
        match event.type:
            case "span.model_request_end":
                self._count(event.model_usage)
            case "span.outcome_evaluation_end":
                self._count(event.usage)
            case "session.error":
                self._fail(event.error)
            case "session.status_running":
                self._error = None
            case "session.status_idle" if self._is_begun:
                self.ending = self._judge(event)
            case "session.status_terminated" | "session.deleted":
                self._die(event.type)

    # What the agent says and does

    def _preview(self, event: Any) -> list[Event]:
        known = self._previews.get(event.event_id)
        if known is None or event.delta.content.type != "text":
            return []
        self._previews[event.event_id] = known + event.delta.content.text
        return self._said(event.event_id, event.delta.content.text)

    def _message(self, event: Any) -> list[Event]:
        """The text that its preview has not given; what was withheld (``redacted``) has none."""
        text = "".join(block.text for block in event.content if block.type == "text")
        shown = self._previews.pop(event.id, "")
        return self._said(event.id, text.removeprefix(shown))

    def _said(self, speaker: str, text: str) -> list[Event]:
        if not text:
            return []
        between = "" if self._speaker in {None, speaker} else PARAGRAPH
        self._speaker = speaker
        return [TextDelta(between + text)]

    def _result(self, call_id: str, event: Any) -> list[Event]:
        if call_id in self._answered:
            return []
        content = [block.to_dict(mode="json", warnings=False) for block in event.content or ()]
        return [ToolResult(call_id, content, bool(event.is_error))]

    def _count(self, usage: Any) -> None:
        for name, value in usage.to_dict(mode="json", warnings=False).items():
            if isinstance(value, int):
                self.usage[name] = self.usage.get(name, 0) + value

    # How it ends

    def _fail(self, error: Any) -> None:
        """An error of the session: retried, survived, or the end of the turn or of the session."""
        self._told.append(f"{error.type}: {error.message}")
        if error.retry_status.type == "terminal":
            self._die(self._told.pop())
        elif error.type not in _BORNE:
            self._error = error

    def _die(self, why: str) -> None:
        self.ending = {"subtype": EXPIRED, "is_error": True, "errors": (*self._told, why)}

    def _judge(self, idle: Any) -> dict[str, Any]:
        reason = idle.stop_reason.type
        ending: dict[str, Any] = {
            "stop_reason": reason,
            "errors": tuple(self._told),
            "raw": idle.to_dict(mode="json", warnings=False),
        }
        if reason == "requires_action":
            pending = _pending(idle, self._calls)
            waits = [{"tool_use_id": id_, "name": call.name, "needs": call.needs} for id_, call in pending.items()]
            return {**ending, "provider_data": {"pending": waits}}
        if reason == "refusal":
            told = _why_refused(idle)
            return {**ending, "subtype": "error_refusal", "is_error": True, "errors": (*self._told, told)}
        if reason == "budget_reached":
            return {**ending, "subtype": OVER_BUDGET, "is_error": True}
        if reason == "retries_exhausted" or (self._error and self._error.retry_status.type == "exhausted"):
            subtype, status = _MEANING.get(getattr(self._error, "type", ""), (EXHAUSTED, None))
            return {**ending, "subtype": subtype, "is_error": True, "http_status": status}
        return ending


def _call(event: Any) -> Call:
    return Call(event.type, event.name, asks=getattr(event, "evaluated_permission", None) == "ask")


def _pending(idle: Any, calls: Mapping[str, Call]) -> dict[str, Call]:
    """The calls that an idle session waits for; one that is not known is taken for one of a tool of the caller's."""
    ids = getattr(idle.stop_reason, "event_ids", None) or ()
    return {id_: calls.get(id_, Call("agent.custom_tool_use", "?")) for id_ in ids}


def _why_refused(idle: Any) -> str:
    details = idle.stop_details
    return str((details and (details.explanation or details.category)) or "the model refused")
