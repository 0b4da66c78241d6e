"""How a message reaches a Managed Agents session, once: pure, no I/O."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fsm.provider import Request
from fsm.providers._anthropic.errors import Failed
from fsm.providers.anthropic_agents.content import first_events, next_events
from fsm.providers.anthropic_agents.ending import Ending, Todo, Unreadable, may_pass
from fsm.providers.anthropic_agents.reading import of, time_of
from fsm.providers.anthropic_agents.standing import has_arrived, standing

__all__ = ["AT_WORK", "LOOKS", "ROUNDS", "Sending"]

LOOKS = 5
"""How often the session is looked at before something that it does not show is taken not to be so."""

ROUNDS = 5
"""How often a session that is still busy with an earlier turn is stopped."""

AT_WORK = frozenset({"running", "rescheduling"})
"""The statuses of a session whose agent is at work."""


class Sending(Ending):
    """The part of a turn until its message has arrived.

    Args:
        request: what is asked.
        retries: how often to send a message again that did not arrive.
    """

    def __init__(self, request: Request, retries: int) -> None:
        super().__init__(request)
        self._retries = retries
        self._message = first_events(() if request.session_id else request.history, request.content)
        self._floor: datetime | None = None
        self._is_paused = False
        self._sends = 0
        self._looks = 0
        self._rounds = 0

    def _look_back(self, newest_first: list[Any]) -> None:
        """See how the last turn has left the session."""
        found = standing(newest_first)
        self._hearing.skip(newest_first, found.calls)
        times = [when for when in map(time_of, newest_first) if when is not None]
        self._floor = max(times, default=None)
        self._message = next_events(self._request.content, found.pending, self._request.history)
        self._is_paused = found.is_paused
        self._rounds += 1
        if found.ended:
            self._die(found.ended, found.cause)
        elif found.is_idle:
            self.todo = Todo.SEND
        else:
            self._ask(self._lives_before)

    def _lives_before(self, session: Any) -> None:
        """Decide after the session was retrieved to see whether it is busy with an earlier turn."""
        status = session.status
        if status == "idle":
            # It may have become idle after it was looked back at; then the last events are still to be skipped.
            self.todo = Todo.LOOK_BACK if self._rounds == 1 else Todo.SEND
        elif not isinstance(status, str):
            raise Unreadable("a session without a status")
        elif self._rounds <= ROUNDS:
            self.todo = Todo.INTERRUPT
        else:
            self._end(Failed(subtype="error_busy", told=f"the session is still {status} with an earlier message"))

    # While nobody knows whether the message has arrived

    def _not_sent(self, failed: Failed) -> None:
        """Look whether the message has arrived before it is sent again, after a call without an answer of the API.

        A gateway may report any error although the message has passed it. Without retries an error of the API ends the
        turn; then the agent is stopped, should the message have arrived.
        """
        self._sends += 1
        self._looks = 0
        self._failed = failed
        self._may_have_arrived |= may_pass(failed)
        if not may_pass(failed) or (failed.status is not None and not self._retries):
            self._end(failed)
        else:
            self._wait(Todo.LOOK_FOR, 0)

    def _look_for(self, newest_first: list[Any]) -> None:
        new = [event for event in newest_first if self._hearing.is_new(event)]
        if has_arrived(new, self._message, self._floor):
            self._arrived()
        else:
            self._look_again()

    def _look_again(self) -> None:
        """Look once more, since events may be stored late."""
        self._looks += 1
        if self._looks < LOOKS:
            self._wait(Todo.LOOK_FOR, self._looks)
        else:
            self._ask(self._lives_and_shows_no_message)

    def _lives_and_shows_no_message(self, session: Any) -> None:
        if of(session, "status") in AT_WORK:  # it was not before, so it has heard the message
            self._arrived()
        elif self._sends <= self._retries:
            self.todo = Todo.SEND
        elif self._failed is not None:
            self._end(self._failed)

    def _arrived(self) -> None:
        self._is_sent = True
        self._failed = None
        self._hearing.sent(self._message)
        self.todo = Todo.READ
