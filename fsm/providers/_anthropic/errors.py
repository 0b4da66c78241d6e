"""The errors of the Anthropic SDK, without their meaning for a session.

Each provider decides what an error means for its session. :class:`Failed` holds the kind of the failure, its HTTP
status and the API's own words, also for errors in the middle of a stream. It never holds a gateway's error page.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

__all__ = ["Failed"]

_STATUS: Mapping[str | None, int] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""The HTTP status of each type of error, for errors that come in the middle of a stream."""

_ACCOUNT = frozenset(
    {
        "claude_code_key_creator_not_member",
        "claude_code_version_too_old",
        "cmek_key_disabled",
        "cmek_key_network_blocked",
        "cmek_not_approved",
        "organization_on_hold",
        "organization_type_not_supported",
        "parent_organization_required",
        "storage_not_approved",
        "user_profile_not_found",
        "user_profile_required",
        "workspace_human_review_disabled",
        "workspace_policy_violation",
    }
)
"""Codes of errors that are reported like a bad request, but are about the account."""

_SPENT = frozenset(
    {
        "contract_spend_limit_reached",
        "enforced_spend_limit_reached",
        "linked_organization_billing_unavailable",
        "linked_organization_spend_limit_reached",
    }
)
"""Codes of errors that pass only when somebody pays; waiting a little does not help, whatever their status says."""

_SPENT_WORDS = ("credit balance", "spend limit", "usage limit")
"""How the API words the same where it has no code for it. Should its wording change, the status stays 400."""


@frozen(kw_only=True)
class Failed:
    """A failed call.

    Attributes:
        subtype: ``error_api``, ``error_connection`` or ``error_response``.
        told: what went wrong, for logs.
        status: the HTTP status that stands for it, if the API answered.
        kind: the API's name for it, such as ``not_found_error``, if it gave one.
        is_refusal: whether the API found fault with the request itself, and not with the account that sent it.
        code: the API's code for the cause, such as ``file_expired``, if it gave one.
        words: the API's own words; the empty text if it gave none.
        paths: the places in the request that it names beside its words.
        is_of_the_api: whether the error has the shape that the API gives its errors, and not that of a gateway.
    """

    subtype: str
    told: str
    status: int | None = None
    kind: str | None = None
    is_refusal: bool = False
    code: str | None = None
    words: str = ""
    paths: tuple[str, ...] = ()
    is_of_the_api: bool = False

    @property
    def is_transient(self) -> bool:
        """Whether the same call may succeed a little later."""
        if self.status is None:
            return self.subtype == "error_connection"
        return self.status >= 500 or self.status in {408, 429}

    @classmethod
    def of(cls, error: Exception) -> Failed:
        """Return an exception of the SDK as a failure; an unknown one counts as an answer that can't be read."""
        import anthropic
        import httpx2

        if isinstance(error, anthropic.APIStatusError):
            return cls._of_status(error)
        if isinstance(error, anthropic.CredentialsError | anthropic.WorkloadIdentityError):
            return cls(subtype="error_api", told=f"no credentials ({type(error).__name__})", status=401)
        if isinstance(error, anthropic.APIResponseValidationError | httpx2.DecodingError):
            return cls(subtype="error_response", told=f"the answer can't be read ({type(error).__name__})")
        if isinstance(error, anthropic.AnthropicError | httpx2.HTTPError | httpx2.StreamError | OSError):
            return cls(subtype="error_connection", told=f"{type(error).__name__}: {error}")
        return cls(subtype="error_response", told=f"the answer can't be read ({type(error).__name__})")

    @classmethod
    def _of_status(cls, error: Any) -> Failed:
        kind = _text(error.type)
        code = _text(error.error_code)
        words = _text(error.api_message) or ""
        status = _status(int(error.status_code), kind, code, words)
        return cls(
            subtype="error_api",
            told=_told(error, kind, words),
            status=status,
            kind=kind,
            is_refusal=status == 400 and kind == "invalid_request_error" and code not in _ACCOUNT,
            code=code,
            words=words,
            paths=_paths(error.body),
            is_of_the_api=kind is not None and isinstance(error.body, Mapping) and error.body.get("type") == "error",
        )


def _paths(body: object) -> tuple[str, ...]:
    for name in ("error", "details", "paths"):
        body = body.get(name) if isinstance(body, Mapping) else None
    return tuple(path for path in body if isinstance(path, str)) if isinstance(body, list) else ()


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _status(status: int, kind: str | None, code: str | None, words: str) -> int:
    is_spent = kind == "invalid_request_error" and any(said in words.lower() for said in _SPENT_WORDS)
    if kind == "billing_error" or code in _SPENT or is_spent:
        return 402
    # An error in the middle of a stream comes with the status of the stream, 200.
    return status if status >= 400 else _STATUS.get(kind, 500)


def _told(error: Any, kind: str | None, words: str) -> str:
    """Return the API's own words; the text of a gateway's error page is not told."""
    said = f"{kind}: {words}" if kind else f"HTTP status {error.status_code}"
    return f"{said} (request {error.request_id})" if error.request_id else said
