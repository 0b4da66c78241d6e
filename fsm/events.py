"""The events of a turn, and the meaning of its result for the machine.

A turn is a stream of events: any number of :class:`TextDelta`, :class:`ToolUse` and :class:`ToolResult`, then exactly
one :class:`Result`. All are frozen values, made by providers.

The meaning of a result is decided here and nowhere else (:attr:`Result.trigger`)::

    subtype error_during_execution        expired     the provider session is dead
    any other error                       failed      the session is still good (G14)
    no error                              succeeded

A result is an error if ``is_error`` is set *or* its subtype begins with ``error``. Both happen alone: the Claude CLI
reports failures of the API as ``subtype: "success", is_error: true``, and older versions of it reported limits with
``is_error: false``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import attrs
from attrs import field, frozen, validators

from fsm._core.table import Trigger
from fsm.content import Block, well_formed

__all__ = ["EXPIRED", "INTERRUPTED", "TOO_LARGE", "Event", "Result", "TextDelta", "ToolResult", "ToolUse"]

EXPIRED = "error_during_execution"
"""The subtype of a result whose session, the one that was to be resumed, is dead."""

INTERRUPTED = "interrupted"
"""The subtype of a turn that a person stopped; its session lives."""

TOO_LARGE = "error_context_window"
"""The subtype with which a provider reports that a new session has refused the request for its size (G22)."""

NAME_LENGTH = 512
"""The longest provider session id, subtype or stop reason that is accepted, in characters."""


def _mended(value: Any) -> Any:
    """Return the value, well-formed. A value that is nested too deeply stays, for the validator to refuse."""
    try:
        return well_formed(value)
    except RecursionError:
        return value


def _is_text(instance: object, attribute: attrs.Attribute[str], value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{type(instance).__name__}.{attribute.name} must be text, not {type(value).__name__}")


def _is_name(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """Refuse a name that some database can't hold: it has 1 to 512 characters, no NUL and no lone surrogate."""
    if value is None and attribute.default is None:
        return
    _is_text(instance, attribute, value)
    where = f"{type(instance).__name__}.{attribute.name}"
    if not 1 <= len(str(value)) <= NAME_LENGTH or "\0" in str(value):
        raise ValueError(f"{where} must have 1 to {NAME_LENGTH} characters and no NUL")
    try:
        str(value).encode()
    except UnicodeEncodeError:
        raise ValueError(f"{where} has a lone surrogate") from None


