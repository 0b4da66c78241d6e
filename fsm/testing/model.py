"""The reference model: the rows that must be stored of one conversation, and the requests that must be sent.

It was written from the guarantees and shares no code with the core: no table, no engine, no steps. It takes the acts of
a caller and the answers of a provider. It returns the next request, the rows in the store afterwards, and the error for
the caller. :mod:`fsm.testing.machine` compares these with a real manager and store.

Time is a number of seconds. Words that name a state, a trigger or a status are plain text here.
"""

from __future__ import annotations

from typing import Any

from attrs import Factory, define

from fsm.events import EXPIRED, Result, TextDelta, ToolResult, ToolUse
from fsm.testing.expected import (
    Asked,
    Broken,
    Live,
    Message,
    Move,
    Session,
    Turn,
    context,
    messages,
    reason,
    status,
    trigger,
)

__all__ = ["Model"]


@define
class Model:
    """One conversation.

    Attributes:
        lease: for how many seconds a turn may give no sign of life.
        max_messages: how many messages a context may have.
    """

    lease: float
    max_messages: int
    now: float = 0.0
    state: str = "fresh"
    held: str | None = None
    provider: str = ""
    dead: set[str] = Factory(set)
    sessions: list[Session] = Factory(list)
    turns: list[Turn] = Factory(list)
    messages: list[Message] = Factory(list)
    moves: list[Move] = Factory(list)
    running: Live | None = None
    refuse_in: int = 0

    # What callers do

    def begin(
        self, worker: object, provider: str, blocks: tuple[Any, ...], name: str | None = None, *, heal: bool = True
    ) -> Live | Turn:
        """Send a message; return the turn to read, or the stored one with this idempotency key (G13)."""
        known = next((turn for turn in self.turns if name is not None and turn.idempotency_key == name), None)
        if known is not None:
            if known.status == "running":
                self._clear(worker)
                self._write()
                self._end("interrupted")
            if self.messages[known.first_message - 1].content != blocks:
                raise Broken("InvalidInput")
            return known
        ended = self._clear(worker)
        self._write()
        if ended is not None:
            self._end(ended)
        number = len(self.turns) + 1
        if not self.sessions:
            self.provider = provider
            self.sessions.append(Session(number=1, provider=provider, opened_reason="first turn"))
        elif self.provider != provider:
            self._renew(f"provider changed from {self.provider} to {provider}", provider, number)
        elif self.state == "stale":
            self._renew("next turn after a dead session", provider, number)
        first = len(self.messages) + 1
        self.messages.append(Message(number=first, turn=number, role="user", content=blocks))
        self.turns.append(
            Turn(
                number=number,
                session_number=len(self.sessions),
                first_message=first,
                last_message=first,
                idempotency_key=name,
            )
        )
        self.running = Live(
            turn=number,
            worker=worker,
            resumed=self.held,
            session_number=len(self.sessions),
            may_heal=heal and bool(self.held),
            until=self.now + self.lease,
        )
        return self.running

    def reset(self, worker: object, provider: str, why: str, *, force: bool) -> None:
        """Ask for a new session."""
        if not self.turns:
            raise Broken("ConversationNotFound")
        ended = self._clear(worker, force=force)
        self._write()
        if ended is not None:
            self._end(ended)
        self._renew(why, provider, None)

    def recover(self, worker: object) -> None:
        """End the abandoned turns (G9)."""
        if self.running is not None and self._may_end(worker):
            self._write()
            self._end("interrupted")

    # What the provider does

    def asks(self, live: Live) -> Asked | None:
        """Return the request that is due before the turn can go on; None if the provider was asked already."""
        if live.asked:
            return None
        self._keep_lease(live, self.lease - 1)
        live.asked = True
        live.request = live.resumed
        history = context(self.turns, self.messages, live.session_number, self.max_messages)
        return Asked(
            turn=live.turn,
            session_number=live.session_number,
            session_id=live.resumed,
            history=history if live.resumed is None else (),
        )

    def hears(self, live: Live, event: object) -> bool:
        """Take an event of the provider; return whether the caller gets it."""
        if not isinstance(event, TextDelta | ToolUse | ToolResult | Result):
            self.breaks(live)
        if not isinstance(event, Result):
            live.said.append(event)
            self._keep_lease(live)
            return True
        live.result = event
        if live.may_heal and not live.said and event.subtype == EXPIRED:
            self._heal(live, event)
            return False
        self._finish(live, event)
        return True

    def breaks(self, live: Live) -> None:
        """End a turn whose provider raised or broke its contract."""
        self.leave(live)
        raise Broken("ProviderError")

    def leave(self, live: Live) -> None:
        """End a turn whose caller stops reading."""
        if live.over:
            return
        if self._runs(live):
            live.status = "interrupted"
            live.over, live.result = True, None
            self._write_or_give_up(live)
            self._say(live)
            self._end("interrupted", healed=live.healed)
        else:
            self._late(live)

    # What follows

    def _finish(self, live: Live, result: Result) -> None:
        if not self._runs(live):
            self._late(live)
            raise Broken("TurnSuperseded")
        live.over = True
        self._write_or_give_up(live)
        live.status = status(result)
        self._move(trigger(result), reason(result), live.turn, result.session_id)
        self._say(live)
        self._end(live.status, result, healed=live.healed)

    def _heal(self, live: Live, result: Result) -> None:
        if not self._runs(live):
            self._late(live)
            raise Broken("TurnSuperseded")
        self._write_or_give_up(live)
        self._move("expired", reason(result), live.turn, result.session_id)
        self._renew("heal", self.provider, live.turn)
        live.until, live.session_number = self.now + self.lease, len(self.sessions)
        live.resumed, live.request = None, None
        live.asked, live.may_heal, live.healed, live.result = False, False, True, None

    def _late(self, live: Live) -> None:
        """Keep what was said with its turn; the conversation does not move (G10)."""
        live.over, live.status = True, "superseded"
        result = live.result
        named = {live.request, result.session_id} if result is not None and result.subtype == EXPIRED else set()
        died = {session_id for session_id in named if session_id} - {self.held} - self.dead
        if died or messages(live.said, result):
            self._write()
            self.dead |= died
            self._say(live)

    def _keep_lease(self, live: Live, least: float = 0.0) -> None:
        if live.until - self.now > max(self.lease / 2, least):
            return
        if not self._runs(live):
            self._late(live)
            raise Broken("TurnSuperseded")
        self._write_or_give_up(live)
        live.until = self.now + self.lease

    def _move(self, cause: str, why: str, turn: int | None, named: str | None = None) -> None:
        before, session = self.state, self.sessions[-1]
        if cause == "expired":
            self.dead |= {session_id for session_id in (self.held, named) if session_id}
            self.state, self.held, session.closed_reason = "stale", None, why
        elif cause == "reset":
            if self.state != "stale":
                session.closed_reason = why
            self.state, self.held = "fresh", None
        elif named is not None and named not in self.dead:
            self.state, self.held, session.session_id = "active", named, named
        session_number = len(self.sessions) + (cause == "reset")
        self.moves.append(
            Move(
                number=len(self.moves) + 1,
                trigger=cause,
                source=before,
                target=self.state,
                session_number=session_number,
                session_id=self.held,
                turn=turn,
                reason=why,
            )
        )

    def _renew(self, why: str, provider: str, turn: int | None) -> None:
        self._move("reset", why, turn)
        self.provider = provider
        self.sessions.append(
            Session(number=len(self.sessions) + 1, provider=provider, opened_reason=why, parent=len(self.sessions))
        )

    def _say(self, live: Live) -> None:
        for role, blocks in messages(live.said, live.result):
            self.messages.append(Message(number=len(self.messages) + 1, turn=live.turn, role=role, content=blocks))
            self.turns[live.turn - 1].last_message = len(self.messages)

    def _end(self, how: str, result: Result | None = None, *, healed: bool = False) -> None:
        running, self.running = self.running, None
        if running is not None:
            turn = self.turns[running.turn - 1]
            turn.status, turn.result, turn.healed = how, result, healed
            turn.state, turn.session_number = self.state, len(self.sessions)

    # Who may do what

    def _runs(self, live: Live) -> bool:
        return self.running is live

    def _may_end(self, worker: object) -> bool:
        """Return whether the running turn may be ended: its lease is over, or its own worker has given it up."""
        running = self.running
        if running is not None and running.worker == worker:
            return running.over
        return running is None or running.until <= self.now

    def _clear(self, worker: object, *, force: bool = False) -> str | None:
        """Return how the running turn is to end before anything else can begin."""
        if self.running is None:
            return None
        if self._may_end(worker):
            return "interrupted"
        if force:
            return "superseded"
        raise Broken("ConversationBusy")

    def _write(self) -> None:
        """Make one commit, which the database may refuse whole (G16)."""
        self.refuse_in -= 1
        if self.refuse_in == 0:
            raise Broken("StoreError")

    def _write_or_give_up(self, live: Live) -> None:
        try:
            self._write()
        except Broken:
            live.over = True
            live.status = "interrupted" if live.result is None else status(live.result)
            if self._runs(live):  # it is ended without what it said, so that nobody waits for its lease
                self._end("interrupted")
            raise
