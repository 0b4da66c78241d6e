"""The evidence that a Managed Agents session is dead, without I/O.

A session is dead only if the service says so of that session (G22):

* it is retrieved, and is archived or terminated;
* retrieving it is refused, by the API's own JSON error, because there is no such session;
* its events say that it was terminated or deleted;
* its events report a terminal error of the session's own, and it does not go back to waiting for a message.

Everything else is an error of the turn. Each line of the reference is decided here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from fsm.providers._anthropic.errors import Failed

__all__ = ["BORNE", "EXHAUSTED", "ended_as", "is_gone", "is_of_the_session", "of_session_error", "retry_of"]

EXHAUSTED = "error_retries_exhausted"

BORNE = frozenset(
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

_OWN = BORNE | {
    "compaction_limit_reached_error",
    "model_request_failed_error",
    "tool_use_limit_reached_error",
    "unknown_error",
}
"""Errors that say something about the session, and nothing about the account that it belongs to."""

_OTHERS = re.compile(
    r"\b(agents?|environments?|workspaces?|organi[sz]ations?|models?|betas?|vaults?|files?|endpoints?|routes?|paths?"
    r"|urls?|pages?|headers?|keys?|accounts?)\b",
    re.IGNORECASE,
)
"""Things other than a session that may be missing."""

_BETA = re.compile(r"\b(anthropic-)?(betas?|headers?|version)\b", re.IGNORECASE)


def ended_as(session: Any) -> str | None:
    """Return why a session that was retrieved can't be resumed, or None if it may live."""
    archived_at = getattr(session, "archived_at", None)
    if isinstance(archived_at, datetime | str) and archived_at:
        return "the session is archived"
    return "the session is terminated" if getattr(session, "status", None) == "terminated" else None


def is_gone(failed: Failed, session_id: str) -> bool:
    """Return whether a refusal to retrieve a session says that there is no session of this id.

    A gateway's page, and an error about an agent, a header or a key, are not evidence about the session.
    """
    if not failed.is_of_the_api or failed.code is not None:
        return False
    is_named = session_id in failed.words or "session" in failed.words.lower()
    if (failed.status, failed.kind) == (404, "not_found_error"):
        return is_named or not _OTHERS.search(failed.words)
    return failed.is_refusal and is_named and not _BETA.search(failed.words)


def of_session_error(error: Any) -> Failed:
    """Return what a ``session.error`` says, with the HTTP status that stands for it."""
    kind, message = (getattr(error, name, None) for name in ("type", "message"))
    subtype, status = _MEANING.get(str(kind), (EXHAUSTED, None))
    return Failed(subtype=subtype, told=f"{kind or 'error'}: {message or 'no message'}", status=status, kind=str(kind))


def is_of_the_session(failed: Failed | None) -> bool:
    """Return whether a terminal error is known, and is about the session rather than its account."""
    return failed is not None and failed.kind in _OWN


def retry_of(error: Any) -> str | None:
    """Return whether the service tries again: ``retrying``, ``exhausted`` or ``terminal``; None if it does not say."""
    kind = getattr(getattr(error, "retry_status", None), "type", None)
    return kind if isinstance(kind, str) else None
