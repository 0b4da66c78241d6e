"""What every provider must do: the contracts behind :func:`fsm.testing.check_provider`.

Each is tried in each *way* that the provider can be asked, ``stream`` and ``astream``, with a provider of its own. An
``astream`` runs on one event loop for the length of a contract, as it would in an application.
"""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Literal, TypeAlias

import attrs
from anyio.from_thread import BlockingPortal, start_blocking_portal
from attrs import define, field, frozen

from fsm.content import text_block
from fsm.context import ContextWindow, rebuild
from fsm.provider import Request
from fsm.records import Message
from fsm.results import Result, TextDelta, ToolResult, ToolUse
from fsm.states import Trigger
from fsm.testing.bench import close
from fsm.testing.report import Broken, Contract, NotApplicable
from fsm.turn import RunningTurn

__all__ = ["CONTRACTS", "Bench"]

Way: TypeAlias = Literal["stream", "astream"]

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
EVENTS = 100_000
"""More events than any answer has."""

PATIENCE = 3.0
"""How long a provider may take to stop what it was doing when it is closed, in seconds."""


@define
class Bench:
    """What a contract works with."""

    make_provider: Callable[[], Any]
    messages: tuple[str, ...]
    unknown_id: str

    @contextmanager
    def provider(self) -> Iterator[Any]:
        """A provider of its own."""
        provider = self.make_provider()
        try:
            yield provider
        finally:
            close(provider)

    def ways(self) -> list[Way]:
        """In which ways it can be asked."""
        with self.provider() as provider:
            both: tuple[Way, ...] = ("stream", "astream")
            ways = [way for way in both if callable(getattr(provider, way, None))]
        if not ways:
            raise Broken("it must have a method stream or astream, and has neither")
        return ways


@frozen
class Heard:
    """What came for one request.

    Attributes:
        events: what was yielded.
        error: what was raised instead of going on.
    """

    events: list[object] = field(factory=list)
    error: Exception | None = None

    @property
    def results(self) -> list[Result]:
        """The results among it."""
        return [event for event in self.events if isinstance(event, Result)]


@define
class Room:
    """One provider, asked in one way."""

    bench: Bench
    provider: Any
    way: Way
    portal: BlockingPortal | None

    def talk(self, key: str = "a") -> Talk:
        """A conversation with it."""
        return Talk(self, key)

    def read(self, request: Request, take: int = EVENTS) -> Heard:
        """Ask, read so many events at most, and close."""
        if self.portal is not None:
            return self.portal.call(self._read_async, request, take)
        heard = Heard()
        try:
            events = iter(self.provider.stream(request))
            heard.events.extend(islice(events, take))
            close(events)
        except Exception as error:  # noqa: BLE001  # a finding, not ours to let through
            return attrs.evolve(heard, error=error)
        return heard

    async def _read_async(self, request: Request, take: int) -> Heard:
        heard = Heard()
        try:
            events: AsyncIterator[object] = self.provider.astream(request)
            while len(heard.events) < take:
                try:
                    heard.events.append(await anext(events))
                except StopAsyncIteration:
                    break
            aclose = getattr(events, "aclose", None)
            if aclose is not None:
                await aclose()
        except Exception as error:  # noqa: BLE001  # a finding, not ours to let through
            return attrs.evolve(heard, error=error)
        return heard


@contextmanager
def _room(bench: Bench, way: Way) -> Iterator[Room]:
    if way == "stream":
        with bench.provider() as provider:
            yield Room(bench, provider, way, None)
        return
    with start_blocking_portal() as portal, bench.provider() as provider:
        try:
            yield Room(bench, provider, way, portal)
        finally:
            if callable(getattr(provider, "aclose", None)):
                portal.call(provider.aclose)


