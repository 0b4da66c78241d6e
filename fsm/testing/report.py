"""The outcome of a conformance check: contracts, a report, and the error that carries it.

A *contract* is one promise and the code that tries to show it broken. Each ends as passed, failed or skipped; a failed
one comes with the smallest script that shows it, told step by step, and a skipped one with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, Literal, TypeVar

from attrs import frozen

from fsm.errors import FSMError

__all__ = ["Broken", "ConformanceError", "Contract", "NotApplicable", "Outcome", "Report", "run_contracts"]

B = TypeVar("B")

PADDING = 9
"""The width of the longest status and two spaces."""


class Broken(Exception):
    """A promise does not hold.

    Args:
        why: what should have happened and what did.
        story: the steps that led there, in plain words.
    """

    def __init__(self, why: str, story: Sequence[str] = ()) -> None:
        super().__init__(why, tuple(story))
        self.why = why
        self.story = tuple(story)


class NotApplicable(Exception):
    """A promise can't be asked of this store or provider; the message says why."""


@frozen
class Contract(Generic[B]):
    """One promise.

    Attributes:
        name: a word or two.
        promise: what must hold, in a line.
        try_it: tries to show it broken on a subject; raises :class:`Broken` or :class:`NotApplicable`.
    """

    name: str
    promise: str
    try_it: Callable[[B], None]


@frozen(kw_only=True)
class Outcome:
    """How one contract ended.

    Attributes:
        contract: its name.
        promise: what it promises, in a line.
        status: ``passed``, ``failed`` or ``skipped``.
        why: what went wrong, or the reason for which it was skipped.
        script: the smallest script that shows it broken, a sentence for each step.
    """

    contract: str
    promise: str
    status: Literal["passed", "failed", "skipped"]
    why: str = ""
    script: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.status == "passed":
            return f"{self.contract}: {self.promise}"
        steps = [f"  {number}. {step}" for number, step in enumerate(self.script, 1)]
        return "\n".join([f"{self.contract}: {self.promise}", *steps, f"  {self.status}: {self.why}"])


@frozen
class Report:
    """The outcome of a check; ``str(report)`` is a table.

    Attributes:
        subject: the class that was checked.
        outcomes: how each contract ended, in order.

    >>> promise = "failed turns are left out"
    >>> failed = Outcome(contract="context", promise=promise, status="failed", why="one is in it")
    >>> report = Report("MyStore", (failed,))
    >>> print(report)
    MyStore: 0 passed, 1 failed, 0 skipped
    <BLANKLINE>
    failed   context  failed turns are left out
    """

    subject: str
    outcomes: tuple[Outcome, ...]

    @property
    def passed(self) -> tuple[Outcome, ...]:
        """The contracts that hold."""
        return self._with("passed")

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """The contracts that are broken, each with its smallest script."""
        return self._with("failed")

    @property
    def skipped(self) -> tuple[Outcome, ...]:
        """The contracts that can't be asked of it, each with the reason."""
        return self._with("skipped")

    def raise_for_failure(self) -> Report:
        """Return the report itself if nothing failed.

        Raises:
            ConformanceError: something did; ``error.report`` is this report.
        """
        if self.failed:
            raise ConformanceError(self)
        return self

    def _with(self, status: str) -> tuple[Outcome, ...]:
        return tuple(outcome for outcome in self.outcomes if outcome.status == status)

    def __str__(self) -> str:
        width = max((len(outcome.contract) for outcome in self.outcomes), default=0)
        counts = f"{len(self.passed)} passed, {len(self.failed)} failed, {len(self.skipped)} skipped"
        lines = [f"{self.subject}: {counts}", ""]
        for outcome in self.outcomes:
            lines.append(f"{outcome.status:{PADDING}}{outcome.contract:{width}}  {outcome.promise}")
            if outcome.status == "skipped":
                lines.append(f"{'':{PADDING}}{'':{width}}  because {outcome.why}")
        return "\n".join(lines)


class ConformanceError(FSMError, AssertionError):
    """A store or provider breaks its contract; the message lists what failed, each with the smallest script.

    Args:
        report: what was found.

    >>> failed = Outcome(contract="keys", promise="any key", status="failed", why="no such key", script=("load it",))
    >>> print(ConformanceError(Report("MyStore", (failed,))))
    MyStore breaks 1 of 1 contracts
    <BLANKLINE>
    keys: any key
      1. load it
      failed: no such key
    """

    def __init__(self, report: Report) -> None:
        count = len(report.passed) + len(report.failed)
        told = [f"{report.subject} breaks {len(report.failed)} of {count} contracts", *map(str, report.failed)]
        super().__init__("\n\n".join(told))
        self.report = report


def run_contracts(contracts: Iterable[Contract[B]], make_subject: Callable[[], B]) -> tuple[Outcome, ...]:
    """Try each contract on a new subject.

    Args:
        contracts: the promises.
        make_subject: makes a new subject for each.

    Returns:
        How each ended, in order.
    """
    return tuple(_outcome(contract, make_subject()) for contract in contracts)


def _outcome(contract: Contract[B], subject: B) -> Outcome:
    try:
        contract.try_it(subject)
    except Broken as broken:
        return Outcome(
            contract=contract.name, promise=contract.promise, status="failed", why=broken.why, script=broken.story
        )
    except NotApplicable as reason:
        return Outcome(contract=contract.name, promise=contract.promise, status="skipped", why=str(reason))
    except Exception as error:  # noqa: BLE001  # whatever somebody else's code raises is a finding
        return Outcome(
            contract=contract.name,
            promise=contract.promise,
            status="failed",
            why=f"{type(error).__name__} was raised: {error}",
        )
    return Outcome(contract=contract.name, promise=contract.promise, status="passed")
