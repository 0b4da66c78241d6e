"""How a manager behaves: what its constructor is given, checked once."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Literal, TypeAlias, get_args

from attrs import field, frozen

from fsm.content import Block
from fsm.context import ContextWindow
from fsm.errors import InvalidInput
from fsm.records import Transition

__all__ = ["Observer", "OnBusy", "Settings", "utc_now"]

Observer: TypeAlias = Callable[[Transition], object]
"""Called with each move after it was committed."""

OnBusy: TypeAlias = Literal["raise", "wait"]
"""What to do when another turn runs in the conversation."""


def utc_now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


def _positive(_: object, attribute: Any, value: object) -> None:
    if not isinstance(value, int | float) or not value > 0:
        raise InvalidInput(f"{attribute.name} is {value!r}; it must be a positive number of seconds")


def _one_of_on_busy(_: object, attribute: Any, value: object) -> None:
    if value not in get_args(OnBusy):
        raise InvalidInput(f"{attribute.name} is {value!r}; it must be one of {', '.join(get_args(OnBusy))}")


@frozen(kw_only=True)
class Settings:
    """How a manager behaves; see :class:`fsm.SessionManager`."""

    provider: str
    wants_transcript: bool = False
    check_content: Callable[[tuple[Block, ...]], object] | None = None
    heal: bool = True
    context: ContextWindow = field(factory=ContextWindow)
    lease: float = field(default=600.0, validator=_positive)
    on_busy: OnBusy = field(default="raise", validator=_one_of_on_busy)
    busy_timeout: float = field(default=60.0, validator=_positive)
    observers: Collection[Observer] = ()
    clock: Callable[[], datetime] = utc_now

    @cached_property
    def lease_length(self) -> timedelta:
        """The lease as a length of time."""
        return timedelta(seconds=self.lease)
