"""One turn with a Managed Agents session, without I/O: what to ask next, and one result in the end.

:class:`Exchange` is what the synchronous and the asynchronous provider share. It says what to do next
(:attr:`Exchange.todo`, with :attr:`Exchange.arguments`), is told how that went, and holds the result once the turn is
over. It promises that

* the stream is open before the message is sent, so that no event is missed; a stream that breaks is opened again, and
  what was said in between is listed;
* a message is sent to a session that waits for one: what an earlier turn left running is stopped first, and none of
  its events is heard;
* a message is sent once: when nobody knows whether it arrived, the session's events are asked;
* a session is called dead only if it is: gone, archived, deleted or terminated. Where an error may mean that, the
  session itself is looked at;
* a session is named only once its first message has arrived: before, it knows nothing of the conversation.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from fsm.provider import Request
from fsm.providers.agents_content import first_events, metadata, next_events
from fsm.providers.agents_events import OVER_BUDGET, Hearing, standing
from fsm.providers.anthropic_errors import Failed
from fsm.results import EXPIRED, Event, Result

__all__ = ["Exchange", "Todo"]

RECONNECTS = 10
"""How often in a row a stream is opened again without a single new event."""

DELAYS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
"""How long to wait before each attempt, in seconds; the last holds for all after it."""

LOOKED_BACK = 100
"""How many events before the message are looked at."""

ROUNDS = 5
"""How often a session that is still busy with an earlier turn is stopped."""

OVERLAP = timedelta(minutes=1)
"""How far before the newest event the list begins after a break; events may be stored out of order."""

_IN_DOUBT = frozenset({404, 409, 410, 422})
_PREVIEWS = frozenset({"event_start", "event_delta"})


class Todo(Enum):
    """What to do next: a call of the API, or one of ``OPEN``, ``READ`` and ``WAIT``."""

    CREATE = "create a session"
    OPEN = "open the stream, after closing the one that is open"
    LOOK_BACK = "list the newest events"
    ASK = "retrieve the session"
    INTERRUPT = "stop what the session is doing"
    SEND = "send the message"
    READ = "read the next event of the stream"
    CATCH_UP = "list the events that the stream has not brought"
    WAIT = "wait for so many seconds as `delay` says"


class Exchange:
    """One turn.

    Args:
        request: what is asked.
        call: the arguments of ``sessions.create`` that are the same for every session.
        previews: whether to stream text while the model writes it.
        retries: how often to send a message again that did not arrive.

    Attributes:
        result: the result, once the turn is over; None before.
        todo: what to do next.
        delay: how long to wait, where that is what to do.

    >>> from fsm.content import text_block
    >>> exchange = Exchange(Request("k", 1, 1, (text_block("hello"),)), {"agent": "agent_1", "environment_id": "env_1"})
    >>> exchange.todo.name, exchange.arguments["metadata"]
    ('CREATE', {'conversation_key': 'k', 'session_number': '1'})
    """

    def __init__(self, request: Request, call: Mapping[str, Any], *, previews: bool = True, retries: int = 0) -> None:
        self.result: Result | None = None
        self.todo = Todo.CREATE if request.session_id is None else Todo.OPEN
        self.delay = 0.0
        self._request = request
        self._call = call
        self._previews = previews
        self._retries = retries
        self._session_id = request.session_id
        self._message = first_events(request.history, request.content)
        self._is_sent = False
        self._hearing = Hearing()
        self._floor: datetime | None = None
        self._page: str | None = None
        self._is_paused = False
        self._failed: Failed | None = None
        self._failures = 0
        self._rounds = 0
        self._after = self.todo  # what to do after waiting

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of the call that :attr:`todo` names."""
        if self.todo is Todo.CREATE:
            return {**self._call, "metadata": metadata(self._request, self._call.get("metadata"))}
        arguments: dict[str, Any] = {"session_id": self._session_id}
        match self.todo:
            case Todo.OPEN if self._previews:
                arguments["event_deltas"] = ["agent.message"]
            case Todo.LOOK_BACK:
                arguments.update(order="desc", limit=LOOKED_BACK)
            case Todo.CATCH_UP:
                arguments.update(self._gap())
            case Todo.SEND:
                arguments["events"] = self._message
            case Todo.INTERRUPT:
                arguments["events"] = [{"type": "user.interrupt"}]
        return arguments

    @property
    def left_running(self) -> str | None:
        """The session that would go on working if the turn were given up now, or None."""
        may_have_it = self._is_sent or self.todo is Todo.SEND or self._failed is not None
        return self._session_id if may_have_it and self.result is None else None

    def opened(self) -> None:
        """The stream is open."""
        if self._is_sent:
            self._page = None
            self.todo = Todo.CATCH_UP
        else:
            self.todo = Todo.SEND if self._request.session_id is None else Todo.LOOK_BACK

    def waited(self) -> None:
        """The time is over."""
        self.todo = self._after

    def read(self, event: Any) -> list[Event]:
        """The stream has brought an event, or None: it has ended; return what the caller is to hear."""
        if event is None:
            self._reconnect(Failed("error_connection", "the stream ended before the turn was over"))
            return []
        if self._is_sent:
            return self._hear(event)
        # An earlier turn is being stopped; then it is looked at again.
        if event.type in {"session.status_idle", "session.status_terminated", "session.deleted"}:
            self.todo = Todo.LOOK_BACK
        return []

    def answered(self, answer: Any) -> list[Event]:
        """The call has brought this answer; return what the caller is to hear."""
        match self.todo:
            case Todo.CREATE:
                self._session_id = answer.id
                self.todo = Todo.OPEN
            case Todo.LOOK_BACK:
                self._look_back(answer.data)
            case Todo.ASK:
                self._asked(answer)
            case Todo.INTERRUPT:
                self.todo = Todo.READ
            case Todo.SEND:
                self._arrived()
                self.todo = Todo.READ
            case _:
                return self._caught_up(answer)
        return []

    def failed(self, error: Exception) -> None:
        """What was to be done has raised one of :func:`~fsm.providers.anthropic_errors.failures`."""
        failed = Failed.of(error)
        if self.todo is Todo.ASK:
            self._judge(failed)
        elif self.todo is not Todo.CREATE and (failed.is_refusal or failed.status in _IN_DOUBT):
            self._failed = failed
            self.todo = Todo.ASK
        elif self.todo is Todo.SEND:
            self._not_sent(failed)
        elif self._is_sent or self.todo is Todo.READ:
            self._reconnect(failed) if failed.is_transient else self._end(failed)
        else:
            self._end(failed)

    # Before the message is sent

    def _look_back(self, newest_first: list[Any]) -> None:
        """See how the last turn has left the session."""
        found = standing(newest_first)
        self._hearing.skip(newest_first, found.calls)
        times = [event.processed_at for event in newest_first if isinstance(event.processed_at, datetime)]
        self._floor = max(times, default=None)
        self._message = next_events(self._request.content, found.pending)
        self._is_paused = found.is_paused
        self._rounds += 1
        if found.ended:
            self._die(found.ended)
        else:
            self.todo = Todo.SEND if found.is_idle else Todo.ASK

    def _asked(self, session: Any) -> None:
        """The session has been looked at: because of a failure, or to see whether it is busy."""
        if session.archived_at is not None or session.status == "terminated":
            self._die("the session is archived" if session.archived_at is not None else "the session is terminated")
        elif self._failed is not None:
            # Whatever a session whose budget is used up is asked, the answer is the same.
            self._end(Failed(OVER_BUDGET, self._failed.told) if self._is_paused else self._failed)
        elif session.status == "idle":
            # It may have become idle after it was looked back at; then the last events are still to be skipped.
            self.todo = Todo.LOOK_BACK if self._rounds == 1 else Todo.SEND
        elif self._rounds <= ROUNDS:
            self.todo = Todo.INTERRUPT
        else:
            self._end(Failed("error_busy", f"the session is still {session.status} with an earlier message"))

    def _not_sent(self, failed: Failed) -> None:
        """Send again, if it did not arrive; without an answer of the API nobody knows, so look first."""
        self._failures += 1
        if failed.status is not None and (self._failures > self._retries or not failed.is_transient):
            self._end(failed)
            return
        self._failed = failed
        self._wait(Todo.CATCH_UP, self._failures)

    def _arrived(self) -> None:
        self._is_sent = True
        self._failed = None
        self._hearing.sent(self._message)

    # While the session answers

    def _hear(self, event: Any) -> list[Event]:
        try:
            if event.type not in _PREVIEWS and self._hearing.is_new(event):
                self._failures = 0
            said = self._hearing.take(event)
        except (AttributeError, TypeError) as error:
            # The SDK does not check what it parses: an event may lack what its type promises.
            self._end(Failed("error_response", f"an event can't be read ({type(error).__name__})"))
            return []
        if self._hearing.ending is not None:
            self.result = Result(session_id=self._session_id, usage=self._hearing.usage or None, **self._hearing.ending)
        return said

    def _reconnect(self, failed: Failed) -> None:
        self._failures += 1
        if self._failures > RECONNECTS:
            self._end(failed)
        else:
            self._wait(Todo.OPEN, self._failures - 1)

    def _gap(self) -> dict[str, Any]:
        """From where on events are listed: shortly before the newest that was heard, but after earlier turns'."""
        newest = self._hearing.newest
        known = [time for time in (self._floor, newest and newest - OVERLAP) if time is not None]
        since = {"created_at_gte": max(known)} if known else {}
        return {"order": "asc", **since, **({"page": self._page} if self._page else {})}

    def _caught_up(self, page: Any) -> list[Event]:
        said: list[Event] = []
        for event in page.data:
            if not self._is_sent and event.type == self._message[-1]["type"] and self._hearing.is_new(event):
                self._arrived()
            if self._is_sent and self.result is None:
                said += self._hear(event)
        self._page = page.next_page
        if self._page is None and self.result is None:
            self._resume()
        return said

    def _resume(self) -> None:
        """All has been listed: go on reading, or send what has not arrived."""
        if self._is_sent:
            self.todo = Todo.READ
        elif self._failed is None or self._failures <= self._retries:
            self.todo = Todo.SEND
        else:
            self._end(self._failed)

    def _wait(self, after: Todo, number: int) -> None:
        self._page = None
        self._after = after
        self.delay = DELAYS[min(number, len(DELAYS) - 1)]
        self.todo = Todo.WAIT

    # How it ends

    def _judge(self, failed: Failed) -> None:
        """The session can't be looked at. A malformed id is one that is not there, and stays so."""
        if failed.is_refusal or (failed.status == 404 and failed.kind == "not_found_error"):
            self._failed = failed
            self._die(failed.told)
        else:
            self._end(self._failed or failed)

    def _die(self, why: str) -> None:
        failed = self._failed
        told = (why,) if failed is None or failed.told == why else (failed.told, why)
        self.result = Result(
            subtype=EXPIRED,
            is_error=True,
            session_id=self._session_id,
            errors=told,
            http_status=None if failed is None else failed.status,
            usage=self._hearing.usage or None,
        )

    def _end(self, failed: Failed) -> None:
        self.result = Result(
            subtype=failed.subtype,
            is_error=True,
            session_id=self._session_id if self._is_sent else self._request.session_id,
            errors=(failed.told,),
            http_status=failed.status,
            usage=self._hearing.usage or None,
        )
