"""The scripts of the guarantees: the kit's own steps and strategies, under the names that the tests use."""

from hypothesis import strategies as st

from fsm import Result, TextDelta, ToolResult, ToolUse
from fsm.testing.steps import Act, Hang, RefuseWrite, Reset, Restart, Send, Step, Wake, story
from fsm.testing.strategies import (
    IDS,
    NAMES,
    acts,
    failures,
    named_sends,
    refused_writes,
    scripts,
    sends,
    successes,
    well_formed,
)

TWO_ACTS = st.tuples(acts(), acts())
"""The behaviour of the provider for a message, and for the second try if there is one."""

WELL_FORMED_SENDS = sends(well_formed())
"""Messages to a provider that keeps its contract."""

__all__ = [
    "IDS",
    "NAMES",
    "TWO_ACTS",
    "WELL_FORMED_SENDS",
    "Act",
    "Hang",
    "RefuseWrite",
    "Reset",
    "Restart",
    "Result",
    "Send",
    "Step",
    "TextDelta",
    "ToolResult",
    "ToolUse",
    "Wake",
    "failures",
    "named_sends",
    "refused_writes",
    "scripts",
    "story",
    "successes",
    "well_formed",
]
