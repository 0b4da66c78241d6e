"""Scripts for stores: what may happen to conversations, as plain data, played on a store and on the reference store.

A script is a list of :class:`Action`. Each is decided by the real functions of :mod:`fsm._core.decisions` from what the
:class:`~fsm.testing.ReferenceStore` holds, committed to both stores, and then a *look* compares what they read. An
action that is not possible at the time, such as the end of a turn when none is running, is left out. So any part of a
script is a script, and :func:`smallest` drops the actions that are not needed to show a deviation.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, TypeAlias

import attrs
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fsm._core.effects import Step
from fsm.records import Conversation
from fsm.store import Store
from fsm.testing.reference import ReferenceStore
from fsm.testing.report import Broken
from fsm.testing.store_actions import EPOCH, SCRIPTS, TOUR, Action, Clock, Script

__all__ = ["TOUR", "Action", "Look", "Play", "Script", "deviation", "search", "smallest", "some"]

PATIENCE = 10.0
"""How long to make one script smaller, in seconds."""


class Play:
    """One script on its way.

    Attributes:
        reference: what the store is compared with.
        story: what has happened so far, in words.
        acted: the key of the conversation of the last step.
        noted: a note for each key, for a look that compares one step with the next.

    Args:
        store: the store that is checked.
        prefix: put before each key, for a store that has seen other plays.
        ids: names conversations.
    """

    def __init__(self, store: Store, prefix: str = "", ids: Iterator[int] | None = None) -> None:
        self.store = store
        self.reference: Store = ReferenceStore()
        self.now = EPOCH
        self.story: list[str] = []
        self.acted: str | None = None
        self.noted: dict[str, Any] = {}
        self._prefix = prefix
        self._ids = ids or itertools.count(1)

    def conversation(self, key: str) -> Conversation:
        """Return the conversation as it must stand."""
        known = self.reference.load(self._prefix + key)
        return known or Conversation(
            key=self._prefix + key, id=next(self._ids), created_at=self.now, updated_at=self.now
        )

    def conversations(self) -> list[Conversation]:
        """Return all that there must be, in the order of their keys."""
        return list(self.reference.conversations())

    def dead(self, conversation: Conversation, session_id: str | None) -> frozenset[str]:
        """Whether the id that a result names was reported dead."""
        return self.reference.dead(conversation, [session_id] if session_id else [])

    def do(self, action: Action) -> Step | None:
        """Let one thing happen in both stores; None if it is not possible now."""
        if isinstance(action, Clock):
            self.now += timedelta(seconds=action.seconds)
            self.story.append(action.told())
            return None
        self.now += timedelta(seconds=1)
        step = action.decide(self)
        if step is None:
            return None
        self.story.append(action.told(step))
        self.commit(step)
        return step

    def commit(self, step: Step) -> None:
        """Commit a step to both stores."""
        self.acted = step.after.key
        self.reference.commit(step)
        self.attempt("commit(step)", self.store.commit, step)

    def attempt(self, what: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call the store; whatever it raises is a deviation."""
        try:
            return function(*args, **kwargs)
        except Exception as error:
            raise Broken(f"{what} raised {type(error).__name__}: {error}", self.story) from error

    def same(self, method: str, *args: Any, **kwargs: Any) -> None:
        """Compare what a method of the two stores reads.

        Raises:
            Broken: the store reads something else than the reference.
        """
        expected = getattr(self.reference, method)(*args, **kwargs)
        what = _call(method, args, kwargs)
        found = self.attempt(what, getattr(self.store, method), *args, **kwargs)
        self.compare(what, expected, found)

    def compare(self, what: str, expected: Any, found: Any) -> None:
        """Raise :class:`Broken` if what was read is not what must be read."""
        if isinstance(expected, list | tuple) and not isinstance(found, str | bytes):
            with suppress(TypeError):
                expected, found = list(expected), list(found)
        if expected != found:
            raise Broken(f"{what} {_difference(expected, found)}", self.story)


Look: TypeAlias = Callable[[Play], None]
"""Compares what the two stores of a play read; raises :class:`Broken`."""


def deviation(play: Play, script: Script, look: Look) -> Broken | None:
    """Play a script, look after each step; what deviates first, or None."""
    try:
        for action in script:
            if play.do(action) is not None:
                look(play)
    except Broken as broken:
        return broken
    return None


