"""Conformance checks for a store or a provider.

:func:`check_store` and :func:`check_provider` try each contract on a new instance, and find out what the instance can
do. Their report lists the contracts that passed, those that failed, with the smallest script that shows it, and those
that were skipped, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fsm.store import Store
from fsm.testing import provider_contracts, store_contracts, talking
from fsm.testing.report import Report, run_contracts
from fsm.testing.subjects import StoreSubject

__all__ = ["check_provider", "check_store"]


def check_store(
    make_store: Callable[[], Any],
    *,
    reopen: Callable[[Any], Callable[[], Store]] | None = None,
    examples: int = 25,
    raise_on_failure: bool = True,
) -> Report:
    """Check that a store keeps its promises; see :class:`fsm.Store`.

    Args:
        make_store: makes a fresh, empty store, for each contract and while a script is made smaller. It is closed
            afterwards if it has a method ``close``.
        reopen: called with a store that ``make_store`` made; returns a function that opens the same conversations
            once more. If that function can be pickled, such as ``functools.partial(MyStore, url)``, other processes
            open it too, and are killed. By default the store's own method ``reopened``, if it has one.
        examples: how many generated scripts each contract tries, after a fixed one that meets everything once.
        raise_on_failure: raise if a contract fails.

    Returns:
        The report.

    Raises:
        ConformanceError: a contract failed; the message tells the smallest script, ``error.report`` is the report.

    >>> from fsm.testing import ReferenceStore
    >>> report = check_store(ReferenceStore, examples=5)
    >>> len(report.failed), [outcome.contract for outcome in report.skipped]
    (0, ['together', 'two processes', 'kill -9'])
    """

    make = _Named(make_store)
    outcomes = run_contracts(store_contracts.CONTRACTS, lambda: StoreSubject(make, reopen, examples))
    return _finished(Report(make.name, outcomes), raise_on_failure=raise_on_failure)


def check_provider(
    make_provider: Callable[[], Any],
    *,
    messages: Sequence[str] = ("Say hello, please.", "And once more, please."),
    unknown_id: str = "00000000-0000-4000-8000-000000000000",
    raise_on_failure: bool = True,
) -> Report:
    """Check that a provider keeps its promises; see :class:`fsm.Provider`.

    Each contract asks for a few answers, so a provider that costs money costs some.

    Args:
        make_provider: makes a provider, for each contract and way. It is closed afterwards if it has a method
            ``close``, and on its event loop if it has ``aclose``.
        messages: what to say to it; it must answer each of them.
        unknown_id: a provider session id that it can't know, in the form in which it writes its ids.
        raise_on_failure: raise if a contract fails.

    Returns:
        The report. A provider that has both ``stream`` and ``astream`` is checked with both.

    Raises:
        ConformanceError: a contract failed; ``error.report`` is the report.

    >>> from fsm.providers import DemoProvider
    >>> report = check_provider(DemoProvider)
    >>> len(report.failed), len(report.skipped)
    (0, 0)
    """

    make = _Named(make_provider)
    outcomes = run_contracts(
        provider_contracts.CONTRACTS, lambda: talking.ProviderSubject(make, tuple(messages), unknown_id)
    )
    return _finished(Report(make.name, outcomes), raise_on_failure=raise_on_failure)


class _Named:
    """Makes what is checked, and remembers what it is called."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.name = "?"
        self._make = make

    def __call__(self) -> Any:
        made = self._make()
        self.name = type(made).__name__
        return made


def _finished(report: Report, *, raise_on_failure: bool) -> Report:
    return report.raise_for_failure() if raise_on_failure else report
