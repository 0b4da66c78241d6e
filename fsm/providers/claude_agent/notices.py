"""Notices of the Claude CLI beside its results: background tasks, stops by a hook, lost writes, compactions."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from fsm.provider import Request

__all__ = ["INCOMPLETE", "Notices"]

LOGGER = logging.getLogger("fsm")

_AGENTS = frozenset({"local_agent", "local_workflow"})
"""Background tasks whose end the CLI waits for, and then starts another turn by itself."""

INCOMPLETE: set[str] = set()
"""Sessions that the CLI could not store whole, of this process; resuming one would lose turns without a word."""


class Notices:
    """Notices of one turn.

    Args:
        request: the request.

    Attributes:
        agents: the agents that run in the background.
        tasks: the other background tasks that run, such as shells. The CLI would wait for them, and they may never end.
        lost: the sessions that the CLI could not store whole.
        is_stopped: whether a hook has stopped the turn.
        is_moved: whether the CLI has begun another session within the turn, as the command ``/clear`` does.
        is_repeating: whether the CLI repeats messages. After it has compacted a session, it prints the kept ones again,
            until it asks the model again.
    """

    def __init__(self, request: Request) -> None:
        self._fields = {"conversation": request.key, "turn": request.turn}
        self.agents: set[str] = set()
        self.tasks: list[str] = []
        self.lost: set[str] = set()
        self.is_stopped = False
        self.is_moved = False
        self.is_repeating = False

    def take(self, message: Any) -> None:
        """Take a message of the SDK; most of them concern no promise."""
        import claude_agent_sdk as sdk

        match message:
            case sdk.TaskStartedMessage() if message.task_type in _AGENTS:
                self.agents.add(message.task_id)
            case sdk.TaskStartedMessage():
                self.tasks.append(message.task_id)
            case sdk.TaskNotificationMessage():
                self._end(message.task_id)
            case sdk.TaskUpdatedMessage() if message.status in sdk.TERMINAL_TASK_STATUSES:
                self._end(message.task_id)
            case sdk.ConversationResetMessage():
                self.is_moved = True
                LOGGER.warning("provider.session_cleared", extra=self._fields)
            case sdk.MirrorErrorMessage():
                self._lose(message.subtype, [message.data.get("session_id")])
            case sdk.SystemMessage():
                self._system(message.subtype, message.data)

    def _system(self, subtype: str, data: dict[str, Any]) -> None:
        match subtype:
            case "compact_boundary":
                self.is_repeating = True
            case "status" if data.get("status") == "requesting":
                self.is_repeating = False
            case "informational" if data.get("prevent_continuation") is True:
                self.is_stopped = True
            case "session_writes_lost" if "transcript" in data.get("lost", ()):
                self._lose(data.get("error_code"), data.get("transcript_session_ids") or [data.get("session_id")])

    def _end(self, task: str) -> None:
        self.agents.discard(task)
        if task in self.tasks:
            self.tasks.remove(task)

    def _lose(self, error_code: object, session_ids: Iterable[Any]) -> None:
        lost = {named for named in session_ids if isinstance(named, str) and named}
        self.lost |= lost
        INCOMPLETE.update(lost)
        fields = {**self._fields, "session_ids": sorted(lost), "error_code": error_code}
        LOGGER.warning("provider.writes_lost", extra=fields)

    def end_tasks(self, tasks: Iterable[str]) -> None:
        """Log that these background tasks were ended with their turn."""
        LOGGER.warning("provider.tasks_stopped", extra={**self._fields, "tasks": list(tasks)})
