"""What an error of the Anthropic SDK says, without a word on what it means for a session.

That is for each provider to decide: :class:`Failed` tells what kind of failure it was, the status that stands for it,
also where the API reports it in the middle of a stream, and the API's own words; never a gateway's error page.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

__all__ = ["Failed", "failures"]

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

_ACCOUNT = frozenset({"organization_on_hold", "workspace_policy_violation"})
"""Codes of errors that are reported like a bad request, but are about the account."""


def failures() -> tuple[type[Exception], ...]:
    """What the SDK raises when a call fails: its own errors, those of the network, and ``ValueError`` for an answer
    that can't be read."""
    import anthropic
    import httpx2

    return anthropic.AnthropicError, httpx2.HTTPError, httpx2.StreamError, ValueError


@frozen
class Failed:
    """A failed call.

    Attributes:
        subtype: ``error_api``, ``error_connection`` or ``error_response``.
        told: what went wrong, for logs.
        status: the HTTP status that stands for it, if the API answered.
        kind: the API's name for it, such as ``not_found_error``, if it gave one.
        is_refusal: whether the API found fault with the request itself, and not with the account that sent it.
    """

    subtype: str
    told: str
    status: int | None = None
    kind: str | None = None
    is_refusal: bool = False

    @property
    def is_transient(self) -> bool:
        """Whether the same call may succeed a little later."""
        if self.status is None:
            return self.subtype == "error_connection"
        return self.status >= 500 or self.status in {408, 429}

    @classmethod
    def of(cls, error: Exception) -> Failed:
        """What one of :func:`failures` says."""
        import anthropic

        if isinstance(error, anthropic.APIStatusError):
            status = _status(error)
            refusal = status == 400 and error.type == "invalid_request_error" and error.error_code not in _ACCOUNT
            return cls("error_api", _told(error), status, error.type, refusal)
        if isinstance(error, anthropic.CredentialsError | anthropic.WorkloadIdentityError):
            return cls("error_api", f"no credentials ({type(error).__name__})", 401)
        if isinstance(error, anthropic.APIResponseValidationError | ValueError):
            return cls("error_response", f"the answer can't be read ({type(error).__name__})")
        return cls("error_connection", f"{type(error).__name__}: {error}")


def _status(error: Any) -> int:
    if error.type == "billing_error" or (error.type == "invalid_request_error" and _lacks_credit(error)):
        return 402
    # An error in the middle of a stream comes with the status of the stream, 200.
    return int(error.status_code) if error.status_code >= 400 else _STATUS.get(error.type, 500)


def _lacks_credit(error: Any) -> bool:
    # The API has no code for it; should its wording change, the price is a session renewed in vain.
    return "credit balance" in str(error.api_message).lower()


def _told(error: Any) -> str:
    """The API's own words; the text of a gateway's error page is none."""
    said = f"{error.type}: {error.api_message}" if error.type else f"HTTP status {error.status_code}"
    return f"{said} (request {error.request_id})" if error.request_id else said
