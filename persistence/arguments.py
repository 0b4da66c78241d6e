"""The arguments of a store and of its reads, checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Literal, TypeAlias

from fsm.errors import InvalidInput
from fsm.records import Conversation
from fsm.store import Step
from persistence.mapping import micros

__all__ = ["EVERYTHING", "IS_SYNCED", "Durability", "bound", "check_seconds", "check_size", "lease_of"]

Durability: TypeAlias = Literal["acknowledged", "strict", "relaxed"]
"""The commits that survive power loss; see :class:`persistence.SQLStore`."""

IS_SYNCED: Mapping[Durability, Callable[[Step], bool]] = {
    "acknowledged": attrgetter("must_be_durable"),
    "strict": lambda _: True,
    "relaxed": lambda _: False,
}
"""For each durability, whether the commit of a step must survive loss of power."""

EVERYTHING = 2**62
"""A number that no table reaches."""


def check_seconds(name: str, seconds: object) -> None:
    """Raise InvalidInput unless the argument is a number of seconds."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds >= 0:
        raise InvalidInput(f"{name} is {seconds!r}; it must be a number of seconds, and not negative")


def check_size(name: str, size: object) -> None:
    """Raise InvalidInput unless the argument is a number of connections."""
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise InvalidInput(f"{name} is {size!r}; it must be a whole number, at least 1")


def lease_of(conversation: Conversation) -> tuple[int, int]:
    """Return the position of a running conversation: the end of its lease, and its id."""
    if conversation.running is None:
        raise InvalidInput("no turn runs in the conversation to go on after", conversation.key)
    return micros(conversation.running.until), conversation.id


def bound(name: str, number: int | None) -> int:
    """Return a limit, or a number to stop before; for None one that no table reaches."""
    if number is not None and not 0 <= number <= EVERYTHING:
        raise InvalidInput(f"{name} is {number}; it must not be negative")
    return EVERYTHING if number is None else number
