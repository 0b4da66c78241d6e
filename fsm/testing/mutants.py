"""Wrong stores and providers, each with one bug that real projects have shipped: does your suite catch them?

:data:`MUTANTS` holds them all. A test suite that checks a manager, a bot or a chat backend runs once with each, and
must fail each time; one that passes has a hole there. The stores are :class:`~fsm.testing.ReferenceStore` and the
providers :class:`~fsm.providers.DemoProvider` but for the bug, so all of them need no database and no network.

>>> [mutant.name for mutant in MUTANTS if mutant.breaks == "G6"]
['clears without logging']
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from attrs import frozen

from fsm.testing import wrong_providers as providers
from fsm.testing import wrong_stores as stores

__all__ = ["MUTANTS", "Mutant"]


@frozen
class Mutant:
    """A wrong store or provider.

    Attributes:
        name: what it does wrong, in a few words.
        kind: ``store`` or ``provider``.
        breaks: the guarantee that it breaks, or ``contract`` for what a manager refuses with ProviderError.
        make: makes a fresh one; the docstring of what it makes says more.

    >>> mutant = next(mutant for mutant in MUTANTS if mutant.kind == "store")
    >>> mutant.name, mutant.breaks
    ('loses the last message', 'G4')
    """

    name: str
    kind: Literal["store", "provider"]
    breaks: str
    make: Callable[[], Any]

    @property
    def description(self) -> str:
        """Its fault, in a line."""
        return (self.make.__doc__ or self.name).partition("\n")[0]


MUTANTS: tuple[Mutant, ...] = (
    Mutant("loses the last message", "store", "G4", stores.LosesTheLastMessage),
    Mutant("lets the last writer win", "store", "G5", stores.LastWriterWins),
    Mutant("checks before it locks", "store", "G5", stores.ChecksBeforeItLocks),
    Mutant("forgets dead ids", "store", "G2", stores.ForgetsDeadIds),
    Mutant("forgets tool results", "store", "G23", stores.ForgetsToolResults),
    Mutant("stores the id from the error", "store", "G1", stores.StoresTheIdFromTheError),
    Mutant("writes half a step", "store", "G9", stores.WritesHalfAStep),
    Mutant("swallows a failed write", "store", "G16", stores.SwallowsFailedWrites),
    Mutant("clears without logging", "store", "G6", stores.ClearsWithoutLogging),
    Mutant("reads newest first", "store", "G5", stores.ReadsNewestFirst),
    Mutant("orders by the clock", "store", "G5", stores.OrdersByTheClock),
    Mutant("lets pages overlap", "store", "G4", stores.PagesOverlap),
    Mutant("tells failed turns", "store", "G3", stores.TellsFailedTurns),
    Mutant("doubles rows on retry", "store", "G13", stores.DoublesRowsOnRetry),
    Mutant("shares idempotency keys", "store", "G13", stores.SharesIdempotencyKeys),
    Mutant("confuses keys", "store", "G12", stores.ConfusesKeys),
    Mutant("keeps text only", "store", "G4", stores.KeepsTextOnly),
    Mutant("loses the last commit", "store", "G8", stores.LosesTheLastCommit),
    Mutant("crashes on conflict", "store", "G5", stores.CrashesOnConflict),
    Mutant("trusts the version", "store", "G5", stores.TrustsTheVersion),
    Mutant("reports twice", "provider", "contract", providers.ReportsTwice),
    Mutant("talks after its result", "provider", "contract", providers.TalksAfterItsResult),
    Mutant("never reports", "provider", "contract", providers.NeverReports),
    Mutant("yields text", "provider", "contract", providers.YieldsText),
    Mutant("raises on dead sessions", "provider", "G11", providers.RaisesOnDeadSessions),
    Mutant("reports death as failure", "provider", "G11", providers.ReportsDeathAsFailure),
    Mutant("blames another session", "provider", "G2", providers.BlamesAnotherSession),
    Mutant("echoes the dead id", "provider", "G3", providers.EchoesTheDeadId),
    Mutant("names the dead again", "provider", "G2", providers.NamesTheDeadAgain),
    Mutant("names what it forgets", "provider", "G11", providers.NamesWhatItForgets),
    Mutant("shares one session", "provider", "G3", providers.SharesOneSession),
    Mutant("runs on after close", "provider", "G9", providers.RunsOnAfterClose),
    Mutant("has a false twin", "provider", "G12", providers.HasAFalseTwin),
)
"""All of them, the stores first."""
