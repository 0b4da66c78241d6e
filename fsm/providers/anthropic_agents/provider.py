"""Managed Agents of Anthropic as a provider.

The session lives at the API: an agent with its own tools and environment, which keeps the conversation. A new session
is told the stored history in its first message, delimited; one that is held gets the new message only. Its events are
streamed until it is idle. ``stream`` and ``astream`` are thin loops around one
:class:`~fsm.providers.anthropic_agents.exchange.Exchange`. The SDK is imported when a
provider is constructed, not with this module.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from fsm.content import Block
from fsm.errors import InvalidInput, ProviderError
from fsm.events import Event
from fsm.fork import leave_to_parent
from fsm.provider import BaseProvider, Request
from fsm.providers._anthropic.client import Clients
from fsm.providers.anthropic_agents.arguments import call_of_create, common_of, name_of
from fsm.providers.anthropic_agents.content import check_content
from fsm.providers.anthropic_agents.exchange import ENDED, Exchange, Todo

if TYPE_CHECKING:
    import anthropic

__all__ = ["AnthropicAgents"]

LOGGER = logging.getLogger("fsm")

STOPPING = 5.0
"""The most seconds for stopping an agent and closing its connection."""


class AnthropicAgents(BaseProvider):
    """A Managed Agent, for :class:`fsm.SessionManager` and :class:`fsm.AsyncSessionManager`.

    How a turn ends, and what its result says:

    ==================================================  =========================================================
    what happened                                       result
    ==================================================  =========================================================
    the agent is done                                   ``success``, ``stop_reason`` ``end_turn``
    the agent waits for tools (see below)               ``success``, ``stop_reason`` ``requires_action``
    the session is gone, archived, deleted, terminated  ``error_during_execution``
    the model refused                                   ``error_refusal``; the session is still good
    the session's budget is used up                     ``error_max_budget_usd``; the session is still good
    the session gave up: ``session.error``, retries     ``error_api`` with ``http_status``, ``error_max_turns`` or
    exhausted                                           ``error_retries_exhausted``; the session is still good
    any other error of the API                          ``error_api`` with ``http_status``; the session is still
                                                        good
    no connection; neither stream nor list can be had   ``error_connection``; the session is still good
    an answer that can't be read                        ``error_response``; the session is still good
    an earlier turn can't be stopped                    ``error_busy``; the session is still good
    ==================================================  =========================================================

    After ``requires_action``, ``result.provider_data["pending"]`` lists the calls that the agent waits for, each with
    its ``tool_use_id``, its ``name`` and what it ``needs``, a ``result`` or a ``confirmation``. The next message
    answers them with blocks::

        {"type": "tool_result", "tool_use_id": …, "content": "3"}
        {"type": "tool_confirmation", "tool_use_id": …, "result": "allow"}      # or "deny", with a "deny_message"

    A message with text or files closes all open calls. A call without an answer gets its stored result, if an earlier
    turn of the session brought one and failed. Else it gets an error that no result was recorded, or it is denied.

    The provider's ``name`` names the agent and the environment. An application that changes either starts new sessions,
    with the history rebuilt (G15), because a session keeps the agent that it was created with.
    An agent named by its id alone is the newest version when a session is created; name a ``version`` as well to have
    sessions renewed when it changes.

    Args:
        agent: the agent's id, or the object that the API takes for it, with a version or overrides.
        environment: the environment's id.
        client: the client for ``stream``, or a function that returns one; by default one is made from the environment
            (``ANTHROPIC_API_KEY``, …).
        async_client: the client for ``astream``, likewise. A client of yours is yours to close.
        previews: whether text comes while the model writes it. Should the API retry a message in the middle, what was
            streamed of it stays; without previews a message comes whole.
        options: more arguments for creating a session, such as ``resources``, ``vault_ids``, ``budget``, ``title`` or
            ``metadata``. ``betas``, ``workspace_id`` and ``extra_headers`` go with every other call as well.

    Raises:
        ProviderError: no credentials were found, here and not in the middle of a conversation.
        InvalidInput: an argument can't be used.

    >>> import anthropic
    >>> with anthropic.Anthropic(api_key="sk-ant-…") as client:
    ...     AnthropicAgents(agent="agent_01", environment="env_01", client=client).name
    'anthropic-agents:agent_01:env_01'
    """

    wants_tool_results = True

    def __init__(
        self,
        *,
        agent: str | Mapping[str, Any],
        environment: str,
        client: anthropic.Anthropic | Callable[[], anthropic.Anthropic] | None = None,
        async_client: anthropic.AsyncAnthropic | Callable[[], anthropic.AsyncAnthropic] | None = None,
        previews: bool = True,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(previews, bool):
            raise InvalidInput(f"previews is {previews!r}; it must be True or False")
        options = {} if options is None else options
        self._call = call_of_create(agent, environment, options)
        self._common = common_of(options)
        self.name = f"anthropic-agents:{name_of(agent)}:{environment}"
        self._previews = previews
        self._clients = Clients(client, async_client)

    @property
    def longest_silence(self) -> float | None:
        """The longest time in seconds without a sign of life: the client's read timeout times its attempts.

        None if the client has no timeout.
        """
        return self._clients.longest_silence()

    def check_content(self, content: Sequence[Block]) -> None:
        """Refuse what the API does not take, before the turn begins.

        Args:
            content: the new message: text, images, documents, and answers to tool calls.

        Raises:
            InvalidContent: it names the block, what is wrong with it and what to do.
        """
        check_content(content)

    def stream(self, request: Request) -> Generator[Event, None, None]:
        """Answer. Closing the generator early stops the agent and closes the connection.

        Args:
            request: the new message, and the session to resume or the history to begin one with.

        Returns:
            The events; the last one, and only that, is the result.

        Raises:
            ProviderError: the provider was given a client for ``astream`` only.
        """
        from fsm.providers._anthropic.watch import watched

        process = os.getpid()
        client = watched(self._clients.sync(request.key), request.alive)
        exchange = Exchange(request, self._call, previews=self._previews, retries=client.max_retries)
        calls = _calls(client, self._common)
        opened: Any = None
        try:
            while exchange.result is None:
                said: Sequence[Event] = ()
                _check_process(process, request.key)
                try:
                    match exchange.todo:
                        case Todo.OPEN:
                            _close(opened)
                            opened = calls[Todo.OPEN](**exchange.arguments)
                            exchange.opened()
                        case Todo.READ:
                            said = exchange.read(next(opened, ENDED))
                        case Todo.WAIT:
                            time.sleep(exchange.delay)
                            exchange.waited()
                        case call:
                            said = exchange.answered(calls[call](**exchange.arguments))
                except Exception as error:  # noqa: BLE001  # the SDK may raise anything while it reads
                    exchange.failed(error)
                yield from said
        finally:
            if os.getpid() != process:
                leave_to_parent(opened)
            else:
                _close(opened)
                if session_id := exchange.left_running:
                    _stop(calls[Todo.INTERRUPT], session_id, request)
        yield exchange.result

    async def astream(self, request: Request) -> AsyncGenerator[Event, None]:
        """Answer, asynchronously; see :meth:`stream`.

        A cancellation, wherever it strikes, stops the agent as closing the generator does; it waits for that no
        longer than a few seconds.

        Args:
            request: the new message, and the session to resume or the history to begin one with.

        Returns:
            The events; the last one, and only that, is the result.

        Raises:
            ProviderError: the provider was given a client for ``stream`` only.
        """
        from fsm.providers._anthropic.watch import watched

        process = os.getpid()
        client = watched(await self._clients.asynchronous(request.key), request.alive)
        exchange = Exchange(request, self._call, previews=self._previews, retries=client.max_retries)
        calls = _calls(client, self._common)
        opened: Any = None
        try:
            while exchange.result is None:
                said: Sequence[Event] = ()
                _check_process(process, request.key)
                try:
                    match exchange.todo:
                        case Todo.OPEN:
                            await _aclose(opened)
                            opened = await calls[Todo.OPEN](**exchange.arguments)
                            exchange.opened()
                        case Todo.READ:
                            said = exchange.read(await anext(opened, ENDED))
                        case Todo.WAIT:
                            await anyio.sleep(exchange.delay)
                            exchange.waited()
                        case call:
                            said = exchange.answered(await calls[call](**exchange.arguments))
                except Exception as error:  # noqa: BLE001  # the SDK may raise anything while it reads
                    exchange.failed(error)
                for event in said:
                    yield event
        finally:
            if os.getpid() != process:
                leave_to_parent(opened)
            else:
                with anyio.move_on_after(STOPPING, shield=True):
                    await _aclose(opened)
                    if session_id := exchange.left_running:
                        await _astop(calls[Todo.INTERRUPT], session_id, request)
        yield exchange.result


def _check_process(process: int, key: str) -> None:
    """Refuse to read an answer in a child of the process that asked for it."""
    if os.getpid() != process:
        raise ProviderError("the process was forked while this answer was read; read it in the parent", key)


def _calls(client: Any, common: Mapping[str, Any]) -> Mapping[Todo, Callable[..., Any]]:
    """Return the call of the API for each action.

    The SDK repeats a call that may have arrived. The message must arrive once, so the exchange repeats it itself.
    """
    once = client.with_options(max_retries=0).beta.sessions
    sessions = client.beta.sessions
    calls = {
        Todo.CREATE: sessions.create,
        Todo.OPEN: sessions.events.stream,
        Todo.LOOK_BACK: sessions.events.list,
        Todo.ASK: sessions.retrieve,
        Todo.INTERRUPT: once.events.send,
        Todo.SEND: once.events.send,
        Todo.LOOK_FOR: sessions.events.list,
        Todo.CATCH_UP: sessions.events.list,
    }
    return {todo: partial(call, **common) for todo, call in calls.items()}


def _close(opened: Any) -> None:
    with suppress(Exception):  # nothing is open, or a connection that is broken can't be closed properly
        opened.close()


async def _aclose(opened: Any) -> None:
    """Close a stream and read it to its end, so that no generator of the SDK is left open."""
    with suppress(Exception):  # as above
        await opened.close()
        while await anext(opened, ENDED) is not ENDED:
            pass


def _stop(send: Callable[..., Any], session_id: str, request: Request) -> None:
    try:
        send(session_id, events=[{"type": "user.interrupt"}], timeout=STOPPING)
    except Exception as error:  # noqa: BLE001  # the SDK may raise anything while it reads
        _not_stopped(error, request)


async def _astop(send: Callable[..., Any], session_id: str, request: Request) -> None:
    try:
        await send(session_id, events=[{"type": "user.interrupt"}], timeout=STOPPING)
    except Exception as error:  # noqa: BLE001  # the SDK may raise anything while it reads
        _not_stopped(error, request)


def _not_stopped(error: Exception, request: Request) -> None:
    """Log that the agent goes on; the next turn finds it busy and stops it."""
    fields = {"conversation": request.key, "turn": request.turn, "error": type(error).__name__}
    LOGGER.warning("provider.stop_failed", extra=fields)
