"""The Messages API of Anthropic as a provider.

The API keeps nothing. So the session is the raw transcript since it opened, the blocks as the API returned them,
kept by the store and sent again with every message; it is named by the id of its first reply (``msg_…``). The
session is dead when the API refuses that transcript. A new session is told the same history as plain text, inside
the context window, which nothing in the old transcript can spoil.

Both ways, ``stream`` and ``astream``, are thin loops around one :class:`~fsm.providers.messages_exchange.Exchange`.
The SDK is imported when a provider is constructed, not with this module.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fsm.content import Block
from fsm.errors import InvalidInput, ProviderError
from fsm.provider import Request
from fsm.providers.anthropic_client import check_credentials, from_environment
from fsm.providers.anthropic_errors import failures
from fsm.providers.messages_exchange import Exchange
from fsm.providers.messages_transcript import check_content
from fsm.results import Event

if TYPE_CHECKING:
    import anthropic

__all__ = ["AnthropicMessages"]

_OWN = frozenset({"max_tokens", "messages", "model", "output_format", "stream", "system", "tools"})


class AnthropicMessages:
    """Claude, over the Messages API, for :class:`fsm.SessionManager` and :class:`fsm.AsyncSessionManager`.

    How a turn ends, and what its result says:

    ==================================================  =========================================================
    what happened                                       result
    ==================================================  =========================================================
    an answer, also one cut off by ``max_tokens``       ``success`` with the ``stop_reason``
    the model refused                                   ``error_refusal``; the session is still good
    the context window is full                          resumed: ``error_during_execution``; fresh:
                                                        ``error_context_window``
    a resumed transcript was refused (see below)        ``error_during_execution``
    any other error of the API                          ``error_api`` with ``http_status``; the session is still
                                                        good
    no connection, a timeout, a stream cut off          ``error_connection``; the session is still good
    an answer that can't be read                        ``error_response``; the session is still good
    ==================================================  =========================================================

    Refused means 400 ``invalid_request_error``, 404 or 413. The API reports an account without credit as such a 400;
    it is told as ``http_status=402`` and costs no session. Retries are the SDK's own: set ``max_retries`` and
    ``timeout`` on a client of yours.

    Args:
        model: the model's name.
        max_tokens: the longest answer, in tokens.
        system: the system prompt, or None.
        tools: the tools as the API defines them; the caller runs them, and sends the results as the next message.
        client: the client for ``stream``; by default one made from the environment (``ANTHROPIC_API_KEY``, …).
        async_client: the client for ``astream``, likewise. A client of yours is yours to close.
        options: more arguments for every call, such as ``thinking``, ``tool_choice`` or ``container``; those that
            the SDK has no name for are sent in the body as they are.

    Raises:
        ProviderError: no credentials were found, here and not in the middle of a conversation.
        InvalidInput: ``options`` has an argument that has a place of its own.

    >>> import anthropic
    >>> with anthropic.Anthropic(api_key="sk-ant-…") as client:
    ...     AnthropicMessages(model="claude-sonnet-4-5", client=client).name
    'anthropic-messages'
    """

    name = "anthropic-messages"
    wants_transcript = True

    def __init__(
        self,
        *,
        model: str,
        max_tokens: int = 4096,
        system: str | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
        client: anthropic.Anthropic | None = None,
        async_client: anthropic.AsyncAnthropic | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        import anthropic

        self._given = client is not None or async_client is not None
        self._client = client if self._given else from_environment(anthropic.Anthropic)
        self._async_client = async_client
        for made in (self._client, self._async_client):
            check_credentials(made)
        self._call = _call(options or {}, model=model, max_tokens=max_tokens, system=system, tools=tools)

    def check_content(self, content: Sequence[Block]) -> None:
        """Refuse what the API does not take, before the turn begins.

        Args:
            content: the new message: text, images, documents, search results, results of tools, uploads.

        Raises:
            InvalidContent: it names the block, what is wrong with it and what to do.
        """
        check_content(content)

    def stream(self, request: Request) -> Generator[Event, None, None]:
        """Answer. Closing the generator early closes the connection, and with it the answer.

        Args:
            request: the new message, and the transcript to go on from.

        Returns:
            The events; the last one, and only that, is the result.

        Raises:
            ProviderError: the provider was given a client for ``astream`` only.
        """
        if self._client is None:
            raise ProviderError("only async_client was given; pass client as well", request.key)
        exchange = Exchange(request, self._call)
        while exchange.result is None:
            try:
                with self._client.messages.stream(**exchange.arguments) as stream:
                    for event in stream:
                        if said := exchange.feed(event):
                            yield said
                exchange.ended()
            except failures() as error:
                exchange.failed(error)
        yield exchange.result

    async def astream(self, request: Request) -> AsyncGenerator[Event, None]:
        """Answer, asynchronously; see :meth:`stream`.

        Args:
            request: the new message, and the transcript to go on from.

        Returns:
            The events; the last one, and only that, is the result.

        Raises:
            ProviderError: the provider was given a client for ``stream`` only.
        """
        client = self._for_async(request.key)
        exchange = Exchange(request, self._call)
        while exchange.result is None:
            try:
                async with client.messages.stream(**exchange.arguments) as stream:
                    async for event in stream:
                        if said := exchange.feed(event):
                            yield said
                exchange.ended()
            except failures() as error:
                exchange.failed(error)
        yield exchange.result

    def _for_async(self, key: str) -> anthropic.AsyncAnthropic:
        if self._async_client is None:
            if self._given:
                raise ProviderError("only client was given; pass async_client as well", key)
            import anthropic

            self._async_client = from_environment(anthropic.AsyncAnthropic)
        return self._async_client


def _call(options: Mapping[str, Any], **own: Any) -> dict[str, Any]:
    """The arguments of ``messages.stream`` that are the same in every turn."""
    from anthropic.resources.messages import Messages

    if twice := _OWN & options.keys():
        raise InvalidInput(f"options can't set {', '.join(sorted(twice))}; that is an argument of the provider's own")
    known = inspect.signature(Messages.stream).parameters
    call = {name: value for name, value in own.items() if value not in (None, (), [])}
    call.update({name: value for name, value in options.items() if name in known})
    if others := {name: value for name, value in options.items() if name not in known}:
        call["extra_body"] = {**others, **(options.get("extra_body") or {})}
    return call
