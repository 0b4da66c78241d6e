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


@frozen(kw_only=True)
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
    Mutant(name="loses the last message", kind="store", breaks="G4", make=stores.LosesTheLastMessage),
    Mutant(name="lets the last writer win", kind="store", breaks="G5", make=stores.LastWriterWins),
    Mutant(name="checks before it locks", kind="store", breaks="G5", make=stores.ChecksBeforeItLocks),
    Mutant(name="forgets dead ids", kind="store", breaks="G2", make=stores.ForgetsDeadIds),
    Mutant(name="forgets tool results", kind="store", breaks="G23", make=stores.ForgetsToolResults),
    Mutant(name="stores the id from the error", kind="store", breaks="G1", make=stores.StoresTheIdFromTheError),
    Mutant(name="writes half a step", kind="store", breaks="G9", make=stores.WritesHalfAStep),
    Mutant(name="swallows a failed write", kind="store", breaks="G16", make=stores.SwallowsFailedWrites),
    Mutant(name="clears without logging", kind="store", breaks="G6", make=stores.ClearsWithoutLogging),
    Mutant(name="reads newest first", kind="store", breaks="G5", make=stores.ReadsNewestFirst),
    Mutant(name="orders by the clock", kind="store", breaks="G5", make=stores.OrdersByTheClock),
    Mutant(name="lets pages overlap", kind="store", breaks="G4", make=stores.PagesOverlap),
    Mutant(name="tells failed turns", kind="store", breaks="G3", make=stores.TellsFailedTurns),
    Mutant(name="doubles rows on retry", kind="store", breaks="G13", make=stores.DoublesRowsOnRetry),
    Mutant(name="shares idempotency keys", kind="store", breaks="G13", make=stores.SharesIdempotencyKeys),
    Mutant(name="confuses keys", kind="store", breaks="G12", make=stores.ConfusesKeys),
    Mutant(name="keeps text only", kind="store", breaks="G4", make=stores.KeepsTextOnly),
    Mutant(name="loses the last commit", kind="store", breaks="G8", make=stores.LosesTheLastCommit),
    Mutant(name="crashes on conflict", kind="store", breaks="G5", make=stores.CrashesOnConflict),
    Mutant(name="trusts the version", kind="store", breaks="G5", make=stores.TrustsTheVersion),
    Mutant(name="reports twice", kind="provider", breaks="contract", make=providers.ReportsTwice),
    Mutant(name="talks after its result", kind="provider", breaks="contract", make=providers.TalksAfterItsResult),
    Mutant(name="never reports", kind="provider", breaks="contract", make=providers.NeverReports),
    Mutant(name="yields text", kind="provider", breaks="contract", make=providers.YieldsText),
    Mutant(name="raises on dead sessions", kind="provider", breaks="G11", make=providers.RaisesOnDeadSessions),
    Mutant(name="reports death as failure", kind="provider", breaks="G11", make=providers.ReportsDeathAsFailure),
    Mutant(name="blames another session", kind="provider", breaks="G2", make=providers.BlamesAnotherSession),
    Mutant(name="echoes the dead id", kind="provider", breaks="G3", make=providers.EchoesTheDeadId),
    Mutant(name="names the dead again", kind="provider", breaks="G2", make=providers.NamesTheDeadAgain),
    Mutant(name="names what it forgets", kind="provider", breaks="G11", make=providers.NamesWhatItForgets),
    Mutant(name="shares one session", kind="provider", breaks="G3", make=providers.SharesOneSession),
    Mutant(name="runs on after close", kind="provider", breaks="G9", make=providers.RunsOnAfterClose),
    Mutant(name="has a false twin", kind="provider", breaks="G12", make=providers.HasAFalseTwin),
)
"""All of them, the stores first."""
