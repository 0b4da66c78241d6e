"""The Claude Agent SDK as a provider.

The SDK runs the Claude CLI, one process for each turn. The CLI keeps the transcript of a session in a file below the
home directory and is asked to ``resume`` it. Such a file dies with its container, or is removed after some weeks. Then
the CLI says "No conversation found with session ID …", and the conversation goes on in a new session that is told the
history.

The decisions are in :mod:`fsm.providers.claude_agent.exchange` and :mod:`fsm.providers.claude_agent.results`, the
process is in
:mod:`fsm.providers.claude_agent.process`. The SDK, the extra ``claude-agent``, is imported when a provider is
constructed,
not with this module.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, Generator, Sequence
from typing import TYPE_CHECKING

from fsm.content import Block
from fsm.errors import InvalidInput, ProviderError
from fsm.events import EXPIRED, Event, Result
from fsm.provider import BaseProvider, Request
from fsm.providers.claude_agent import exchange
from fsm.providers.claude_agent.exchange import Exchange
from fsm.providers.claude_agent.loop_thread import read_in_thread
from fsm.providers.claude_agent.notices import INCOMPLETE
from fsm.providers.claude_agent.options import check_options, default_name, keeps_sessions, prepared
from fsm.providers.claude_agent.process import Process

if TYPE_CHECKING:
    from claude_agent_sdk import ClaudeAgentOptions

__all__ = ["ClaudeAgent"]

STOPPING = 3.0
"""How long the CLI may take to stop what it is doing and to store it, in seconds; then it is ended by force."""


class ClaudeAgent(BaseProvider):
    """Claude with tools, over the Claude Agent SDK, for :class:`fsm.SessionManager` and
    :class:`fsm.AsyncSessionManager`, on asyncio and trio.

    How a turn ends, and what its result says:

    ==================================================  =========================================================
    what happened                                       result
    ==================================================  =========================================================
    an answer                                           ``success`` with the ``stop_reason``
    a resumed session is gone or full, or the API       ``error_during_execution``
    refuses the messages of its transcript
    a new session is refused for its size               ``error_context_window`` without a session
    the API failed otherwise                            as the CLI says it, ``is_error`` with ``http_status``; the
                                                        session is still good
    a limit of turns or of cost                         ``error_max_turns``, …; the session is still good
    the CLI failed otherwise                            ``error_cli``; the session is still good
    a permission callback or a hook stopped it          ``interrupted``; the session is still good
    the CLI could not store all of the session          as the CLI says it, without a session
    ==================================================  =========================================================

    A CLI that is missing, dies or is silent for too long raises :class:`~fsm.errors.ProviderError`. A caller that
    leaves a stream early interrupts the CLI as a person does: it stores what it said so far, and the session lives.

    The CLI stores a turn before it reports the result. The result is handed out when the CLI has exited, or after some
    seconds if it does not exit. Agents in the background are waited for. Other background tasks, such as shells, end
    with the turn.

    A provider holds no process between turns, so any number of threads, tasks and event loops may use it.

    Args:
        options: the options of the SDK: ``cwd``, tools, permissions, model, MCP servers, hooks, …; they are copied and
            passed through. Options that say which session is resumed, or where, are refused. ``max_buffer_size`` is
            64 MiB unless it is set.
        timeout: for how many seconds the CLI may print nothing before it is stopped. A running tool is not silence,
            because the CLI prints a heartbeat every 30 seconds; a person who is asked for a permission is. Keep it
            below the manager's ``lease``.
        name: the provider's name, by default ``claude-agent:`` with the folder and a hash of the working directory. A
            session of one directory is never resumed in another (G15). With a name of your choice, directories share
            sessions as far as the CLI lets them.

    Raises:
        ProviderError: the extra ``claude-agent`` is not installed.
        InvalidInput: an option contradicts what the provider promises, or an argument is not usable.
    """

    def __init__(
        self, options: ClaudeAgentOptions | None = None, *, timeout: float = 540.0, name: str | None = None
    ) -> None:
        try:
            import claude_agent_sdk as sdk
        except ImportError as error:
            raise ProviderError(
                "the Claude Agent SDK is not installed; install it with: pip install 'conversation-fsm[claude-agent]'"
            ) from error
        if options is None:
            options = sdk.ClaudeAgentOptions()
        given: tuple[object, object] = (options, timeout)
        if not isinstance(given[0], sdk.ClaudeAgentOptions):
            raise InvalidInput(f"options must be a ClaudeAgentOptions, and is of type {type(options).__name__}")
        if isinstance(given[1], bool) or not isinstance(given[1], int | float) or not timeout > 0:
            raise InvalidInput(f"timeout must be a number of seconds above 0, and is {timeout!r}")
        check_options(options)
        self.options = prepared(options)
        self._is_stored = keeps_sessions(options)
        self._timeout = float(timeout)
        self.name = default_name(str(self.options.cwd)) if name is None else name

    @property
    def longest_silence(self) -> float:
        """The seconds for which the CLI may be silent before it is stopped: the timeout."""
        return self._timeout

    def check_content(self, content: Sequence[Block]) -> None:
        """Refuse what the CLI does not take, before the turn begins.

        Args:
            content: the new message: text, images and documents.

        Raises:
            InvalidContent: it names the block, what is wrong with it and what to do.
        """
        exchange.check_content(content)

    def stream(self, request: Request) -> Generator[Event, None, None]:
        """Answer. Closing the generator early interrupts the CLI and waits for its end.

        The SDK is asynchronous: it runs in a daemon thread with its event loop, which ends with the generator. Hooks,
        permission callbacks and the tools of the application are called there. Any thread may close the generator. A
        forked child can't use it.

        Args:
            request: the new message, and the session to resume or the history to begin one with.

        Returns:
            The events; the last one, and only that, is the result.

        Raises:
            ProviderError: the CLI did not answer.
        """
        return read_in_thread(self.astream(request))

    async def astream(self, request: Request) -> AsyncGenerator[Event, None]:
        """Answer, asynchronously; see :meth:`stream`.

        Args:
            request: the new message, and the session to resume or the history to begin one with.

        Returns:
            The events; the last one, and only that, is the result.

        Raises:
            ProviderError: the CLI did not answer.
        """
        if request.session_id in INCOMPLETE:
            told = ("the Claude CLI could not store all of this session; the disk was full",)
            yield Result(subtype=EXPIRED, is_error=True, session_id=request.session_id, errors=told)
            return
        exchange = Exchange(request, timeout=self._timeout, stored=self._is_stored)
        options = dataclasses.replace(self.options, resume=request.session_id)
        process = Process(options, exchange, request.alive, stopping=STOPPING)
        try:
            while (message := await process.message()) is not None:
                for event in exchange.feed(message):
                    yield event
            yield exchange.ended()
        finally:
            await process.close()
