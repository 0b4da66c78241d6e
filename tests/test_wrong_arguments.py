"""Whatever a manager can't work with is refused when it is made, by an InvalidInput that names the argument."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from fsm import AsyncSessionManager, ContextWindow, InvalidInput, SessionManager, Transition
from fsm.providers import DemoProvider
from fsm.testing import ReferenceStore
from persistence import SQLStore

pytestmark = pytest.mark.thorough

NAN, INFINITE = float("nan"), float("inf")


async def asynchronous(transition: Transition) -> None:
    """An observer that nobody would await."""


class AsynchronousObserver:
    """Such an observer as an object."""

    async def __call__(self, transition: Transition) -> None:
        """Do nothing."""


class Nameless:
    """A provider without a name."""

    def stream(self, request: Any) -> Any:
        """Answer nothing."""
        return iter(())


class HalfAStore:
    """A store that can't commit."""

    def load(self, key: str) -> None:
        """Nothing is there."""


def naive() -> datetime:
    """A clock without a time zone."""
    return datetime(2026, 1, 1)  # noqa: DTZ001  # that is what is tried


WRONG: dict[str, tuple[str, Any]] = {
    "a string for a store": ("store", "sqlite:///chat.db"),
    "no store": ("store", None),
    "a class for a store": ("store", ReferenceStore),
    "the class of the SQL store": ("store", SQLStore),
    "a store that can't commit": ("store", HalfAStore()),
    "a class for a provider": ("provider", DemoProvider),
    "no provider": ("provider", None),
    "a string for a provider": ("provider", "demo"),
    "a provider without a name": ("provider", Nameless()),
    "heal as a number": ("heal", 1),
    "heal as a text": ("heal", "yes"),
    "no heal": ("heal", None),
    "context as a number": ("context", 100),
    "context as a text": ("context", "x"),
    "context as a class": ("context", ContextWindow),
    "lease as a text": ("lease", "x"),
    "lease as no number": ("lease", NAN),
    "an endless lease": ("lease", INFINITE),
    "lease as true": ("lease", True),
    "no time for a lease": ("lease", 0),
    "a negative lease": ("lease", -1.0),
    "a lease beyond all times": ("lease", 1e300),
    "on_busy as another word": ("on_busy", "queue"),
    "on_busy as true": ("on_busy", True),
    "on_busy as a list": ("on_busy", ["wait"]),
    "busy_timeout as a text": ("busy_timeout", "x"),
    "busy_timeout as no number": ("busy_timeout", NAN),
    "busy_timeout as true": ("busy_timeout", True),
    "no time to wait": ("busy_timeout", 0),
    "no busy_timeout": ("busy_timeout", None),
    "one observer without a list": ("observers", print),
    "observers that can't be called": ("observers", [print, "x"]),
    "observers as a text": ("observers", "print"),
    "no observers": ("observers", None),
    "a clock that is a time": ("clock", datetime(2026, 1, 1, tzinfo=UTC)),
    "no clock": ("clock", None),
    "a naive clock": ("clock", naive),
    "a clock that tells seconds": ("clock", lambda: 0.0),
    "a clock that tells a text": ("clock", lambda: "noon"),
}


@pytest.mark.parametrize("kind", [SessionManager, AsyncSessionManager])
@pytest.mark.parametrize(("name", "value"), WRONG.values(), ids=WRONG)
def test_a_manager_refuses_what_it_could_not_work_with(kind: Callable[..., object], name: str, value: object) -> None:
    arguments = {"store": ReferenceStore(), "provider": DemoProvider(), name: value}
    with pytest.raises(InvalidInput, match=name):
        kind(**arguments)


@pytest.mark.parametrize("observer", [asynchronous, AsynchronousObserver(), partial(asynchronous)])
def test_a_synchronous_manager_refuses_an_observer_that_it_would_have_to_await(observer: Any) -> None:
    with pytest.raises(InvalidInput, match="observers"):
        SessionManager(ReferenceStore(), DemoProvider(), observers=[observer])


@pytest.mark.parametrize("name", ["max_turns", "threads"])
@pytest.mark.parametrize("value", [0, -1, True, "3", 1.5, NAN, None])
def test_an_async_manager_refuses_numbers_that_count_nothing(name: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=name):
        AsyncSessionManager(ReferenceStore(), DemoProvider(), **{name: value})


@pytest.mark.parametrize("name", ["max_messages", "max_characters"])
@pytest.mark.parametrize("value", ["x", -1, True, False, 1.5, NAN, None, [1]])
def test_a_context_window_refuses_what_counts_nothing(name: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=name):
        ContextWindow(**{name: value})


@pytest.mark.parametrize(
    "options",
    [
        {"lease": 1},
        {"lease": 0.5, "busy_timeout": 1},
        {"observers": (print,)},
        {"observers": {print}},
        {"context": ContextWindow(max_messages=0)},
        {"context": None},
        {"clock": lambda: datetime.now(UTC)},
    ],
)
def test_what_a_manager_can_work_with_is_taken(options: dict[str, Any]) -> None:
    for kind in (SessionManager, AsyncSessionManager):
        kind(ReferenceStore(), DemoProvider(), **options)
