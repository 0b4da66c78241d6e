"""The behaviour kit: check that a store, a provider or an application keeps the guarantees."""

from fsm.testing.contracts import check_provider, check_store
from fsm.testing.explore import Exploration, Violation, explore, replay
from fsm.testing.explore_decisions import Decisions
from fsm.testing.histories import History, LinearizabilityError, check_linearizable
from fsm.testing.machine import ConversationMachine, conversation_machine
from fsm.testing.reference import ReferenceStore
from fsm.testing.report import ConformanceError, Outcome, Report
from fsm.testing.simulated import Faults
from fsm.testing.simulation import Simulation, SimulationError, simulate
from fsm.testing.trace import Checked, TraceError, check_database, check_log

__all__ = [
    "Checked",
    "ConformanceError",
    "ConversationMachine",
    "Decisions",
    "Exploration",
    "Faults",
    "History",
    "LinearizabilityError",
    "Outcome",
    "ReferenceStore",
    "Report",
    "Simulation",
    "SimulationError",
    "TraceError",
    "Violation",
    "check_database",
    "check_linearizable",
    "check_log",
    "check_provider",
    "check_store",
    "conversation_machine",
    "explore",
    "replay",
    "simulate",
]
