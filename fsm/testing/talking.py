"""Talking with a provider as a manager would, for the contracts of providers.

All events are recorded in words, so that the error of a broken contract tells the story.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Literal, TypeAlias

import attrs
from anyio.from_thread import BlockingPortal, start_blocking_portal
from attrs import define, field, frozen

from fsm._core.table import Trigger
from fsm._core.turn import RunningTurn
from fsm.content import text_block
from fsm.context import ContextWindow, rebuild
from fsm.events import Result, TextDelta, ToolResult, ToolUse
from fsm.provider import Request
from fsm.records import Message
from fsm.testing.report import Broken
from fsm.testing.subjects import close

__all__ = ["Channel", "Heard", "ProviderSubject", "Talk", "channel_of", "names_of"]

Way: TypeAlias = Literal["stream", "astream"]

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
EVENTS = 100_000
"""More events than any answer has."""


@define
class ProviderSubject:
    """Makes providers for a contract, and closes them."""

    make_provider: Callable[[], Any]
    messages: tuple[str, ...]
    unknown_id: str

    @contextmanager
    def provider(self) -> Iterator[Any]:
        """Make a provider, and close it at the end of the block."""
        provider = self.make_provider()
        try:
            yield provider
        finally:
            close(provider)

    def ways(self) -> list[Way]:
        """Return the ways in which it can be asked."""
        with self.provider() as provider:
            both: tuple[Way, ...] = ("stream", "astream")
            ways = [way for way in both if callable(getattr(provider, way, None))]
        if not ways:
            raise Broken("it must have a method stream or astream, and has neither")
        return ways


@frozen
class Heard:
    """The answer to one request.

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
class Channel:
    """One provider, asked in one way."""

    subject: ProviderSubject
    provider: Any
    way: Way
    portal: BlockingPortal | None

    def talk(self, key: str = "a") -> Talk:
        """Return a conversation with it."""
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
def channel_of(subject: ProviderSubject, way: Way) -> Iterator[Channel]:
    """Open a new provider that is asked in one way; an ``astream`` runs on one event loop as long as it is open."""
    if way == "stream":
        with subject.provider() as provider:
            yield Channel(subject, provider, way, None)
        return
    with start_blocking_portal() as portal, subject.provider() as provider:
        try:
            yield Channel(subject, provider, way, portal)
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

    channel: Channel
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
        heard = self.channel.read(request, take)
        self.story.append(self._told(request, heard, take))
        self._keep(request, heard)
        return heard

    def ask(self, *, resume: str | None = None) -> Result:
        """Return the same, for a result.

        Raises:
            Broken: it raised, or there was no result.
        """
        heard = self.hear(resume=resume)
        if heard.error is not None:
            raise self.broken(f"{self.channel.way} raised {type(heard.error).__name__}: {heard.error}")
        if not heard.results:
            raise self.broken(f"{self.channel.way} ended without a result")
        return heard.results[0]

    def succeed(self, *, resume: str | None = None) -> Result:
        """Return the same, for an answer."""
        result = self.ask(resume=resume)
        if result.trigger is not Trigger.SUCCEEDED:
            raise self.broken(f"the message must be answered, and the result is {result.reason}")
        return result

    def broken(self, why: str) -> Broken:
        """Return the error that tells this talk."""
        return Broken(why, self.story)

    def _request(self, resume: str | None) -> Request:
        messages = self.channel.subject.messages
        content = (text_block(messages[self._turns % len(messages)]),)
        self._turns += 1
        past = self._messages[: self._opened]
        own = self._messages[self._opened :]
        if resume is None:
            self._session += bool(self._messages)
            self._opened = len(self._messages)
            history = rebuild(self._messages, ContextWindow(), content)
        elif getattr(self.channel.provider, "wants_transcript", False):
            history = (*rebuild(past, ContextWindow(), own[0].content if own else content), *own)
        else:
            history = ()
        return Request(
            key=self.key,
            turn=self._turns,
            session_number=self._session,
            content=content,
            session_id=resume,
            history=tuple(history),
        )

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
        self._messages.append(
            Message(
                number=number,
                turn=self._turns,
                role=role,
                content=content,
                created_at=EPOCH,
                provider_data=provider_data,
            )
        )

    def _told(self, request: Request, heard: Heard, take: int) -> str:
        how = "in a new session" if request.session_id is None else f"resuming {request.session_id}"
        told = f" and {len(request.history)} messages of history" if request.history else ""
        asked = f"{self.key!r} asks by {self.channel.way}, {how}{told}"
        if take < EVENTS:
            return f"{asked}, and closes it after {take} event"
        return f"{asked}; it yields {names_of(heard.events)}{' and raises' if heard.error else ''}"


def names_of(events: list[object]) -> str:
    """Return the kinds of the events, each run of one kind once."""
    names: list[str] = []
    for event in events:
        name = type(event).__name__
        if isinstance(event, Result):
            name = f"Result({event.reason}, session_id={event.session_id})"
        if not names or names[-1] != name or isinstance(event, Result):
            names.append(name)
    return ", ".join(names) or "nothing"
