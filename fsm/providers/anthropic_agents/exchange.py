"""One turn with a Managed Agents session, without I/O: the next action, and one result in the end.

:class:`Exchange` is shared by the synchronous and the asynchronous provider. It names the next action
(:attr:`Exchange.todo`, with :attr:`Exchange.arguments`), takes its outcome, and holds the result once the turn is over.

* The stream is open before the message is sent, so that no event is missed. A stream that breaks is opened again, and
  the events in between are listed. If it can't be opened, the events are listed until the turn is over.
* A message is sent to a session that waits for one. An earlier turn that still runs there is stopped first, and its
  events are ignored.
* A message is sent once. If it is not known whether it arrived, the session's events are listed several times.
* An agent that may still be at work when the turn is given up is stopped.
* A session is called dead only by evidence about it (:mod:`fsm.providers.anthropic_agents.evidence`). If an error may
  mean that, the session itself is retrieved.
* A session is named only once its first message has arrived: before, it knows nothing of the conversation.
* An answer that can't be read ends the turn as ``error_response``, with the text before it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from fsm.events import Event, Result
from fsm.provider import Request
from fsm.providers._anthropic.errors import Failed
from fsm.providers.anthropic_agents.content import metadata
from fsm.providers.anthropic_agents.ending import ENDED, Todo, Unreadable, events_of, may_pass
from fsm.providers.anthropic_agents.events import OVER_BUDGET
from fsm.providers.anthropic_agents.evidence import is_gone, is_of_the_session
from fsm.providers.anthropic_agents.reading import of
from fsm.providers.anthropic_agents.sending import AT_WORK, LOOKS, ROUNDS, Sending

__all__ = ["ENDED", "ROUNDS", "Exchange", "Todo"]

LOGGER = logging.getLogger("fsm")

RECONNECTS = 10
"""The most attempts in a row to open a stream, without a new event in between."""

POLLS = 100
"""The most lists of events in a row without a new event, once the stream can't be opened."""

DELAYS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
"""The seconds to wait before each attempt; the last holds for all after it."""

LOOKED_BACK = 100
"""The number of events before the message that are listed."""

OVERLAP = timedelta(minutes=1)
"""The time before the newest event at which a list begins after a break; events may be stored out of order."""

_IN_DOUBT = frozenset({404, 409, 410, 422})
_PREVIEWS = frozenset({"event_start", "event_delta"})


