"""Managed Agents of Anthropic as a provider."""

from fsm.providers.anthropic_agents.provider import AnthropicAgents

__all__ = ["AnthropicAgents"]