@define
class Talk:
    """One conversation, kept as a manager would keep it.

    Attributes:
        story: what was asked and what came, in words.
        session_id: the session that the last result named.
    """

    room: Room
    key: str
    story: list[str] = field(factory=list)
    session_id: str | None = None
    _messages: list[Message] = field(factory=list)
    _turns: int = 0
    _session: int = 1
    _opened: int = 0

    def hear(self, *, resume: str | None = None, take: int = EVENTS) -> Heard:
        """Ask the next message, resuming this session or none, and keep what was said."""
        request = self._request(resume)
        heard = self.room.read(request, take)
        self.story.append(self._told(request, heard, take))
        self._keep(request, heard)
        return heard

    def ask(self, *, resume: str | None = None) -> Result:
        """The same, for a result.

        Raises:
            Broken: it raised, or there was no result.
        """
        heard = self.hear(resume=resume)
        if heard.error is not None:
            raise self.broken(f"{self.room.way} raised {type(heard.error).__name__}: {heard.error}")
        if not heard.results:
            raise self.broken(f"{self.room.way} ended without a result")
        return heard.results[0]

    def succeed(self, *, resume: str | None = None) -> Result:
        """The same, for an answer."""
        result = self.ask(resume=resume)
        if result.trigger is not Trigger.SUCCEEDED:
            raise self.broken(f"the message must be answered, and the result is {result.reason}")
        return result

    def broken(self, why: str) -> Broken:
        """The error that tells this talk."""
        return Broken(why, self.story)

    def _request(self, resume: str | None) -> Request:
        messages = self.room.bench.messages
        content = (text_block(messages[self._turns % len(messages)]),)
        self._turns += 1
        past = self._messages[: self._opened]
        own = self._messages[self._opened :]
        if resume is None:
            self._session += bool(self._messages)
            self._opened = len(self._messages)
            history = rebuild(self._messages, ContextWindow(), content)
        elif getattr(self.room.provider, "wants_transcript", False):
            history = (*rebuild(past, ContextWindow(), own[0].content if own else content), *own)
        else:
            history = ()
        return Request(self.key, self._turns, self._session, content, resume, tuple(history))

    def _keep(self, request: Request, heard: Heard) -> None:
        if not heard.results or heard.results[0].trigger is not Trigger.SUCCEEDED:
            return
        self.session_id = heard.results[0].session_id or request.session_id
        turn = RunningTurn(self.key, self._turns)
        for event in heard.events:
            if not turn.done and isinstance(event, TextDelta | ToolUse | ToolResult | Result):
                turn.feed(event)
        self._add("user", request.content, None)
        for said in turn.answer().messages:
            self._add(*said)

    def _add(self, role: Any, content: Any, provider_data: Any) -> None:
        number = len(self._messages) + 1
        self._messages.append(Message(number, self._turns, role, content, EPOCH, provider_data))

    def _told(self, request: Request, heard: Heard, take: int) -> str:
        how = "in a new session" if request.session_id is None else f"resuming {request.session_id}"
        told = f" and {len(request.history)} messages of history" if request.history else ""
        asked = f"{self.key!r} asks by {self.room.way}, {how}{told}"
        if take < EVENTS:
            return f"{asked}, and closes it after {take} event"
        return f"{asked}; it yields {_names(heard.events)}{' and raises' if heard.error else ''}"


def _names(events: list[object]) -> str:
    """The kinds of the events, each run of one kind once."""
    names: list[str] = []
    for event in events:
        name = type(event).__name__
        if isinstance(event, Result):
            name = f"Result({event.reason}, session_id={event.session_id})"
        if not names or names[-1] != name or isinstance(event, Result):
            names.append(name)
    return ", ".join(names) or "nothing"


def in_each_way(check: Callable[[Room], None]) -> Callable[[Bench], None]:
    """Try a check in each way that the provider can be asked, with a provider of its own each time."""

    def try_it(bench: Bench) -> None:
        for way in bench.ways():
            with _room(bench, way) as room:
                check(room)

    return try_it


def name(bench: Bench) -> None:
    """It is text, and the same for each instance."""
    names = []
    for _ in range(2):
        with bench.provider() as provider:
            names.append(getattr(provider, "name", None))
    if not isinstance(names[0], str) or not names[0]:
        raise Broken(f"name must be text and is {names[0]!r}")
    if names[0] != names[1]:
        raise Broken(f"two providers made alike must have one name, and have {names[0]!r} and {names[1]!r}")


@in_each_way
def only_events(room: Room) -> None:
    """Nothing but events is yielded, and nothing raised."""
    talk = room.talk()
    heard = talk.hear()
    for event in heard.events:
        if not isinstance(event, TextDelta | ToolUse | ToolResult | Result):
            raise talk.broken(f"{room.way} must yield TextDelta, ToolUse, ToolResult or Result, and yielded {event!r}")
    if heard.error is not None:
        raise talk.broken(f"{room.way} raised {type(heard.error).__name__}: {heard.error}")


@in_each_way
def one_result(room: Room) -> None:
    """Exactly one."""
    talk = room.talk()
    count = len(talk.hear().results)
    if count != 1:
        raise talk.broken(f"there must be one result, and there were {count}")


@in_each_way
def result_last(room: Room) -> None:
    """Nothing follows it."""
    talk = room.talk()
    events = talk.hear().events
    first = next((position for position, event in enumerate(events) if isinstance(event, Result)), len(events))
    if events[first + 1 :]:
        raise talk.broken(f"nothing may follow the result, and {_names(events[first + 1 :])} did")


@in_each_way
def resuming(room: Room) -> None:
    """What it names can be resumed, again and again."""
    talk = room.talk()
    named = talk.succeed().session_id
    if named is None:
        raise NotApplicable("it names no session, so there is none to resume")
    for _ in range(2):
        result = talk.ask(resume=talk.session_id)
        if result.trigger is Trigger.EXPIRED:
            raise talk.broken(f"a session that it names must be resumable, and {talk.session_id} was reported dead")
        if result.trigger is not Trigger.SUCCEEDED:
            raise talk.broken(f"the message must be answered, and the result is {result.reason}")


