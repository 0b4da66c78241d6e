"""The settings of a manager: the arguments of its constructor, checked once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from functools import cached_property
from inspect import iscoroutinefunction
from typing import Any, Literal, TypeAlias, get_args

from attrs import field, frozen

from fsm._runtime.log import LOGGER
from fsm._runtime.observers import Observer
from fsm.content import Block
from fsm.context import ContextWindow
from fsm.errors import InvalidInput
from fsm.provider import BaseProvider
from fsm.store import Store

__all__ = ["OnBusy", "Settings", "check_store", "utc_now"]

OnBusy: TypeAlias = Literal["raise", "wait"]
"""The answer to a message while another turn runs: ``raise`` an error, or ``wait``."""


LEASE = 600.0
"""The length of a lease, in seconds, if nothing else is known."""

MARGIN = 60.0
"""The seconds by which a lease is longer than the longest silence of its provider."""

LONGEST = 10 * 365 * 24 * 3600.0
"""The longest duration that is accepted, in seconds: ten years."""


def utc_now() -> datetime:
    """Return the time, in UTC."""
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
            raise InvalidInput(f"{attribute.name} has {observer!r}, a coroutine function; pass a plain function")


def _is_clock(_: object, attribute: Any, value: object) -> None:
    now = value() if callable(value) else None
    if not isinstance(now, datetime) or now.utcoffset() is None:
        raise InvalidInput(f"{attribute.name} is {value!r}; it must be a function that returns an aware datetime")


_DEFAULTS = BaseProvider()


def _declared(provider: object, name: str) -> Any:
    """Return a hook of a provider, or the default of :class:`fsm.BaseProvider` if the provider lacks it."""
    return getattr(provider, name, getattr(_DEFAULTS, name))


@frozen(kw_only=True)
class Settings:
    """How a manager behaves; see :class:`fsm.SessionManager`.

    Attributes:
        provider: the provider's name.
        wants_transcript, wants_tool_results, check_content, longest_silence: see :class:`fsm.BaseProvider`.
        lease: seconds, or None for a length that goes with the provider.
    """

    provider: str
    wants_transcript: bool = BaseProvider.wants_transcript
    wants_tool_results: bool = BaseProvider.wants_tool_results
    check_content: Callable[[tuple[Block, ...]], object] = _DEFAULTS.check_content
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
        """The length of a lease in seconds: the one given, or the provider's longest silence and a margin."""
        if self.lease is not None:
            return self.lease
        return max(LEASE, (self.longest_silence or 0.0) + MARGIN)

    @cached_property
    def lease_length(self) -> timedelta:
        """The length of a lease."""
        return timedelta(seconds=self.lease_seconds)

    @classmethod
    def of(cls, store: Store, provider: object, ways: tuple[str, ...], **options: Any) -> Settings:
        """Return the settings of a manager, and attach its provider to its store.

        Args:
            store: where its conversations are kept.
            provider: its AI.
            ways: the methods of which the provider must have one.
            options: the arguments of the manager.

        Raises:
            InvalidInput: one of them is not usable; the message names it.
        """
        check_store(store)
        if isinstance(provider, type) or not any(callable(getattr(provider, way, None)) for way in ways):
            needed = " or ".join(map(repr, ways))
            raise InvalidInput(f"provider is {_shown(provider)}, which is not a provider with a method {needed}")
        name = getattr(provider, "name", None)
        if not isinstance(name, str) or not name:
            raise InvalidInput(f"provider is {_shown(provider)}, whose 'name' is {name!r}; it must be text")
        hooks = ("wants_transcript", "wants_tool_results", "check_content", "longest_silence")
        settings = cls(provider=name, **{hook: _declared(provider, hook) for hook in hooks}, **options)
        _declared(provider, "attach")(store)
        return settings


def check_store(store: object) -> None:
    """Refuse what is not a store.

    Raises:
        InvalidInput: it lacks a method of a store.
    """
    if isinstance(store, type) or not all(callable(getattr(store, name, None)) for name in ("load", "commit")):
        raise InvalidInput(f"store is {_shown(store)}, which is not a store; pass one, such as SQLStore(url)")


def _shown(thing: object) -> str:
    """Return the type of an argument, not the argument: a text may be a URL with a password."""
    return f"the class {thing.__name__}" if isinstance(thing, type) else f"of type {type(thing).__name__}"