class Exchange(Sending):
    """One turn.

    Args:
        request: the request.
        call: the arguments of ``sessions.create`` that are the same for every session.
        previews: whether to stream text while the model writes it.
        retries: the number of times to send a message again that did not arrive.

    Attributes:
        result: the result, once the turn is over; None before.
        todo: the next action.

    >>> from fsm.content import text_block
    >>> request = Request(key="k", turn=1, session_number=1, content=(text_block("hello"),))
    >>> exchange = Exchange(request, {"agent": "agent_1", "environment_id": "env_1"})
    >>> exchange.todo.name, exchange.arguments["metadata"]
    ('CREATE', {'conversation_key': 'k', 'session_number': '1'})
    """

    def __init__(self, request: Request, call: Mapping[str, Any], *, previews: bool = True, retries: int = 0) -> None:
        super().__init__(request, retries)
        self._call = call
        self._previews = previews
        self._is_open = False
        self._page: str | None = None
        self._failures = 0
        self._polls = 0
        self._is_polling = False

    @property
    def delay(self) -> float:
        """The seconds to wait, if that is the next action."""
        return DELAYS[min(self._attempt, len(DELAYS) - 1)]

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of the call that :attr:`todo` names."""
        if self.todo is Todo.CREATE:
            return {**self._call, "metadata": metadata(self._request, self._call.get("metadata"))}
        arguments: dict[str, Any] = {"session_id": self._session_id}
        match self.todo:
            case Todo.OPEN if self._previews:
                arguments["event_deltas"] = ["agent.message"]
            case Todo.LOOK_BACK | Todo.LOOK_FOR:
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
        if self.result is None:
            is_left = self._is_sent or self._may_have_arrived or self.todo is Todo.SEND
        else:
            is_left = self._is_left
        return self._session_id if is_left else None

    def opened(self) -> None:
        """Go on after the stream was opened."""
        self._is_open = True
        if self._is_sent:
            self._page = None
            self.todo = Todo.CATCH_UP
        else:
            self.todo = Todo.SEND if self._request.session_id is None else Todo.LOOK_BACK

    def waited(self) -> None:
        """Go on after the wait."""
        self.todo = self._after

    def read(self, event: Any) -> list[Event]:
        """Take an event of the stream, or ``ENDED``; return the events for the caller."""
        if event is ENDED:
            self._reconnect(Failed(subtype="error_connection", told="the stream ended before the turn was over"))
            return []
        said = self._hear(event)
        self._consider()
        return said

    def answered(self, answer: Any) -> list[Event]:
        """Take the answer of the call; return the events for the caller."""
        try:
            return self._answered(answer)
        except Exception as error:  # noqa: BLE001  # an answer may have any shape
            self.failed(Unreadable(type(error).__name__))
            return []

    def failed(self, error: Exception) -> None:
        """Take the error of the action."""
        failed = Failed.of(error)
        if self.todo is Todo.ASK:
            self._judge(failed)
        elif self.todo is Todo.CREATE:
            self._end(failed)
        elif failed.is_refusal or failed.status in _IN_DOUBT:
            self._failed = failed
            self._ask(self._lives_and_refuses)
        elif self.todo is Todo.SEND:
            self._not_sent(failed)
        elif self.todo is Todo.LOOK_FOR and may_pass(failed):
            self._failed = failed
            self._look_again()
        elif self._is_sent:
            self._reconnect(failed) if may_pass(failed) else self._end(failed)
        else:
            self._end(failed)

    def _answered(self, answer: Any) -> list[Event]:
        match self.todo:
            case Todo.CREATE:
                if not isinstance(answer.id, str) or not answer.id:
                    raise Unreadable("a session without an id")
                self._session_id = answer.id
                self.todo = Todo.OPEN
            case Todo.LOOK_BACK:
                self._look_back(events_of(answer))
            case Todo.ASK:
                self._asked(answer)
            case Todo.INTERRUPT:
                self._wait(Todo.LOOK_BACK, self._rounds)
            case Todo.SEND if isinstance(answer, str):
                raise Unreadable("a page of a gateway")
            case Todo.SEND:
                self._arrived()
            case Todo.LOOK_FOR:
                self._look_for(events_of(answer))
            case _:
                return self._caught_up(events_of(answer), of(answer, "next_page"))
        return []

    # While the session answers

    def _hear(self, event: Any) -> list[Event]:
        try:
            if self._hearing.is_new(event) and of(event, "type") not in _PREVIEWS:
                self._failures = self._polls = 0
                self._failed = None
            said = self._hearing.take(event)
            if (ending := self._hearing.ending) is not None:
                self.result = Result(session_id=self._session_id, usage=self._hearing.usage or None, **ending)
        except Exception as error:  # noqa: BLE001  # an event may have any shape
            self._end(Failed(subtype="error_response", told=f"an event can't be read ({type(error).__name__})"))
            return []
        return said

    def _consider(self) -> bool:
        """Return whether the turn goes on; if the service called its error terminal, retrieve the session."""
        if self.result is None and self._hearing.is_doomed:
            self._looks = 0
            self._ask(self._lives_and_is_doomed)
        return self.result is None and not self._hearing.is_doomed

    def _reconnect(self, failed: Failed) -> None:
        self._is_open = False
        self._failures += 1
        if self._failures <= RECONNECTS:
            self._wait(Todo.OPEN, self._failures - 1)
        else:
            self._poll(failed)

    def _poll(self, failed: Failed | None) -> None:
        """List the events from time to time, while the stream can't be had."""
        if not self._is_polling:
            self._is_polling = True
            fields = {"conversation": self._request.key, "turn": self._request.turn}
            LOGGER.warning("provider.stream_lost", extra=fields)
        self._failed = (
            failed or self._failed or Failed(subtype="error_connection", told="the stream can't be opened any more")
        )
        self._polls += 1 if failed is None else POLLS // RECONNECTS
        if self._polls > POLLS:
            self._end(self._failed)
        else:
            self._wait(Todo.CATCH_UP, len(DELAYS) - 1)

    def _gap(self) -> dict[str, Any]:
        """Return where a list begins: shortly before the newest event, but after those of earlier turns."""
        newest = self._hearing.newest
        known = [time for time in (self._floor, newest and newest - OVERLAP) if time is not None]
        since = {"created_at_gte": max(known)} if known else {}
        return {"order": "asc", **since, **({"page": self._page} if self._page else {})}

    def _caught_up(self, events: list[Any], next_page: Any) -> list[Event]:
        said: list[Event] = []
        for event in events:
            if self.result is None:
                said += self._hear(event)
        self._page = next_page if isinstance(next_page, str) and next_page != self._page else None
        if self._consider() and self._page is None:
            self._resume()
        return said

    def _resume(self) -> None:
        """Go on reading, after all events were listed."""
        if self._is_open:
            self.todo = Todo.READ
        elif self._failures:
            self._poll(None)
        else:  # there was something new, so the stream gets another chance
            self._wait(Todo.OPEN, 0)

    # What the session itself says

    def _judge(self, failed: Failed) -> None:
        """Decide after the session could not be retrieved."""
        if is_gone(failed, self._session_id):
            self._die(failed.told, failed)
        elif self._lives == self._lives_and_is_doomed and self._hearing.cause is not None:
            self._end(self._hearing.cause)
        elif self._is_sent and may_pass(failed):
            self._reconnect(self._failed or failed)
        else:
            self._end(self._failed or failed)

    def _lives_and_refuses(self, session: Any) -> None:
        """Decide after a call failed and the session turned out to live."""
        failed = self._failed or Failed(subtype="error_response", told="the session can't be read")
        if self._is_sent:
            self._failed = None
            self._reconnect(failed)
        elif self._may_have_arrived and of(session, "status") in AT_WORK:
            self._arrived()
        else:
            # A session whose budget is used up gives this answer to every call.
            self._end(Failed(subtype=OVER_BUDGET, told=failed.told) if self._is_paused else failed)

    def _lives_and_is_doomed(self, session: Any) -> None:
        """Decide after a terminal error of a session that still lives."""
        cause = self._hearing.cause or Failed(subtype="error_response", told="the session has failed")
        is_at_work = of(session, "status") in AT_WORK
        self._looks += 1
        if is_at_work and self._looks < LOOKS:
            self._wait(Todo.ASK, self._looks)
        elif is_at_work and is_of_the_session(cause):
            self._die("the session has failed for good", cause)
        else:
            self._end(cause, is_idle=not is_at_work)
