"""The Messages API of Anthropic as a provider."""

from fsm.providers.anthropic_messages.provider import AnthropicMessages

__all__ = ["AnthropicMessages"]
