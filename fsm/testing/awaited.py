"""An asynchronous manager that is used as if it were a synchronous one, so that one script can drive both (G12)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fsm.aio import AsyncSessionManager, AsyncStreamedTurn
from fsm.events import Event
from fsm.records import Conversation
from fsm.reply import Reply

__all__ = ["Awaited"]


class _Turn:
    """A running turn, read event by event."""

    def __init__(self, turn: AsyncStreamedTurn, runner: asyncio.Runner) -> None:
        self._turn = turn
        self._runner = runner

    @property
    def reply(self) -> Reply:
        return self._turn.reply

    def __iter__(self) -> Iterator[Event]:
        while (event := self._runner.run(anext(self._turn, None))) is not None:
            yield event


class Awaited:
    """The part of :class:`fsm.SessionManager` that a script needs, done by an asynchronous manager.

    Args:
        manager: does it.
        runner: runs it.
    """

    def __init__(self, manager: AsyncSessionManager, runner: asyncio.Runner) -> None:
        self._manager = manager
        self._runner = runner

    @contextmanager
    def stream(self, key: str, content: Any, *, idempotency_key: str | None = None) -> Iterator[_Turn]:
        """See :meth:`fsm.SessionManager.stream`."""
        streamed = self._manager.stream(key, content, idempotency_key=idempotency_key)
        turn = self._runner.run(streamed.__aenter__())
        try:
            yield _Turn(turn, self._runner)
        finally:
            if self._is_open:
                self._runner.run(streamed.__aexit__(None, None, None))

    @property
    def _is_open(self) -> bool:
        """Whether the runner is open; a closed one has ended all of its tasks."""
        try:
            self._runner.get_loop()
        except RuntimeError:
            return False
        return True

    def reset(self, key: str, *, reason: str, force: bool) -> Conversation:
        """See :meth:`fsm.SessionManager.reset`."""
        return self._runner.run(self._manager.reset(key, reason=reason, force=force))

    def recover(self) -> list[Conversation]:
        """See :meth:`fsm.SessionManager.recover`."""
        return self._runner.run(self._manager.recover())
