"""Arguments, checked before anything is written: the metadata of a conversation, the reason of a reset."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fsm.errors import InvalidInput

__all__ = ["REASON_LENGTH", "check_reason", "json_object"]

REASON_LENGTH = 512
"""The longest reason of a reset, in characters."""


def json_object(metadata: Mapping[str, Any] | None, key: str) -> dict[str, Any]:
    """The metadata as a JSON object of its own; an empty one for None.

    Raises:
        InvalidInput: it can't be written as JSON, or is not an object.

    >>> json_object({"user": "u1"}, "ticket-42")
    {'user': 'u1'}
    """
    if metadata is None:
        return {}
    try:
        if not isinstance(metadata, Mapping):
            raise TypeError(type(metadata).__name__)
        normal: dict[str, Any] = json.loads(json.dumps(dict(metadata), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"the metadata is not a JSON object ({type(error).__name__}: {error})", key) from error
    return normal


def check_reason(reason: object, key: str) -> None:
    """Refuse a reason that is not a line of text.

    Raises:
        InvalidInput: it is empty, too long, or has several lines.
    """
    if not isinstance(reason, str) or not reason.strip() or len(reason) > REASON_LENGTH or not reason.isprintable():
        raise InvalidInput(f"a reason is a line of text of 1 to {REASON_LENGTH} characters", key)