def search(store: Store, look: Look, examples: int, tour: Script = TOUR) -> Script | None:
    """Return a script on which a store deviates from the reference, or None if none was found.

    Args:
        store: the store; each script plays in new conversations.
        look: what is compared after each step.
        examples: how many scripts to try after the tour.
        tour: the script to begin with.
    """
    numbers, ids = itertools.count(1), itertools.count(1)
    found: list[Script] = []

    def attempt(script: Script) -> None:
        if not found and deviation(Play(store, f"{next(numbers):04}-", ids), script, look):
            found.append(script)

    attempt(tour)
    if not found and examples:
        _quietly(examples)(given(SCRIPTS)(attempt))()
    return found[0] if found else None


def some(strategy: st.SearchStrategy[Any], examples: int) -> list[Any]:
    """Return so many values of a strategy, always the same ones."""
    values: list[Any] = []

    def keep(value: Any) -> None:
        values.append(value)

    if examples:
        _quietly(examples)(given(strategy)(keep))()
    return values


def smallest(script: Script, fails: Callable[[Script], bool], patience: float = PATIENCE) -> Script:
    """Drop and simplify actions for as long as the script still fails.

    Args:
        script: a script that fails.
        fails: whether another one does.
        patience: after how many seconds to be content with what was found.

    >>> from fsm.testing.store_actions import Begin, Reset
    >>> smallest([Begin(), Clock(7), Reset("b")], lambda script: any(isinstance(a, Clock) for a in script))
    [Clock(seconds=120)]
    """
    deadline = time.monotonic() + patience
    before: Script = []
    while before != script:
        before = script
        for make_smaller in (_without, _simplified):
            for position in (*range(len(script) - 1, -1, -1), *range(len(script) - 1, -1, -1)):
                for smaller in make_smaller(script, position):
                    if time.monotonic() > deadline:
                        return script
                    if fails(smaller):
                        script = smaller
                        break
    return script


def _without(script: Script, position: int) -> Iterator[Script]:
    """Yield the script without what stands here, the most first."""
    for cut in (8, 3, 1):
        if position + cut <= len(script):
            yield [*script[:position], *script[position + cut :]]


def _simplified(script: Script, position: int) -> Iterator[Script]:
    """Yield the script with a simpler action here."""
    if position >= len(script):
        return
    action = script[position]
    plain: Any = type(action)()
    for name in plain.__match_args__:
        if getattr(action, name) != getattr(plain, name):
            yield [*script[:position], attrs.evolve(action, **{name: getattr(plain, name)}), *script[position + 1 :]]


def _quietly(examples: int) -> settings:
    return settings(
        max_examples=examples,
        phases=[Phase.generate],
        database=None,
        derandomize=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def _call(method: str, args: Sequence[object], kwargs: dict[str, object]) -> str:
    words = [repr(arg.key) if isinstance(arg, Conversation) else _short(arg) for arg in args]
    words += [f"{name}={_short(value)}" for name, value in kwargs.items() if value is not None]
    return f"{method}({', '.join(words)})"


def _difference(expected: object, found: object) -> str:
    """Return the expected and the found value, shortened to their difference."""
    if isinstance(expected, list) and isinstance(found, list):
        if len(expected) != len(found) or not expected:
            return f"must be {_rows(expected)} and is {_rows(found)}"
        if _rows(expected) != _rows(found):
            return f"must be in the order {_rows(expected)} and is {_rows(found)}"
        number, pair = next((n, pair) for n, pair in enumerate(zip(expected, found, strict=True)) if pair[0] != pair[1])
        return f"[{number}] {_difference(*pair)}"
    if type(expected) is type(found) and attrs.has(type(expected)):
        for name in getattr(expected, "__match_args__", ()):
            left, right = getattr(expected, name), getattr(found, name)
            if left != right:
                return f"must have {name}={_short(left)} and has {_short(right)}"
    return f"must be {_short(expected)} and is {_short(found)}"


def _rows(rows: list[Any]) -> str:
    return f"[{', '.join(_short(row) for row in rows)}]"


def _short(value: object) -> str:
    if isinstance(value, frozenset | set):
        return f"{{{', '.join(sorted(map(repr, value)))}}}"
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, datetime):
        return f"{value:%H:%M:%S}"
    for name in ("number", "key"):
        if attrs.has(type(value)) and hasattr(value, name):
            return f"{type(value).__name__.lower()} {getattr(value, name)!r}"
    told = repr(value)
    return told if len(told) <= 120 else told[:119] + "…"
