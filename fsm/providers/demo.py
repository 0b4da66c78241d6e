"""A provider for trials and tests: offline, deterministic, and with sessions that die.

Its sessions live in the memory of this process and die with it. An application that is restarted gets
``error_during_execution``, as from a real provider whose container was restarted. Its answers show what it remembers
and where it knows it from. Its results can be scripted, faults and delays too.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import TypeAlias

from attrs import define, evolve, field

from fsm.content import text_of
from fsm.context import as_text
from fsm.events import EXPIRED, Event, Result, TextDelta
from fsm.provider import BaseProvider, Request

__all__ = ["DemoProvider", "Script"]

Script: TypeAlias = Iterable[object]
"""The behaviour of the provider, turn by turn; see :class:`DemoProvider`."""


@define
class _Session:
    """The memory of one session: the messages that it was told when it opened, and those that it was sent since."""

    told: list[str]
    sent: list[str] = field(factory=list)


class DemoProvider(BaseProvider):
    """An AI without intelligence.

    Args:
        script: one item for each request, in order. When it is used up, or an item is None, the provider answers by
            itself. An item may be

            * a :class:`~fsm.Result`: it is reported. Unless it is an error, the answer comes before it, and it names
              the session if it does not name one itself;
            * an exception: it is raised;
            * a list: its items are yielded one by one; an exception among them is raised, and a callable is called;
            * a callable: called with the :class:`~fsm.provider.Request`; it returns one of the above.
        name: the provider's name, to tell two of them apart.

    >>> provider = DemoProvider()
    >>> request = Request(key="k", turn=1, session_number=1, content=({"type": "text", "text": "hello"},))
    >>> list(provider.stream(request))[-1].session_id
    'demo-k-1'
    """

    def __init__(self, script: Script | None = None, *, name: str = "demo") -> None:
        self.name = name
        self.requests: list[Request] = []
        """Every request so far, for tests to look at."""
        self._script = iter(script or ())
        self._sessions: dict[str, _Session] = {}

    def stream(self, request: Request) -> Iterator[Event]:
        """Answer, word by word; see :class:`~fsm.provider.Provider`."""
        self.requests.append(request)
        scripted = next(self._script, None)
        if callable(scripted):
            scripted = scripted(request)
        if isinstance(scripted, BaseException):
            raise scripted
        if isinstance(scripted, list):
            yield from _play(scripted)
        else:
            yield from self._answer(request, scripted if isinstance(scripted, Result) else None)

    async def astream(self, request: Request) -> AsyncIterator[Event]:
        """Answer, word by word; see :class:`~fsm.provider.AsyncProvider`."""
        for event in self.stream(request):
            yield event

    def forget(self) -> None:
        """Lose all sessions, as a restart would."""
        self._sessions.clear()

    def _answer(self, request: Request, result: Result | None) -> Iterator[Event]:
        if result is not None and result.trigger != Result().trigger:
            yield result
            return
        session_id = request.session_id
        if session_id is None:
            session_id = f"demo-{request.key}-{request.session_number}"[:512]
            self._sessions[session_id] = _Session(
                [text_of(message.content) for message in request.history if message.role == "user"]
            )
        session = self._sessions.get(session_id)
        if session is None:
            yield _expired(session_id)
            return
        answer = _speak(session, as_text(request.content))
        for word in re.findall(r"\S+\s*", answer):
            yield TextDelta(word)
        yield _named(result or Result(stop_reason="end_turn"), session_id)


def _play(events: Sequence[object]) -> Iterator[Event]:
    for event in events:
        if isinstance(event, BaseException):
            raise event
        if callable(event):
            event()
        else:
            yield event  # type: ignore[misc]  # a script may break the contract, to see what happens


def _expired(session_id: str) -> Result:
    return Result(
        subtype=EXPIRED,
        is_error=True,
        session_id=session_id,
        errors=(f"No conversation found with session ID: {session_id}",),
    )


def _named(result: Result, session_id: str) -> Result:
    return result if result.session_id else evolve(result, session_id=session_id)


def _speak(session: _Session, text: str) -> str:
    session.sent.append(text)
    told = [f"“{_first_line(message)}”" for message in session.told]
    sent = [f"“{_first_line(message)}”" for message in session.sent[:-1]]
    parts = [f"You said “{_first_line(text)}”."]
    if sent:
        parts.append(f"Before that, in this session, you said {', '.join(sent)}.")
    if told:
        parts.append(f"From the stored history I know that you said {', '.join(told)}.")
    if not sent and not told:
        parts.append("This is the first thing I hear from you.")
    return " ".join(parts)


def _first_line(text: str) -> str:
    line = text.strip().partition("\n")[0]
    return line if len(line) <= 60 else line[:59] + "…"
