"""One process of the Claude CLI for one turn: started, read, interrupted and closed, on asyncio and trio.

No cancel scope or task group outlives a call, so each call may come from another task than the one before.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio

from fsm.providers.claude_agent.exchange import UNREADABLE, Exchange

if TYPE_CHECKING:
    from claude_agent_sdk import ClaudeAgentOptions, Transport

__all__ = ["Process"]


class Process:
    """The CLI that answers one message.

    In a forked child it is inert: closing it there does not touch the CLI, which belongs to the parent.

    Args:
        options: the options of the SDK, with the session to resume.
        exchange: the turn.
        alive: called for each line of the CLI.
        stopping: how long the CLI may take to stop what it is doing, in seconds.
    """

    def __init__(
        self, options: ClaudeAgentOptions, exchange: Exchange, alive: Callable[[], object], *, stopping: float
    ) -> None:
        import claude_agent_sdk as sdk

        _forget_in_children()
        self._exchange = exchange
        self._alive = alive
        self._stopping = stopping
        self._owner = os.getpid()
        self._over = anyio.Event()
        self._watch: anyio.CancelScope | None = None
        self._client = sdk.ClaudeSDKClient(options, _tapped(options, self._heard))
        self._messages: AsyncIterator[Any] | None = None
        self._is_settling = False
        self._has_ended = False

    async def message(self) -> Any:
        """Return the next message, or None when the CLI has ended the turn; the process is started by the first call.

        Raises:
            ProviderError: the CLI did not answer.
        """
        try:
            if self._messages is None:
                await self._start()
            if self._exchange.is_final and not self._is_settling:
                await self._settle()
            return await self._next()
        except Exception as error:  # noqa: BLE001  # the SDK raises some that have no name; none is swallowed
            self._exchange.failed(error)
            return None

    async def close(self) -> None:
        """End the process: at once if it has answered, else by an interrupt that it stores."""
        if os.getpid() != self._owner:
            return
        with anyio.CancelScope(shield=True):
            if not (self._has_ended or self._is_settling):
                await self._interrupt()
            await self._client.disconnect()

    async def _start(self) -> None:
        with anyio.fail_after(self._exchange.patience) as self._watch:
            await self._client.connect(self._said())
        self._messages = self._client.receive_messages()

    async def _said(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the input of the CLI: one message, and the end of input only when the answer is there.

        While its input is open the CLI can be interrupted. Once it is closed, the CLI ends what runs in the
        background, stores the transcript and exits.
        """
        yield self._exchange.message
        await self._over.wait()

    def _heard(self) -> None:
        """Take a line of the CLI."""
        self._alive()
        if self._watch is not None and not self._is_settling:
            self._watch.deadline = anyio.current_time() + self._exchange.patience

    async def _next(self) -> Any:
        with anyio.fail_after(self._exchange.patience) as self._watch:
            while True:
                if self._messages is None:
                    self._messages = self._client.receive_messages()
                try:
                    message = await anext(self._messages, None)
                except Exception as error:
                    if not _is_of_one_message(error):
                        raise
                    self._exchange.skip(error, getattr(error, "data", None))
                    self._messages = None
                else:
                    self._has_ended = message is None
                    self._alive()
                    return message

    async def _settle(self) -> None:
        """End the background tasks, for which the CLI would wait, and its input, once the answer is there."""
        self._is_settling = True
        tasks = tuple(self._exchange.notices.tasks)
        with anyio.move_on_after(self._stopping):
            for task in tasks:
                with suppress(Exception):
                    await self._client.stop_task(task)
        if tasks:
            self._exchange.notices.end_tasks(tasks)
        self._over.set()

    async def _interrupt(self) -> None:
        """Stop the CLI as a person does: it stops its tools, stores what it said and exits.

        Its messages are read meanwhile, or the SDK could not read its answer to the interrupt. A CLI that has died, or
        doesn't listen, is left to ``disconnect``, which ends the process in any case.
        """
        with anyio.move_on_after(self._stopping), suppress(Exception):
            async with anyio.create_task_group() as group:
                group.start_soon(self._drain)
                await self._client.interrupt()
                self._over.set()

    async def _drain(self) -> None:
        """Read to the end; nobody hears it, but the CLI may say that it could not store the session."""
        with suppress(Exception):
            async for message in self._client.receive_messages():
                self._exchange.feed(message)


def _tapped(options: ClaudeAgentOptions, heard: Callable[[], None]) -> Transport | None:
    """Return a transport that reports each line of the CLI; None if the SDK must make its own.

    The SDK drops some lines, such as the heartbeat of a tool that runs. With a ``session_store`` it must make the
    transport itself, because the CLI then runs with a directory that the SDK fills.
    """
    if options.session_store is not None:
        return None
    try:
        from claude_agent_sdk._internal.transport.subprocess_cli import SubprocessCLITransport
    except ImportError:
        return None

    class Tapped(SubprocessCLITransport):  # type: ignore[misc, unused-ignore]  # Any where the SDK is missing
        _cli_path: str | None

        async def connect(self) -> None:
            if self._cli_path is None:
                self._cli_path = self._find_cli()  # here, for the SDK would look in a thread that holds up an exit
            await super().connect()

        async def _read_messages_impl(self) -> AsyncIterator[dict[str, Any]]:
            async for line in super()._read_messages_impl():
                heard()
                yield line

    if options.can_use_tool is not None:
        options = dataclasses.replace(options, permission_prompt_tool_name="stdio")
    return Tapped(_nothing(), options)


async def _nothing() -> AsyncIterator[dict[str, Any]]:
    """Yield nothing: the client writes the prompt."""
    prompts: tuple[dict[str, Any], ...] = ()
    for prompt in prompts:
        yield prompt


def _is_of_one_message(error: Exception) -> bool:
    """Whether the SDK could not read one message, so that the next one may be read."""
    import claude_agent_sdk as sdk

    is_of_sdk = isinstance(error, sdk.ClaudeSDKError) and not isinstance(error, sdk.ProcessError)
    return isinstance(error, UNREADABLE) or (is_of_sdk and hasattr(error, "data"))


_GUARDED: list[object] = []


def _forget_in_children() -> None:
    """Keep a forked child from ending the CLI of its parent when the child exits."""
    if _GUARDED:
        return
    with suppress(ImportError):
        from claude_agent_sdk._internal.transport import subprocess_cli

        _GUARDED.append(subprocess_cli)
        os.register_at_fork(after_in_child=subprocess_cli._ACTIVE_CHILDREN.clear)
