"""The behaviour kit: check that a store, a provider or an application keeps the guarantees."""

from fsm.testing.machine import ConversationMachine, conversation_machine
from fsm.testing.reference import ReferenceStore
from fsm.testing.trace import Checked, TraceError, check_database, check_log

__all__ = [
    "Checked",
    "ConversationMachine",
    "ReferenceStore",
    "TraceError",
    "check_database",
    "check_log",
    "conversation_machine",
]
