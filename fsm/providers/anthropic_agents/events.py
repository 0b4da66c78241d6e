"""The meaning of the events of a Managed Agents session within one turn, without I/O.

:class:`Hearing` takes the SDK's events, streamed or listed, and returns the events of this library. It knows when and
how the turn ended.

* An event counts once, even if it comes several times: streamed, listed after a broken stream, and streamed again.
* A preview of a message and the message itself give its text once.
* Events of earlier turns are ignored.

Thinking has no event here; the API says only that it happens. Threads of other agents, workflow runs, outcomes and
status changes do not end a turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from fsm.events import EXPIRED, Event, TextDelta, ToolResult, ToolUse
from fsm.providers._anthropic.errors import Failed
from fsm.providers.anthropic_agents.content import Call
from fsm.providers.anthropic_agents.evidence import BORNE, EXHAUSTED, of_session_error, retry_of
from fsm.providers.anthropic_agents.reading import (
    CALLS,
    RUNS,
    SENT,
    as_json,
    call_of,
    items_of,
    of,
    pending_of,
    text_of,
    time_of,
)

__all__ = ["OVER_BUDGET", "Hearing"]

PARAGRAPH = "\n\n"
"""The text between two messages of the agent in one turn."""

_RESULTS = {
    "agent.tool_result": "tool_use_id",
    "agent.mcp_tool_result": "mcp_tool_use_id",
    "user.tool_result": "tool_use_id",
    "user.custom_tool_result": "custom_tool_use_id",
}
"""The field in which each kind of result names its call. Results of the user are handed out too, unless this turn sent
them: another worker did."""
OVER_BUDGET = "error_max_budget_usd"


class Hearing:
    """The events of a session since the message was sent.

    Attributes:
        ending: once the turn is over, how: arguments of :class:`~fsm.events.Result`; None before.
        usage: the tokens that the turn has used.
        newest: when the newest event was processed, as the API tells it.
        cause: the newest error of the session that it has not recovered from, or None.
        is_doomed: whether the service has called that error terminal.
        told: the errors of the session, for logs.
    """

    def __init__(self) -> None:
        self.ending: dict[str, Any] | None = None
        self.usage: dict[str, int] = {}
        self.newest: datetime | None = None
        self.cause: Failed | None = None
        self.is_doomed = False
        self.told: list[str] = []
        self._seen: set[str] = set()
        self._calls: dict[str, Call] = {}
        self._answered: set[str] = set()
        self._is_begun = False
        self._has_failed = False
        self._previews: dict[str, str] = {}
        self._speaker: str | None = None

    def skip(self, events: Iterable[Any], calls: Mapping[str, Call]) -> None:
        """Ignore the events of earlier turns; remember the calls among them, which may still be answered."""
        self._seen |= {event.id for event in events if of(event, "id")}
        self._calls |= calls

    def sent(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Remember the sent events, so that their answers to calls are not handed out."""
        self._answered = {str(event.get("tool_use_id") or event.get("custom_tool_use_id")) for event in events}

    def is_new(self, event: Any) -> bool:
        """Whether this event was neither heard nor skipped. A preview, and an event without an id, is not new."""
        id_ = of(event, "id")
        return isinstance(id_, str) and id_ not in self._seen

    def take(self, event: Any) -> list[Event]:
        """Take the next event; return what the caller is to hear."""
        kind = of(event, "type")
        if kind == "event_start":
            self._preview_begins(of(event, "event", "type"), of(event, "event", "id"))
            return []
        if kind == "event_delta":
            return self._preview(of(event, "event_id"), of(event, "delta", "content"))
        if not isinstance(kind, str) or self.ending is not None or of(event, "id") in self._seen:
            return []
        if self.is_new(event):
            self._seen.add(event.id)
        self._note(event)
        return self._heard(event)

    def _note(self, event: Any) -> None:
        when = time_of(event)
        if when is not None and (self.newest is None or when > self.newest):
            self.newest = when
        domain = event.type.partition(".")[0]
        if event.type in SENT or event.type in RUNS or domain in {"agent", "span"}:
            self._is_begun = True

    def _heard(self, event: Any) -> list[Event]:
        if event.type == "agent.message":
            return self._message(event)
        if event.type in CALLS:
            return self._called(event)
        if event.type in _RESULTS:
            return self._result(of(event, _RESULTS[event.type]), event)
        self._learn(event)
        return []

    def _learn(self, event: Any) -> None:
        """Take an event that the caller does not get. Types that are not named here do not matter to the turn."""
        match event.type:
            case "span.model_request_end":
                self._count(of(event, "model_usage"))
            case "span.outcome_evaluation_end":
                self._count(of(event, "usage"))
            case "session.error":
                self._fail(of(event, "error"))
            case "session.status_running":
                self.cause, self._has_failed, self.is_doomed = None, False, False
            case "session.status_idle" if self._is_begun:
                self.ending = self._judge(event)
            case "session.status_terminated" | "session.deleted":
                self.ending = self._died(event.type)

    # What the agent says and does

    def _preview_begins(self, kind: Any, speaker: Any) -> None:
        if self._is_begun and kind == "agent.message" and isinstance(speaker, str):
            self._previews.setdefault(speaker, "")

    def _preview(self, speaker: Any, content: Any) -> list[Event]:
        known, text = self._previews.get(speaker), text_of(content)
        if known is None or not text:
            return []
        self._previews[speaker] = known + text
        return self._said(speaker, text)

    def _message(self, event: Any) -> list[Event]:
        """Return the text that its preview has not given; what was withheld (``redacted``) has none."""
        text = "".join(map(text_of, items_of(of(event, "content"))))
        speaker = str(of(event, "id"))
        shown = self._previews.pop(speaker, "")
        return self._said(speaker, text.removeprefix(shown))

    def _said(self, speaker: str, text: str) -> list[Event]:
        if not text:
            return []
        between = "" if self._speaker in {None, speaker} else PARAGRAPH
        self._speaker = speaker
        return [TextDelta(between + text)]

    def _called(self, event: Any) -> list[Event]:
        """Hand out a tool call; one without an id can't be answered and is left out."""
        if not of(event, "id"):
            return []
        call = self._calls[event.id] = call_of(event)
        return [ToolUse(event.id, call.name, of(event, "input") or {})]

    def _result(self, call_id: Any, event: Any) -> list[Event]:
        if not call_id or call_id in self._answered:
            return []
        content = [as_json(block) for block in items_of(of(event, "content"))]
        return [ToolResult(call_id, content, bool(of(event, "is_error")))]

    def _count(self, usage: Any) -> None:
        counts = as_json(usage)
        for name, value in counts.items() if isinstance(counts, dict) else ():
            if isinstance(value, int) and not isinstance(value, bool):
                self.usage[name] = self.usage.get(name, 0) + value

    # How it ends

    def _fail(self, error: Any) -> None:
        """Take an error of the session: it is retried, survived, or ends the turn or the session."""
        cause, retry = of_session_error(error), retry_of(error)
        self.told.append(cause.told)
        if retry == "terminal" or cause.kind not in BORNE:
            self.cause = cause
            self._has_failed = retry in {"exhausted", "terminal"}
            self.is_doomed = retry == "terminal"

    def _died(self, why: str) -> dict[str, Any]:
        status = self.cause and self.cause.status
        return {"subtype": EXPIRED, "is_error": True, "errors": (*self.told, why), "http_status": status}

    def _judge(self, idle: Any) -> dict[str, Any]:
        reason = idle.stop_reason.type
        ending: dict[str, Any] = {"stop_reason": reason, "errors": tuple(self.told), "raw": as_json(idle)}
        if reason == "requires_action":
            pending = pending_of(idle, self._calls)
            waits = [{"tool_use_id": id_, "name": call.name, "needs": call.needs} for id_, call in pending.items()]
            return {**ending, "provider_data": {"pending": waits}}
        if reason == "refusal":
            return {**ending, "subtype": "error_refusal", "is_error": True, "errors": (*self.told, _why_refused(idle))}
        if reason == "budget_reached":
            return {**ending, "subtype": OVER_BUDGET, "is_error": True}
        if reason == "retries_exhausted" or self._has_failed:
            cause = self.cause or Failed(subtype=EXHAUSTED, told=reason)
            return {**ending, "subtype": cause.subtype, "is_error": True, "http_status": cause.status}
        return ending


def _why_refused(idle: Any) -> str:
    details = of(idle, "stop_details")
    return str(of(details, "explanation") or of(details, "category") or "the model refused")
