"""The Claude Agent SDK as a provider.

The SDK runs the Claude CLI, a process of its own for each turn, which keeps the transcript of a session in a file
below the home directory and is asked to ``resume`` it. Such a file dies with its container, or is cleaned up after
some weeks: the CLI then says "No conversation found with session ID …", and the conversation goes on in a new session
that is told the history.

All that is decided is decided in :mod:`fsm.providers.claude_exchange`; here are the process, the clock and the
thread. The SDK, the extra ``claude-agent``, is imported when a provider is constructed, not with this module.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, Generator, Sequence
from typing import TYPE_CHECKING

from fsm.content import Block
from fsm.errors import InvalidInput, ProviderError
from fsm.provider import Request
from fsm.providers import claude_exchange
from fsm.providers.claude_exchange import Exchange
from fsm.providers.claude_notices import INCOMPLETE
from fsm.providers.claude_options import check_options, default_name, keeps_sessions, prepared
from fsm.providers.claude_process import Process
from fsm.providers.loop_thread import read_in_thread
from fsm.results import EXPIRED, Event, Result

if TYPE_CHECKING:
    from claude_agent_sdk import ClaudeAgentOptions

__all__ = ["ClaudeAgent"]

STOPPING = 3.0
"""How long the CLI may take to stop what it is doing and to store it, in seconds; then it is ended by force."""


class ClaudeAgent:
    """Claude with tools, over the Claude Agent SDK, for :class:`fsm.SessionManager` and
    :class:`fsm.AsyncSessionManager`, on asyncio and trio.

    How a turn ends, and what its result says:

    ==================================================  =========================================================
    what happened                                       result
    ==================================================  =========================================================
    an answer                                           ``success`` with the ``stop_reason``
    the session is gone, raised or reported             ``error_during_execution``
    a resumed session is full, or the API refuses its   ``error_during_execution``
    transcript (400, 413)
    the same of a new session                           as the CLI says it; a full one: ``error_context_window``
    the API failed otherwise                            as the CLI says it, ``is_error`` with ``http_status``; the
                                                        session is still good
    a limit of turns or of cost                         ``error_max_turns``, …; the session is still good
    a permission callback or hook stopped it            ``interrupted``; the session is still good
    ==================================================  =========================================================

    A CLI that is missing, dies or is silent for too long raises :class:`~fsm.errors.ProviderError`. Whoever leaves a
    stream early interrupts the CLI as a person does: it stores what it said so far, and the session lives. The result
    is handed out when the process has exited, so that what it names is on disk.

    Args:
        options: the options of the SDK: ``cwd``, tools, permissions, model, MCP servers, hooks, …; they are passed
            through and never changed. Which session is resumed is the conversation's own affair.
        timeout: for how many seconds the CLI may be silent before it is stopped. What counts is the time between two
            of its messages: a tool that runs, or a person who is asked for a permission, is silence. Keep it below
            the manager's ``lease``.
        name: the provider's name. The CLI looks for its sessions below its home directory (``CLAUDE_CONFIG_DIR``) and
            for the working directory. After a change of these it reports them dead by itself, so the name needs no
            change. Give another one if the sessions would still be found but are not to be continued: another role,
            another circle of tools or permissions (G15).

    Raises:
        ProviderError: the extra ``claude-agent`` is not installed.
        InvalidInput: an option says which session to resume, or an argument is not usable.
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
        self._options = prepared(options)
        self._is_stored = keeps_sessions(options)
        self._timeout = float(timeout)
        self.name = default_name(str(self._options.cwd)) if name is None else name

    @property
    def longest_silence(self) -> float:
        """For how many seconds the CLI may be silent before it is stopped: the timeout."""
        return self._timeout

    def check_content(self, content: Sequence[Block]) -> None:
        """Refuse what the CLI does not take, before the turn begins.

        Args:
            content: the new message: text, images and documents.

        Raises:
            InvalidContent: it names the block, what is wrong with it and what to do.
        """
        claude_exchange.check_content(content)

    def stream(self, request: Request) -> Generator[Event, None, None]:
        """Answer. Closing the generator early interrupts the CLI and waits for its end.

        The SDK is asynchronous: it runs in a thread of its own, with an event loop of its own, which ends with the
        generator. Hooks, permission callbacks and the tools of the application are called there.

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
            yield Result(EXPIRED, is_error=True, session_id=request.session_id, errors=told)
            return
        exchange = Exchange(request, timeout=self._timeout, stored=self._is_stored)
        options = dataclasses.replace(self._options, resume=request.session_id)
        process = Process(options, exchange, request.alive, stopping=STOPPING)
        try:
            while (message := await process.message()) is not None:
                for event in exchange.feed(message):
                    yield event
            yield exchange.ended()
        finally:
            await process.close()
