"""The Claude Agent SDK as a provider."""

from fsm.providers.claude_agent.provider import ClaudeAgent

__all__ = ["ClaudeAgent"]
