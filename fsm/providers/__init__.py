"""The AIs that come with the library, each in a module of its own.

A provider imports its SDK when it is constructed, so importing this package stays cheap.
"""

from fsm.providers.anthropic_agents import AnthropicAgents
from fsm.providers.anthropic_messages import AnthropicMessages
from fsm.providers.demo import DemoProvider

__all__ = ["AnthropicAgents", "AnthropicMessages", "DemoProvider"]
