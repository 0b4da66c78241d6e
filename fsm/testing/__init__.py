"""The behaviour kit: check that a store, a provider or an application keeps the guarantees."""

from fsm.testing.contracts import check_provider, check_store
from fsm.testing.explore import Exploration, Violation, explore, replay
from fsm.testing.explore_decisions import Decisions
from fsm.testing.reference import ReferenceStore
from fsm.testing.report import ConformanceError, Outcome, Report

__all__ = [
    "ConformanceError",
    "Decisions",
    "Exploration",
    "Outcome",
    "ReferenceStore",
    "Report",
    "Violation",
    "check_provider",
    "check_store",
    "explore",
    "replay",
]