@in_each_way
def unknown_ids(room: Room) -> None:
    """They are reported, in the way that means death, each time they are asked for."""
    _needs_sessions(room)
    talk, unknown = room.talk(), room.bench.unknown_id
    for _ in range(2):
        result = talk.ask(resume=unknown)
        if result.trigger is not Trigger.EXPIRED:
            raise talk.broken(f"an unknown session must be reported as error_during_execution, not as {result.reason}")
        if result.session_id not in {None, unknown}:
            raise talk.broken(f"the report must name {unknown} or none, and names {result.session_id}")


def _needs_sessions(room: Room) -> None:
    if getattr(room.provider, "wants_transcript", False):
        raise NotApplicable("its session is the transcript that it is given, so no id is unknown to it")


@in_each_way
def new_start(room: Room) -> None:
    """After a dead session a new one answers, with a name of its own."""
    _needs_sessions(room)
    talk, unknown = room.talk(), room.bench.unknown_id
    talk.ask(resume=unknown)
    if talk.succeed().session_id == unknown:
        raise talk.broken(f"a new session must have a name of its own, and has that of the dead one, {unknown}")


@in_each_way
def history(room: Room) -> None:
    """A new session that is told the history answers, and is not the old one."""
    talk = room.talk()
    first = talk.succeed().session_id
    second = talk.succeed().session_id
    if first is not None and first == second:
        raise talk.broken(f"a new session must have a name of its own, and has that of the one before, {first}")


@in_each_way
def closing(room: Room) -> None:
    """Closing it in the middle stops it."""
    talk = room.talk()
    session_id = talk.succeed().session_id
    before = set(threading.enumerate())
    heard = talk.hear(resume=session_id, take=1)
    if heard.error is not None:
        raise talk.broken(f"closing {room.way} raised {type(heard.error).__name__}: {heard.error}")
    deadline = time.monotonic() + PATIENCE
    while left := [thread.name for thread in threading.enumerate() if thread not in before]:
        if time.monotonic() > deadline:
            raise talk.broken(f"closing must stop what it was doing, and the thread {left[0]!r} goes on")
        time.sleep(0.005)
    talk.succeed()


@in_each_way
def two_at_once(room: Room) -> None:
    """Two conversations at once, each in a thread or task of its own, do not get in each other's way."""
    talks = [room.talk(key) for key in "ab"]
    barrier = threading.Barrier(len(talks))
    broken: list[Exception] = []

    def run(talk: Talk) -> None:
        try:
            barrier.wait(timeout=PATIENCE)
            talk.succeed()
            talk.succeed(resume=talk.session_id)
        except Exception as error:  # noqa: BLE001  # told by the thread that waits
            broken.append(error)

    threads = [threading.Thread(target=run, args=(talk,)) for talk in talks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if broken:
        raise broken[0]
    first, second = talks
    if first.session_id is not None and first.session_id == second.session_id:
        story = [*first.story, *second.story]
        raise Broken(f"two conversations must have two sessions, and both have {first.session_id}", story)


def twins(bench: Bench) -> None:
    """Both ways say the same."""
    ways = bench.ways()
    if len(ways) < 2:
        raise NotApplicable(f"it has only {ways[0]}")
    said, story = [], []
    for way in ways:
        with _room(bench, way) as room:
            talk = room.talk()
            results = [talk.ask(), talk.ask(resume=talk.session_id)]
            if not getattr(room.provider, "wants_transcript", False):
                results.append(talk.ask(resume=bench.unknown_id))
        said.append([(result.subtype, result.is_error, result.session_id is None) for result in results])
        story += talk.story
    if said[0] != said[1]:
        raise Broken(f"stream and astream must report the same, and report {said[0]} and {said[1]}", story)


CONTRACTS: tuple[Contract[Bench], ...] = (
    Contract("name", "it has a name, always the same (G15)", name),
    Contract("events", "it yields events, and raises nothing", only_events),
    Contract("one result", "it reports exactly one result", one_result),
    Contract("result last", "nothing follows the result", result_last),
    Contract("resuming", "a session that it names can be resumed", resuming),
    Contract("unknown ids", "a session that it doesn't know is reported dead, not raised (G2)", unknown_ids),
    Contract("new start", "after a dead session a new one answers, under a name of its own (G3)", new_start),
    Contract("history", "a new session takes the history, under a name of its own (G3)", history),
    Contract("closing", "closing it in the middle stops it, and the next message is answered", closing),
    Contract("two at once", "two conversations at once get two answers and two sessions", two_at_once),
    Contract("twins", "stream and astream report the same (G12)", twins),
)
"""All of them."""
