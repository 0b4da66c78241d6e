"""The simulated AI: sessions that are lost at times, answers that come late or not at all, and lies.

It looks at every request as well: what it resumes, and what a new session is told (G2, G3, G8, G15).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TypeAlias

from fsm._runtime.adapters import END, OnFailure, ProviderEvents
from fsm.content import text_of
from fsm.context import as_text
from fsm.events import EXPIRED, INTERRUPTED, Result, TextDelta, ToolUse
from fsm.provider import Request
from fsm.records import Conversation, Message, TurnStatus
from fsm.testing.simulated import LEASE, Broken, Database, World
from fsm.testing.virtual_time import Loop

__all__ = ["Provider"]

Timed: TypeAlias = tuple[float, object]
"""So many seconds of silence, and then an event, or an exception."""


class _Events:
    """The events of one request, as time goes by."""

    def __init__(self, loop: Loop, events: list[Timed]) -> None:
        self._loop = loop
        self._events = iter(events)

    async def read(self) -> object:
        silence, event = next(self._events, (0.0, END))
        await self._loop.pause(silence)
        if isinstance(event, Exception):
            raise event
        return event

    async def close(self) -> None:
        self._events = iter(())

    def close_later(self, _: OnFailure) -> None:
        self._events = iter(())

    async def settle(self) -> None:
        pass


class Provider:
    """An AI whose sessions are lost at times; its answers are what it remembers.

    Args:
        name: its name.
        world: the world.
        database: to compare what it is asked with what is stored.

    Attributes:
        heard: how often each message came, by conversation and text.
    """

    def __init__(self, name: str, world: World, database: Database) -> None:
        self.name = name
        self.heard: Counter[tuple[str, str]] = Counter()
        self._world = world
        self._database = database
        self._sessions: dict[str, tuple[str, ...]] = {}
        self._minted = 0
        self._buried: dict[str, list[str]] = defaultdict(list)

    def lose_everything(self) -> None:
        """Lose all sessions, as a container that is started again."""
        self._world.tally.lost_sessions += len(self._sessions)
        self._sessions.clear()

    def ask(self, request: Request, owner: str) -> ProviderEvents:
        """Answer a request of a turn that this owner runs."""
        self._check(request, owner)
        return _Events(self._world.loop, self._answer(request))

    def remembers(self, session_id: str | None) -> tuple[str, ...]:
        """Return the messages that a session knows."""
        return self._sessions.get(session_id or "", ())

    def _answer(self, request: Request) -> list[Timed]:
        world, chance = self._world, self._world.chance
        silence = LEASE * 1.5 if world.happens(world.faults.hangs) else chance.uniform(0.1, 5.0)
        if request.session_id is not None and world.happens(world.faults.loses):
            self._sessions.pop(request.session_id, None)
            world.tally.lost_sessions += 1
        if request.session_id is not None and request.session_id not in self._sessions:
            return [*self._words(0, world.faults.lies), (silence, self._expired(request))]
        self.heard[request.key, text_of(request.content)] += 1
        if world.happens(world.faults.fails):
            named = chance.choice([None, request.session_id])
            subtype = chance.choice(["error_api", "error_max_turns", "success", INTERRUPTED])
            return [
                *self._words(2),
                (silence, Result(subtype=subtype, is_error=True, session_id=named, http_status=529)),
            ]
        known = self._known(request)
        if request.session_id is not None:
            self._sessions[request.session_id] = known
        result = Result(session_id=self._mint(request, known), text=f"I know {len(known)} messages")
        if world.happens(world.faults.lies):
            return [*self._words(1), *self._lie(request, result)]
        return [*self._words(3), (silence, result)]

    def _check(self, request: Request, owner: str) -> None:
        """Compare a request with what is stored, if the turn that sends it is still the one that runs.

        Not if the database has just forgotten a commit: the turn knows what it does not, and will store it again.
        """
        stored = self._database.load(request.key)
        if (stored is None or stored.turn_count < request.turn) and request.key not in self._database.forgot:
            raise Broken(request.key, f"G8: turn {request.turn} is not stored")
        running = None if stored is None else stored.running
        if stored is None or running is None or (running.turn, running.owner) != (request.turn, owner):
            return
        if stored != self._database.newest[request.key]:
            return
        if request.session_id != stored.session_id:
            raise Broken(request.key, f"G2: {request.session_id!r} is resumed, but {stored.session_id!r} is held")
        if request.session_id is not None and not request.session_id.startswith(f"{self.name}-"):
            raise Broken(request.key, f"G15: {request.session_id!r} is resumed at {self.name}")
        if request.session_id is None:
            self._check_history(request, stored)

    def _check_history(self, request: Request, stored: Conversation) -> None:
        ends = {turn.number: turn.status for turn in self._database.turns(stored)}
        said = [one for one in self._database.messages(stored) if one.role == "user"]
        due = [text for message in said if (text := _due(message, ends[message.turn]))]
        told = [message.text for message in request.history if message.role == "user"]
        if told != due:
            raise Broken(request.key, f"G3, G23: a new session is told {len(told)} messages of {len(due)}, or others")

    def _expired(self, request: Request) -> Result:
        """Return the error for a session that is gone, with its id, a new one, or none."""
        echoed = self._world.chance.choice([request.session_id, f"{self.name}-echo-{self._next()}", None])
        self._buried[request.key] += [named for named in (request.session_id, echoed) if named]
        return Result(subtype=EXPIRED, is_error=True, session_id=echoed, errors=("No conversation found",))

    def _known(self, request: Request) -> tuple[str, ...]:
        before = (
            tuple(message.text.partition("\n[the tool ")[0] for message in request.history if message.role == "user")
            if request.session_id is None
            else self._sessions[request.session_id]
        )
        return (*before, text_of(request.content))

    def _mint(self, request: Request, known: tuple[str, ...]) -> str:
        """Return the session that knows these messages: the one that was resumed, or at times one of a new name."""
        session_id = request.session_id
        if session_id is None or self._world.happens(0.1):
            session_id = f"{self.name}-{self._next()}"
        self._sessions[session_id] = known
        return session_id

    def _next(self) -> int:
        self._minted += 1
        return self._minted

    def _words(self, most: int, likely: float = 1.0) -> list[Timed]:
        chance = self._world.chance
        count = chance.randint(0, most) if most else int(self._world.happens(likely))
        tool = self._world.happens(0.1)
        words: list[Timed] = [(chance.uniform(0.01, 1.0), TextDelta(f"word {n} ")) for n in range(count)]
        return [*words, (0.1, ToolUse(f"t{self._next()}", "look", {"at": "it"}))] if tool and count else words

    def _lie(self, request: Request, result: Result) -> list[Timed]:
        self._world.tally.lies += 1
        buried = self._buried[request.key]
        return self._world.chance.choice(
            [
                [(1.0, RuntimeError("the connection broke"))],
                [],
                [(1.0, result), (1.0, result)],
                [(1.0, "no event")],
                [(1.0, Result(session_id=self._world.chance.choice(buried) if buried else None))],
                [(1.0, result), (1.0, TextDelta("one more word"))],
            ]
        )


def _due(message: Message, status: TurnStatus) -> str:
    """Return the parts of a user message that a new session must be told: all, its tool results, or nothing (G3,
    G23)."""
    told = [block for block in message.content if "tool_use_id" in block or status is TurnStatus.SUCCEEDED]
    return "" if status is TurnStatus.RUNNING else as_text(told)
