"""The Messages API of Anthropic as a provider.

The API does not keep the conversation. So the session is the raw transcript since it opened, with the blocks as the API
returned them. The store keeps it, and it is sent again with every message. Its name is the id of its first reply
(``msg_…``). The session is dead when the API refuses that transcript. A new session is told the same history as plain
text, inside the context window, so that a bad block of the old transcript does no harm.

Both ways, ``stream`` and ``astream``, are thin loops around one
:class:`~fsm.providers.anthropic_messages.exchange.Exchange`.
The SDK is imported when a provider is constructed, not with this module.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from fsm.content import Block
from fsm.errors import ProviderError
from fsm.events import Event
from fsm.fork import leave_to_parent
from fsm.provider import BaseProvider, Request
from fsm.providers._anthropic.client import Clients
from fsm.providers.anthropic_messages.content import check_content
from fsm.providers.anthropic_messages.exchange import END, Exchange, Question
from fsm.providers.anthropic_messages.options import call_of

if TYPE_CHECKING:
    import anthropic

__all__ = ["AnthropicMessages"]

ASKING = 30.0
"""For how many seconds the API is asked at most whether it still takes an old transcript."""


class AnthropicMessages(BaseProvider):
    """Claude, over the Messages API, for :class:`fsm.SessionManager` and :class:`fsm.AsyncSessionManager`.

    How a turn ends, and what its result says:

    ==================================================  =========================================================
    what happened                                       result
    ==================================================  =========================================================
    an answer, also one cut off by ``max_tokens``       ``success`` with the ``stop_reason``
    the model refused, or the API blocked the answer    ``error_refusal``; the session is still good
    the context window is full                          resumed: ``error_during_execution``; fresh:
                                                        ``error_context_window``
    the request has too many bytes                      the same, unless the new message alone is at fault
    a stored message is refused                         ``error_during_execution``
    the new message is refused                          ``error_message``; the session is still good
    the model's name, a parameter, a beta or a tool     ``error_configuration``; the session is still good
    is refused
    any other error of the API or a gateway             ``error_api`` with ``http_status``; the session is still
                                                        good
    no connection, a timeout, a stream cut off          ``error_connection``; the session is still good
    an answer that can't be read                        ``error_response``; the session is still good
    ==================================================  =========================================================

    A session is dead only by evidence about its transcript (G22). Where an error leaves open which message is at
    fault, the API is asked once (``count_tokens``) whether it takes the old transcript without the new message.
    ``docs/reference/dead/anthropic-messages.md`` has a line for each error. Retries are the SDK's own: set
    ``max_retries`` and ``timeout`` on a client of yours.

    The provider may be used from any number of threads, event loops and forked processes. Clients that it makes
    itself, it makes one for each event loop and process, and closes with the loop. Yours is used in the first loop that
    asks. In another loop or a forked child a copy of it with new connections is used. A client with an ``http_client``
    of yours can't be copied: pass a function that returns a client instead.

    A mark for the cache (``cache_control``) on a block of a message is sent with that message only.

    Args:
        model: the model's name.
        max_tokens: the longest answer, in tokens.
        system: the system prompt as text or as a list of blocks, or None.
        tools: the tools as the API defines them; the caller runs them, and sends the results as the next message.
        client: the client for ``stream``, or a function that returns one, called once in each process; by default
            one made from the environment (``ANTHROPIC_API_KEY``, …).
        async_client: the client for ``astream``, or a function that returns one, called once for each event loop.
            A client of yours is yours to close; one that a function returned is closed with its loop.
        options: more arguments for every call that ``client.messages.create`` or ``client.beta.messages.create``
            knows, such as ``thinking``, ``tool_choice``, ``betas`` or ``mcp_servers``. Those that only the second
            one knows are sent with it. Pass others in
            ``extra_body``, ``extra_headers`` or ``extra_query``.

    Raises:
        ProviderError: no credentials were found, here and not in the middle of a conversation.
        InvalidInput: an argument can't be used, or the SDK does not know an option.

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
        system: str | Sequence[Mapping[str, Any]] | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
        client: anthropic.Anthropic | Callable[[], anthropic.Anthropic] | None = None,
        async_client: anthropic.AsyncAnthropic | Callable[[], anthropic.AsyncAnthropic] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._call = call_of(
            {} if options is None else options, model=model, max_tokens=max_tokens, system=system, tools=tools
        )
        self._clients = Clients(client, async_client)

    @property
    def longest_silence(self) -> float | None:
        """The longest time in seconds without a sign of life: the client's read timeout times its attempts.

        None without a timeout, or while no client is made yet.
        """
        return self._clients.longest_silence(self._call.arguments.get("timeout", ...))

    def check_content(self, content: Sequence[Block]) -> None:
        """Refuse what the API does not take, before the turn begins.

        Args:
            content: the new message: text, images, documents, search results, results of tools, uploads.

        Raises:
            InvalidContent: it names the block, what is wrong with it and what to do.
        """
        check_content(content, self._call.marks)

    def stream(self, request: Request) -> Generator[Event, None, None]:
        """Answer. Closing the generator early closes the connection, and with it the answer.

        Args:
            request: the new message, and the transcript to go on from.

        Returns:
            The events; the last one, and only that, is the result.

        Raises:
            ProviderError: the provider was given a client for ``astream`` only.
        """
        client = _watched(self._clients.sync(request.key), request)
        resource = self._call.resource(client)
        exchange = Exchange(request, self._call.arguments, self._call.parameters)
        process = os.getpid()
        opened: Any = None
        try:
            while exchange.result is None:
                _close(opened, process)
                exchange.reopen()
                with exchange.reading():
                    opened = resource.create(**exchange.arguments, stream=True)
                while exchange.is_open:
                    told: Sequence[Event] = ()
                    with exchange.reading():
                        told = exchange.feed(next(opened, END))
                    for event in told:
                        yield event
                        _check_process(process, request.key)
                if question := exchange.question:
                    exchange.answered(question, self._ask(client, question))
            yield exchange.result
            # To its end, so that the connection can be used again.
            if opened is not None and os.getpid() == process:
                with suppress(Exception):
                    for _ in opened:
                        pass
        finally:
            _close(opened, process)

    async def astream(self, request: Request) -> AsyncGenerator[Event, None]:
        """Answer, asynchronously; see :meth:`stream`.

        Args:
            request: the new message, and the transcript to go on from.

        Returns:
            The events; the last one, and only that, is the result.

        Raises:
            ProviderError: the provider was given a client for ``stream`` only.
        """
        client = _watched(await self._clients.asynchronous(request.key), request)
        resource = self._call.resource(client)
        exchange = Exchange(request, self._call.arguments, self._call.parameters)
        process = os.getpid()
        opened: Any = None
        try:
            while exchange.result is None:
                await _aclose(opened, process)
                exchange.reopen()
                with exchange.reading():
                    opened = await resource.create(**exchange.arguments, stream=True)
                while exchange.is_open:
                    told: Sequence[Event] = ()
                    with exchange.reading():
                        told = exchange.feed(await anext(opened, END))
                    for event in told:
                        yield event
                        _check_process(process, request.key)
                if question := exchange.question:
                    exchange.answered(question, await self._ask_async(client, question))
            yield exchange.result
            if opened is not None and os.getpid() == process:
                with suppress(Exception):
                    async for _ in opened:
                        pass
        finally:
            await _aclose(opened, process)

    def _ask(self, client: Any, question: Question) -> Any:
        """Return the answer of ``count_tokens``, or its exception."""
        resource = self._call.resource(client.with_options(max_retries=0))
        try:
            return resource.count_tokens(**self._counting(question))
        except Exception as error:  # noqa: BLE001  # whatever it is, it is not an answer
            return error

    async def _ask_async(self, client: Any, question: Question) -> Any:
        resource = self._call.resource(client.with_options(max_retries=0))
        try:
            return await resource.count_tokens(**self._counting(question))
        except Exception as error:  # noqa: BLE001  # whatever it is, it is not an answer
            return error

    def _counting(self, question: Question) -> dict[str, Any]:
        return {**self._call.counting, "messages": question.messages, "timeout": ASKING}


def _watched(client: Any, request: Request) -> Any:
    from fsm.providers._anthropic.watch import watched

    return watched(client, request.alive)


def _check_process(process: int, key: str) -> None:
    if os.getpid() != process:
        raise ProviderError("this answer is read by the process that forked; send the message again here", key)


def _close(opened: Any, process: int) -> None:
    if opened is None:
        return
    if os.getpid() != process:
        leave_to_parent(opened)
        return
    with suppress(Exception):
        opened.close()


async def _aclose(opened: Any, process: int) -> None:
    """Close a stream, and read it to the end, which it then has: the SDK's generators are left to nobody."""
    if opened is None:
        return
    if os.getpid() != process:
        leave_to_parent(opened)
        return
    with suppress(Exception):
        await opened.close()
        async for _ in opened:
            pass
