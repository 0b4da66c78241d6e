"""Meaning of the Claude CLI's results, as plain data and without I/O: what is dead, and what is only a failed turn.

The CLI ends each turn with a result. :func:`judge` turns it into ours. A session is dead only by the evidence that is
listed here; a result that nobody foresaw is a failed turn, and the session lives (G22).
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from fsm import Trigger
from fsm.events import EXPIRED, INTERRUPTED, NAME_LENGTH, Result

__all__ = ["FULL", "GONE", "REASONS", "REFUSED", "Meaning", "judge"]

FULL = "error_context_window"
"""The subtype of a new session that is refused for its size."""

UNFORESEEN = "error_cli"
"""The subtype of a turn that the CLI gave up for a reason that says nothing about the session."""


class Meaning(enum.Enum):
    """The meaning of a ``terminal_reason`` for the turn and its session."""

    REPORTED = "the rest of the result says it"
    FAILED = "the turn failed, whatever the rest of the result says; the session is good"
    STOPPED = "somebody stopped the turn; the session is good"
    FULL = "the session takes no further message"


REASONS: Mapping[str, Meaning] = {
    "completed": Meaning.REPORTED,
    "max_turns": Meaning.REPORTED,
    "budget_exhausted": Meaning.REPORTED,
    "structured_output_retry_exhausted": Meaning.REPORTED,
    "api_error": Meaning.REPORTED,
    "image_error": Meaning.FAILED,
    "model_error": Meaning.FAILED,
    "malformed_tool_use_exhausted": Meaning.FAILED,
    "rapid_refill_breaker": Meaning.FAILED,
    "tool_deferred_unavailable": Meaning.FAILED,
    "turn_setup_failed": Meaning.FAILED,
    "aborted_streaming": Meaning.STOPPED,
    "aborted_tools": Meaning.STOPPED,
    "background_requested": Meaning.STOPPED,
    "hook_stopped": Meaning.STOPPED,
    "stop_hook_prevented": Meaning.STOPPED,
    "tool_deferred": Meaning.STOPPED,
    "blocking_limit": Meaning.FULL,
    "prompt_too_long": Meaning.FULL,
}
"""Each ``terminal_reason`` that the bundled CLI knows. One that is not here means nothing."""

GONE = (
    "No conversation found with session ID",
    "requires a valid session ID",
    "transcript is a symbolic link",
    "transcript path is not a regular file",
    "illegal operation on a directory",
    "transcript is over the size limits",
)
"""The CLI's sentences for a session that it can't resume, today or tomorrow. Other failures to resume may pass."""

REFUSED = re.compile(
    r"API Error: 400 (?:\{.*?\"message\":\s*\")?"
    r"(?:messages[.:]|due to tool use concurrency|orphaned tool_result|duplicate tool_use ID)"
)
"""The API refuses the messages of the transcript. The CLI keeps them all and sends them again with the next one."""

_ECHO = "\n\nOriginal prompt:"
"""The text after this mark in the report of a hook is the person's message, and not an error."""

_TOO_LARGE = 413
_UNNAMED = frozenset({400, _TOO_LARGE})
"""A new session that begins with one of these is not worth a name: nothing is lost with it."""


def judge(mapping: Mapping[str, Any], resumed: str | None, *, unpaid: bool = False, stopped: bool = False) -> Result:
    """Return the result that one of the CLI's means.

    Args:
        mapping: the CLI's result, as it prints it. A field of another type than the CLI prints counts as missing.
        resumed: the session that the turn resumed, or None if it began one.
        unpaid: the CLI said that the account has no credit, which the API reports as 400; it is told as 402.
        stopped: the CLI said that a hook stopped the turn; one that was completed was not.

    >>> judge({"subtype": "success", "is_error": True, "api_error_status": 429}, "s-1").trigger
    <Trigger.FAILED: 'failed'>
    >>> judge({"subtype": "success", "is_error": True, "terminal_reason": "blocking_limit"}, "s-1").trigger
    <Trigger.EXPIRED: 'expired'>
    >>> judge({"subtype": "error_during_execution", "errors": ["never heard of"]}, "s-1").trigger
    <Trigger.FAILED: 'failed'>
    """
    result = Result.from_mapping(_readable(mapping))
    reason = mapping.get("terminal_reason")
    meaning = REASONS.get(reason, Meaning.REPORTED) if isinstance(reason, str) else Meaning.REPORTED
    if meaning is Meaning.STOPPED or (stopped and reason != "completed"):
        result = attrs.evolve(result, subtype=INTERRUPTED, is_error=True)
    elif meaning is not Meaning.REPORTED:
        result = attrs.evolve(result, is_error=True)
    if result.trigger is Trigger.SUCCEEDED:
        return result
    told = result.errors or ((result.text.partition(_ECHO)[0],) if result.text else ())
    result = attrs.evolve(result, errors=told, text=None)
    if unpaid:
        result = attrs.evolve(result, http_status=402)
    if result.subtype == EXPIRED:
        if resumed is not None and _says(result, GONE):
            return result
        result = attrs.evolve(result, subtype=UNFORESEEN)
    return _with_session(result, meaning, resumed)


def _with_session(result: Result, meaning: Meaning, resumed: str | None) -> Result:
    """Return the failed result, dead or with the session that it may name."""
    is_refused = result.http_status == 400 and any(REFUSED.match(said) for said in result.errors)
    if resumed is not None:
        if meaning is Meaning.FULL or is_refused:
            return attrs.evolve(result, subtype=EXPIRED, session_id=resumed)
        return attrs.evolve(result, session_id=resumed)
    if meaning is Meaning.FULL or result.http_status == _TOO_LARGE:
        return attrs.evolve(result, subtype=FULL, session_id=None)
    return attrs.evolve(result, session_id=None) if result.http_status in _UNNAMED else result


def _says(result: Result, sentences: tuple[str, ...]) -> bool:
    return any(sentence in said for said in result.errors for sentence in sentences)


def _is_name(value: object) -> bool:
    return (
        isinstance(value, str)
        and 1 <= len(value) <= NAME_LENGTH
        and "\0" not in value
        and not any("\ud800" <= letter <= "\udfff" for letter in value)
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_json(value: object) -> bool:
    match value:
        case Mapping():
            return all(isinstance(name, str) and _is_json(inner) for name, inner in value.items())
        case list() | tuple():
            return all(_is_json(inner) for inner in value)
        case float():
            return math.isfinite(value)
    return value is None or isinstance(value, str | int)


_FIELDS: Mapping[str, Callable[[Any], bool]] = {
    "subtype": _is_name,
    "is_error": lambda value: isinstance(value, bool),
    "session_id": _is_name,
    "errors": lambda value: isinstance(value, list | tuple | str),
    "stop_reason": _is_name,
    "usage": lambda value: isinstance(value, Mapping) and _is_json(value),
    "total_cost_usd": _is_number,
    "api_error_status": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "terminal_reason": _is_name,
    "result": lambda value: isinstance(value, str),
}


def _readable(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result without the fields that are not what the CLI prints; one without a subtype is an error."""
    kept = {name: value for name, value in mapping.items() if name not in _FIELDS or _FIELDS[name](value)}
    if "subtype" not in kept:
        kept |= {"subtype": "error_response", "is_error": True}
    return kept
