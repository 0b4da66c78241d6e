"""Strategies for Hypothesis: the results of a provider."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TypeAlias, TypeVar

from attrs import evolve
from hypothesis import strategies as st

from fsm.events import EXPIRED, INTERRUPTED, Result

__all__ = ["IDS", "Strategy", "deaths", "failures", "pick", "results", "session_ids", "successes"]

IDS = ("s-1", "s-2", "s-3")
"""The provider session ids that scripts use."""

SUBTYPES = (
    "error_max_turns",
    "error_max_budget_usd",
    "error_max_structured_output_retries",
    "error_api",
    "error_connection",
    "error_refusal",
    "error_response",
    INTERRUPTED,
)
"""The subtypes of errors that leave the session resumable, as providers emit them."""

STATUSES = (400, 401, 403, 404, 413, 429, 500, 529)
"""The HTTP statuses of calls that failed."""

Strategy: TypeAlias = st.SearchStrategy

T = TypeVar("T")


def pick(values: Sequence[T]) -> Strategy[T]:
    """Return a strategy for one of many values; unlike ``sampled_from`` it has a short ``repr``."""
    index = st.integers(0, len(values) - 1)

    @st.composite
    def picked(draw: st.DrawFn) -> T:
        return values[draw(index)]

    return picked()


@cache
def session_ids() -> Strategy[str | None]:
    """Return a strategy for a provider session id of ``IDS``, or None."""
    return st.sampled_from([*IDS, None])


def _named(*unnamed: Result) -> list[Result]:
    """Return these results, each with every id and with none."""
    return [evolve(result, session_id=session_id) for result in unnamed for session_id in (*IDS, None)]


SUCCESSES = _named(*(Result(stop_reason=reason) for reason in ("end_turn", "max_tokens", "refusal", None)))
DEATHS = _named(Result(subtype=EXPIRED, is_error=True), Result(subtype=EXPIRED))
FAILURES = _named(
    *(Result(subtype=subtype, is_error=True) for subtype in SUBTYPES),
    *(Result(is_error=True, http_status=status) for status in STATUSES),
    *(Result(subtype=subtype) for subtype in SUBTYPES[:3]),
)


@cache
def successes() -> Strategy[Result]:
    """Return a strategy for results of a succeeded turn, with or without a session id."""
    return pick(SUCCESSES)


@cache
def failures() -> Strategy[Result]:
    """Return a strategy for errors other than death: limits, refusals, interruptions, and failures of the API.

    The Claude CLI reports failures of the API with the subtype of a success, and older versions left out ``is_error``.
    """
    return pick(FAILURES)


@cache
def deaths() -> Strategy[Result]:
    """Return a strategy for ``error_during_execution``, with any id or none, and with or without ``is_error``."""
    return pick(DEATHS)


@cache
def results() -> Strategy[Result]:
    """Return a strategy for all results of a provider: answers, deaths and other failures, equally often."""
    shares = len(FAILURES)
    return pick([*SUCCESSES * (shares // len(SUCCESSES)), *DEATHS * (shares // len(DEATHS)), *FAILURES])
