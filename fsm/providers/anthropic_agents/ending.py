"""The next action of a turn with a Managed Agents session, and its end, without I/O."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

from fsm.events import EXPIRED, Result
from fsm.provider import Request
from fsm.providers._anthropic.errors import Failed
from fsm.providers.anthropic_agents.events import Hearing
from fsm.providers.anthropic_agents.evidence import ended_as
from fsm.providers.anthropic_agents.reading import of

__all__ = ["ENDED", "Ending", "Todo", "Unreadable", "events_of", "may_pass"]

ENDED = object()
"""Stands for the end of a stream."""


class Todo(Enum):
    """The next action: a call of the API, or one of ``OPEN``, ``READ`` and ``WAIT``."""

    CREATE = "create a session"
    OPEN = "open the stream, after closing the one that is open"
    LOOK_BACK = "list the newest events"
    ASK = "retrieve the session"
    INTERRUPT = "stop what the session is doing"
    SEND = "send the message"
    LOOK_FOR = "list the newest events, to see whether the message has arrived"
    READ = "read the next event of the stream"
    CATCH_UP = "list the events that the stream has not brought"
    WAIT = "wait for so many seconds as `delay` says"


class Unreadable(ValueError):
    """An answer of the service that can't be read."""


class Ending:
    """The state that every part of a turn needs: the next action, the session, and the ways to end.

    Attributes:
        result: the result, once the turn is over; None before.
        todo: what to do next.
    """

    def __init__(self, request: Request) -> None:
        self.result: Result | None = None
        self.todo = Todo.CREATE if request.session_id is None else Todo.OPEN
        self._request = request
        self._session_id: str = request.session_id or ""
        self._hearing = Hearing()
        self._is_sent = False
        self._may_have_arrived = False
        self._is_left = False
        self._failed: Failed | None = None
        self._after = self.todo  # what to do after waiting
        self._attempt = 0
        self._lives: Callable[[Any], None] = self._is_unexpected  # what to do if the session lives

    def _wait(self, after: Todo, number: int) -> None:
        """Wait, longer with each attempt, and then do this."""
        self._attempt = number
        self._after = after
        self.todo = Todo.WAIT

    def _ask(self, lives: Callable[[Any], None]) -> None:
        """Retrieve the session; if it lives, go on with this."""
        self._lives = lives
        self.todo = Todo.ASK

    def _asked(self, session: Any) -> None:
        if ended := ended_as(session):
            self._die(ended, self._hearing.cause)
        else:
            self._lives(session)

    def _is_unexpected(self, session: Any) -> None:
        raise Unreadable(f"an answer that nobody asked for ({type(session).__name__})")

    def _die(self, why: str, cause: Failed | None) -> None:
        """End the turn with a dead session; before it got the message, only with an error."""
        if self._request.session_id is None and not self._is_sent:
            self._end(cause or Failed(subtype="error_api", told=why))
            return
        failed = cause or self._failed
        self.result = Result(
            subtype=EXPIRED,
            is_error=True,
            session_id=self._session_id,
            errors=self._told(*(one.told for one in (self._failed, cause) if one), why),
            http_status=None if failed is None else failed.status,
            usage=self._hearing.usage or None,
        )

    def _end(self, failed: Failed, *, is_idle: bool = False) -> None:
        """End the turn with an error that keeps the session; unless that is idle, its agent may be at work."""
        self._is_left = (self._is_sent or self._may_have_arrived) and not is_idle
        self.result = Result(
            subtype=failed.subtype,
            is_error=True,
            session_id=self._session_id if self._is_sent else self._request.session_id,
            errors=self._told(failed.told),
            http_status=failed.status,
            usage=self._hearing.usage or None,
        )

    def _told(self, *more: str) -> tuple[str, ...]:
        """Return the errors of the session and these texts, each once."""
        return tuple(dict.fromkeys((*self._hearing.told, *more)))


def events_of(page: Any) -> list[Any]:
    """Return the events of a page; a page without a list of them raises :class:`Unreadable`."""
    events = of(page, "data")
    if not isinstance(events, list):
        raise Unreadable("a page without events")
    return events


def may_pass(failed: Failed) -> bool:
    """Return whether the same call may succeed a little later."""
    return failed.is_transient or failed.subtype == "error_response"
