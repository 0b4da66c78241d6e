"""The AIs that come with the library, each in its own module.

A provider imports its SDK when it is constructed, so importing this package stays cheap. Those that need an event loop
of their own are imported when they are asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fsm.providers.anthropic_messages import AnthropicMessages
from fsm.providers.demo import DemoProvider

if TYPE_CHECKING:
    from fsm.providers.anthropic_agents import AnthropicAgents
    from fsm.providers.claude_agent import ClaudeAgent

__all__ = ["AnthropicAgents", "AnthropicMessages", "ClaudeAgent", "DemoProvider"]

_LATER = {"AnthropicAgents": "anthropic_agents", "ClaudeAgent": "claude_agent"}


def __getattr__(name: str) -> Any:
    """Return a provider that needs anyio, which takes longer to import than the library."""
    if name in _LATER:
        return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
