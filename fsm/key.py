"""The names of conversations and turns: those that a caller gives, and the number that a store knows one by."""

from __future__ import annotations

import random
from datetime import datetime

from fsm.errors import InvalidKey

__all__ = ["KEY_LENGTH", "check_key", "new_id"]

KEY_LENGTH = 512
"""The longest key, in characters."""


def check_key(key: object, name: str = "key") -> str:
    """The key, if it is one: 1 to 512 characters of text, no NUL, no lone surrogate.

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
    """A number that no other conversation has: 42 bits of milliseconds and 21 bits of chance.

    The milliseconds come first, so that conversations which began together are stored together.
    """
    return (int(now.timestamp() * 1000) << 21) | chance.getrandbits(21)
