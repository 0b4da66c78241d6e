"""Arguments, checked before anything is written: keys, metadata, the reason of a reset."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from fsm.errors import InvalidInput, InvalidKey

__all__ = ["KEY_LENGTH", "REASON_LENGTH", "check_key", "check_reason", "json_object", "new_id"]

KEY_LENGTH = 512
"""The longest key, in characters."""
REASON_LENGTH = 512
"""The longest reason of a reset, in characters."""


def json_object(metadata: Mapping[str, Any] | None, key: str) -> dict[str, Any]:
    """Return a copy of the metadata as a JSON object; an empty one for None.

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


def check_key(key: object, name: str = "key") -> str:
    """Return the key, if it is one: 1 to 512 characters of text, no NUL, no lone surrogate.

    Raises:
        InvalidKey: it is not; the message says why.

    >>> check_key("slack:C042")
    'slack:C042'
    >>> check_key("")
    Traceback (most recent call last):
    ...
    fsm.errors.InvalidKey: the key is empty; a key has 1 to 512 characters
    """
    if not isinstance(key, str):
        raise InvalidKey(f"the {name} is of type {type(key).__name__}; a key is text of 1 to {KEY_LENGTH} characters")
    if not key:
        raise InvalidKey(f"the {name} is empty; a key has 1 to {KEY_LENGTH} characters")
    if len(key) > KEY_LENGTH:
        raise InvalidKey(f"the {name} has {len(key)} characters; a key has 1 to {KEY_LENGTH}")
    if "\0" in key:
        raise InvalidKey(f"the {name} has a NUL character, which no database keeps; leave it out")
    try:
        key.encode()
    except UnicodeEncodeError:
        raise InvalidKey(f"the {name} has a lone surrogate; a key must be text in UTF-8") from None
    return key


def new_id(now: datetime, chance: random.Random) -> int:
    """Return a number that no other conversation has: 42 bits of milliseconds and 21 random bits.

    The milliseconds come first, so that conversations which began together are stored together.
    """
    return (int(now.timestamp() * 1000) << 21) | chance.getrandbits(21)
