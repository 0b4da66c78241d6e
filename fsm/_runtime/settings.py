"""How a manager behaves: what its constructor is given, checked once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from functools import cached_property
from inspect import iscoroutinefunction
from typing import Any, Literal, TypeAlias, get_args

from attrs import field, frozen

from fsm._runtime.log import LOGGER
from fsm.content import Block
from fsm.context import ContextWindow
from fsm.errors import InvalidInput
from fsm.records import Transition

__all__ = ["Observer", "OnBusy", "Settings", "utc_now"]

Observer: TypeAlias = Callable[[Transition], object]
"""Called with each move after it was committed."""

OnBusy: TypeAlias = Literal["raise", "wait"]
"""What to do when another turn runs in the conversation."""


LEASE = 600.0
"""The length of a lease, in seconds, where nothing else is said."""

MARGIN = 60.0
"""How much longer, in seconds, a lease is than the longest silence of its provider."""

LONGEST = 10 * 365 * 24 * 3600.0
"""The longest time that can be waited for, in seconds: ten years."""


def utc_now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


def _is_duration(_: object, attribute: Any, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= LONGEST:
        raise InvalidInput(f"{attribute.name} is {value!r}; it must be a positive number of seconds")


def _is_duration_or_none(instance: object, attribute: Any, value: object) -> None:
    if value is not None:
        _is_duration(instance, attribute, value)


def _is_on_busy(_: object, attribute: Any, value: object) -> None:
    if value not in get_args(OnBusy):
        raise InvalidInput(f"{attribute.name} is {value!r}; it must be one of {', '.join(get_args(OnBusy))}")


def _is_yes_or_no(_: object, attribute: Any, value: object) -> None:
    if not isinstance(value, bool):
        raise InvalidInput(f"{attribute.name} is {value!r}; it must be True or False")


def _is_window(_: object, attribute: Any, value: object) -> None:
    if not isinstance(value, ContextWindow):
        raise InvalidInput(f"{attribute.name} is {value!r}; it must be a ContextWindow")


def _are_observers(_: object, attribute: Any, value: object) -> None:
    if not isinstance(value, Collection) or isinstance(value, str | Mapping):
        raise InvalidInput(f"{attribute.name} is {value!r}; it must be a list of functions")
    for observer in value:
        if isinstance(observer, type) or not callable(observer):
            raise InvalidInput(f"{attribute.name} has {observer!r}, which can't be called")
        if iscoroutinefunction(observer) or iscoroutinefunction(getattr(observer, "__call__", None)):  # noqa: B004
            raise InvalidInput(f"{attribute.name} has {observer!r}, which is a coroutine function and nobody awaits it")


def _is_clock(_: object, attribute: Any, value: object) -> None:
    now = value() if callable(value) else None
    if not isinstance(now, datetime) or now.utcoffset() is None:
        raise InvalidInput(f"{attribute.name} is {value!r}; it must be a function that returns an aware datetime")


@frozen(kw_only=True)
class Settings:
    """How a manager behaves; see :class:`fsm.SessionManager`.

    Attributes:
        provider: the provider's name.
        wants_transcript, wants_tool_results, check_content, longest_silence: the provider's; see :mod:`fsm.provider`.
        lease: in seconds; None for a length that goes with the provider.
    """

    provider: str
    wants_transcript: bool = False
    wants_tool_results: bool = False
    check_content: Callable[[tuple[Block, ...]], object] | None = None
    longest_silence: float | None = None
    heal: bool = field(default=True, validator=_is_yes_or_no)
    context: ContextWindow = field(factory=ContextWindow, validator=_is_window)
    lease: float | None = field(default=None, validator=_is_duration_or_none)
    on_busy: OnBusy = field(default="raise", validator=_is_on_busy)
    busy_timeout: float = field(default=60.0, validator=_is_duration)
    observers: Collection[Observer] = field(default=(), validator=_are_observers)
    clock: Callable[[], datetime] = field(default=utc_now, validator=_is_clock)

    def __attrs_post_init__(self) -> None:
        silence = self.longest_silence
        if self.lease is not None and silence is not None and self.lease < silence:
            fields = {"provider": self.provider, "lease": self.lease, "longest_silence": silence}
            LOGGER.warning("lease.check_failed", extra=fields)

    @cached_property
    def lease_seconds(self) -> float:
        """How long the lease of a turn is: as was asked for, or longer than the provider may be silent."""
        if self.lease is not None:
            return self.lease
        return max(LEASE, (self.longest_silence or 0.0) + MARGIN)

    @cached_property
    def lease_length(self) -> timedelta:
        """The same as a length of time."""
        return timedelta(seconds=self.lease_seconds)

    @classmethod
    def of(cls, store: object, provider: object, ways: tuple[str, ...], **options: Any) -> Settings:
        """The settings of a manager.

        Args:
            store: where its conversations are kept.
            provider: its AI.
            ways: the methods of which the provider must have one.
            options: what the manager was given.

        Raises:
            InvalidInput: one of them is not usable; the message names it.
        """
        if isinstance(store, type) or not all(callable(getattr(store, name, None)) for name in ("load", "commit")):
            raise InvalidInput(f"store is {_shown(store)}, which is not a store; pass one, such as SQLStore(url)")
        if isinstance(provider, type) or not any(callable(getattr(provider, way, None)) for way in ways):
            needed = " or ".join(map(repr, ways))
            raise InvalidInput(f"provider is {_shown(provider)}, which is not a provider with a method {needed}")
        name = getattr(provider, "name", None)
        if not isinstance(name, str) or not name:
            raise InvalidInput(f"provider is {_shown(provider)}, whose 'name' is {name!r}; it must be text")
        return cls(
            provider=name,
            wants_transcript=getattr(provider, "wants_transcript", False),
            wants_tool_results=getattr(provider, "wants_tool_results", False),
            check_content=getattr(provider, "check_content", None),
            longest_silence=getattr(provider, "longest_silence", None),
            **options,
        )


def _shown(thing: object) -> str:
    """What was passed, by its type: a text may be a URL with a password."""
    return f"the class {thing.__name__}" if isinstance(thing, type) else f"of type {type(thing).__name__}"