def _is_json(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """Refuse a value that can't be written as JSON with finite numbers."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{type(instance).__name__}.{attribute.name} can't be written as JSON") from error


def _is_json_object(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, Mapping):
        raise TypeError(f"{type(instance).__name__}.{attribute.name} must be an object, not {type(value).__name__}")
    _is_json(instance, attribute, dict(value))


def _is_cost(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and not (isinstance(value, int | float) and math.isfinite(value)):
        raise ValueError(f"Result.{attribute.name} must be a finite number of dollars or None")


@frozen
class TextDelta:
    """A piece of the answer's text.

    >>> TextDelta("Hel") == TextDelta(text="Hel")
    True
    """

    text: str = field(validator=_is_text)


@frozen
class ToolUse:
    """The model calls a tool.

    Attributes:
        id: names the call; its result refers to it.
        name: the tool.
        input: the arguments, a JSON object.
    """

    id: str = field(converter=_mended, validator=_is_name)
    name: str = field(converter=_mended, validator=_is_name)
    input: Mapping[str, Any] = field(factory=dict, hash=False, converter=_mended, validator=_is_json_object)


@frozen
class ToolResult:
    """The result of a tool that the provider itself ran.

    Attributes:
        tool_use_id: the call it answers.
        content: text, or a list of blocks.
        is_error: whether the tool failed.
    """

    tool_use_id: str = field(converter=_mended, validator=_is_name)
    content: Any = field(default="", hash=False, converter=_mended, validator=_is_json)
    is_error: bool = False


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = (value,)
    return tuple(well_formed(str(item)) for item in value) if isinstance(value, tuple | list) else ()


@frozen(kw_only=True)
class Result:
    """The last event of a turn: the AI's report about it.

    Attributes:
        subtype: ``success``, ``error_during_execution``, ``error_max_turns``, … as the provider says it.
        is_error: whether the turn failed, whatever the subtype says.
        session_id: the provider session id under which this conversation can be resumed, or None.
        errors: the errors, in the provider's words; for logs, not for the person at the other end.
        stop_reason: the reason why the model stopped, such as ``end_turn`` or ``max_tokens``.
        usage: token counts as the provider gives them.
        cost_usd: the cost of the turn, in US dollars.
        http_status: the HTTP status of the failed call, if one failed.
        text: the whole answer, for providers that send no deltas.
        raw: the result as the provider printed it; not stored.
        content: the answer as the provider's own blocks, with thinking signatures and citations, to be stored as they
            are. If it is None, the content of the other events is stored.
        provider_data: a small JSON object that the provider wants to see again with this answer, or None.

    >>> Result(session_id="s-1").trigger
    <Trigger.SUCCEEDED: 'succeeded'>
    >>> Result(is_error=True, http_status=429).trigger
    <Trigger.FAILED: 'failed'>
    >>> Result(subtype="error_during_execution", is_error=True).trigger
    <Trigger.EXPIRED: 'expired'>
    """

    subtype: str = field(default="success", converter=_mended, validator=_is_name)
    is_error: bool = field(default=False, validator=validators.instance_of(bool))
    session_id: str | None = field(default=None, validator=_is_name)
    errors: tuple[str, ...] = field(default=(), converter=_texts)
    stop_reason: str | None = field(default=None, converter=_mended, validator=_is_name)
    usage: Mapping[str, Any] | None = field(default=None, hash=False, converter=_mended, validator=_is_json)
    cost_usd: float | None = field(default=None, validator=_is_cost)
    http_status: int | None = field(default=None, validator=validators.optional(validators.instance_of(int)))
    text: str | None = field(
        default=None, converter=_mended, validator=validators.optional(validators.instance_of(str))
    )
    raw: Mapping[str, Any] | None = field(default=None, hash=False, repr=False)
    content: tuple[Block, ...] | None = field(
        default=None, hash=False, repr=False, converter=_mended, validator=_is_json
    )
    provider_data: Mapping[str, Any] | None = field(
        default=None, hash=False, repr=False, converter=_mended, validator=_is_json
    )

    @property
    def trigger(self) -> Trigger:
        """The trigger that this result pulls in the machine."""
        if self.subtype == EXPIRED:
            return Trigger.EXPIRED
        if self.is_error or self.subtype.startswith("error"):
            return Trigger.FAILED
        return Trigger.SUCCEEDED

    @property
    def reason(self) -> str:
        """The kind of the result in a few words, for logs; never the provider's own text.

        >>> Result(is_error=True, http_status=429).reason
        'success, HTTP 429'
        """
        return self.subtype if self.http_status is None else f"{self.subtype}, HTTP {self.http_status}"

    @property
    def summary(self) -> str:
        """One plain sentence for the person at the other end; never the provider's own text.

        >>> Result(is_error=True, http_status=429).summary
        'The AI is receiving too many requests at the moment; please try again in a little while.'
        """
        match self.trigger:
            case Trigger.SUCCEEDED:
                return _SENTENCES.get(self.stop_reason or "", "The AI has answered.")
            case Trigger.EXPIRED:
                return "The AI's session had ended and is being renewed; please send your message again."
        for symptom in (self.subtype, self.http_status, self.stop_reason):
            if symptom in _SENTENCES:
                return _SENTENCES[symptom]
        if self.http_status is not None and self.http_status >= 500:
            return "The AI service has a problem; please try again later."
        return "The AI could not finish this answer; please try again."

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Result:
        """Read a result as the Claude CLI prints it (``--output-format json``).

        The CLI prints a person's interrupt with the subtype of a dead session. Such a result is told apart by its
        ``terminal_reason`` and read as ``interrupted``: the session lives.

        Args:
            mapping: the JSON object; unknown fields are kept in :attr:`raw`.

        Raises:
            TypeError, ValueError: a field can't come from the CLI, such as an id that is a number.

        >>> Result.from_mapping({"subtype": "success", "is_error": False, "session_id": "s-1"}).session_id
        's-1'
        """
        subtype = mapping.get("subtype", "success")
        if subtype == EXPIRED and str(mapping.get("terminal_reason") or "").startswith("aborted"):
            subtype = INTERRUPTED
        return cls(
            subtype=subtype,
            is_error=bool(mapping.get("is_error")),
            session_id=mapping.get("session_id") or None,
            errors=mapping.get("errors") or (),
            stop_reason=mapping.get("stop_reason") or None,
            usage=mapping.get("usage"),
            cost_usd=mapping.get("total_cost_usd"),
            http_status=mapping.get("api_error_status"),
            text=mapping.get("result"),
            raw=dict(mapping),
        )


Event: TypeAlias = TextDelta | ToolUse | ToolResult | Result
"""An event of a provider."""

_SENTENCES: Mapping[int | str | None, str] = {
    400: "The AI service did not accept this request; please try again, or say it differently.",
    401: "The AI service is not logged in; the operator of this application must renew its key.",
    402: "The AI account has run out of credit; the operator of this application must top it up.",
    403: "The AI service refuses this account; the operator of this application must check its permissions.",
    404: "The AI model or service was not found; the operator of this application must check its settings.",
    408: "The AI took too long to answer; please try again.",
    413: "This conversation or message is too large for the AI; please send less.",
    429: "The AI is receiving too many requests at the moment; please try again in a little while.",
    504: "The AI took too long to answer; please try again.",
    529: "The AI is overloaded at the moment; please try again in a little while.",
    INTERRUPTED: "The answer was stopped.",
    "error_busy": "The AI is still busy with an earlier message; please try again in a little while.",
    "error_configuration": "The AI is not set up correctly; the operator of this application must check its settings.",
    "error_connection": "The AI service can't be reached; please try again.",
    "error_context_window": "This conversation is too long for the AI; please start a new one.",
    "error_response": "The AI's answer could not be read; please try again.",
    "error_message": "The AI service did not accept this message; please change it, or send less.",
    "error_max_turns": "The AI reached its limit of steps for one answer.",
    "error_max_budget_usd": "The AI reached its spending limit for one answer.",
    "error_max_structured_output_retries": "The AI could not give its answer in the required form.",
    "error_refusal": "The AI declined to answer this.",
    "max_tokens": "The AI's answer reached its greatest length and was cut off.",
    "refusal": "The AI declined to answer this.",
    "requires_action": "The AI is waiting for the result of a tool, or for leave to use one.",
    "tool_use": "The AI is waiting for the result of a tool.",
}
