"""Clients of the Anthropic SDK, made and checked when a provider is constructed and not in mid-conversation."""

from __future__ import annotations

from typing import Any

from fsm.errors import ProviderError

__all__ = ["check_credentials", "from_environment"]


def from_environment(make: Any) -> Any:
    """A client of the class ``make``, set up by the variables ``ANTHROPIC_…``.

    Raises:
        ProviderError: they do not make one.
    """
    import anthropic
    import httpx2

    try:
        return make()
    except (anthropic.AnthropicError, httpx2.InvalidURL) as error:
        raise ProviderError(
            f"the Anthropic client can't be made from the environment ({type(error).__name__}); "
            "check the variables ANTHROPIC_…"
        ) from error


def check_credentials(client: Any) -> None:
    """The SDK itself looks for a key only when it sends; clients of other clouds sign in ways of their own.

    Raises:
        ProviderError: the client has nothing to sign in with.
    """
    import anthropic

    if type(client) not in (anthropic.Anthropic, anthropic.AsyncAnthropic) or client.credentials is not None:
        return
    if not {"authorization", "x-api-key"} & {header.lower() for header in client.default_headers}:
        raise ProviderError(
            "no Anthropic credentials were found; set ANTHROPIC_API_KEY, or pass a client that has a key"
        )
