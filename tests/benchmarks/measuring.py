"""Measuring: variants take turns, so that whatever else the machine does hits all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

from attrs import frozen

__all__ = ["Measured", "Row", "compare", "timed"]


@frozen
class Measured:
    """One variant.

    Attributes:
        seconds: for one unit of work, round by round.
    """

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Of all rounds, in seconds."""
        return median(self.seconds)


@frozen
class Row:
    """One line of the table.

    Attributes:
        group: what it is about.
        name: the variant.
        value: what was measured.
        unit: of the value.
        ratio: of the value to its baseline's; None for a baseline.
        reach: what the ratio, or without one the value, should be at most (or at least, for a negative one).
    """

    group: str
    name: str
    value: float
    unit: str
    ratio: float | None = None
    reach: float | None = None

    @property
    def is_reached(self) -> bool | None:
        """Whether it is what it should be; None if nothing was said about that."""
        if self.reach is None:
            return None
        found = self.value if self.ratio is None else self.ratio
        return found <= self.reach if self.reach > 0 else found >= -self.reach


def timed(work: Callable[[], object], units: int) -> float:
    """How long one unit takes, in seconds."""
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) / units


def compare(variants: Mapping[str, Callable[[int], float]], rounds: int) -> dict[str, Measured]:
    """Measure variants in turn, each as often as the others, the first round thrown away.

    Args:
        variants: by name, what measures one round and returns the seconds of a unit; it is told the round.
        rounds: how many count.
    """
    found: dict[str, list[float]] = {name: [] for name in variants}
    names: Sequence[str] = list(variants)
    for number in range(rounds + 1):
        for name in names if number % 2 else reversed(names):
            found[name].append(variants[name](number))
    return {name: Measured(tuple(seconds[1:])) for name, seconds in found.items()}
