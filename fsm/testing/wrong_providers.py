"""Providers that are wrong in one way each; the rest of them is :class:`~fsm.providers.DemoProvider`.

:data:`fsm.testing.mutants.MUTANTS` names them and says what each breaks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import attrs

from fsm._core.table import Trigger
from fsm.events import Event, Result
from fsm.provider import Request
from fsm.providers.demo import DemoProvider

__all__ = [
    "BlamesAnotherSession",
    "EchoesTheDeadId",
    "HasAFalseTwin",
    "NamesTheDeadAgain",
    "NamesWhatItForgets",
    "NeverReports",
    "RaisesOnDeadSessions",
    "ReportsDeathAsFailure",
    "ReportsTwice",
    "RunsOnAfterClose",
    "SharesOneSession",
    "TalksAfterItsResult",
    "YieldsText",
]


class ReportsTwice(DemoProvider):
    """Its answer has two results."""

    def stream(self, request: Request) -> Iterator[Event]:
        for event in super().stream(request):
            yield event
            if isinstance(event, Result):
                yield event


class TalksAfterItsResult(DemoProvider):
    """Its events are out of order: the result comes first."""

    def stream(self, request: Request) -> Iterator[Event]:
        events = list(super().stream(request))
        yield from (events[-1], *events[:-1])


class NeverReports(DemoProvider):
    """Its answer has no result."""

    def stream(self, request: Request) -> Iterator[Event]:
        return (event for event in super().stream(request) if not isinstance(event, Result))


class YieldsText(DemoProvider):
    """It yields plain text where an event is due."""

    def stream(self, request: Request) -> Iterator[Any]:
        return (event if isinstance(event, Result) else event.text for event in super().stream(request))  # type: ignore[union-attr]  # a demo answers in text


class RaisesOnDeadSessions(DemoProvider):
    """A dead session is raised, past whatever would have cleared it."""

    def stream(self, request: Request) -> Iterator[Event]:
        for event in super().stream(request):
            if isinstance(event, Result) and event.trigger is Trigger.EXPIRED:
                raise LookupError(*event.errors)
            yield event


class ReportsDeathAsFailure(DemoProvider):
    """A dead session is reported as a failure that may pass, so every later message resumes it."""

    def stream(self, request: Request) -> Iterator[Event]:
        return map(_as_failure, super().stream(request))


class BlamesAnotherSession(DemoProvider):
    """The report of a dead session names one that is alive."""

    def stream(self, request: Request) -> Iterator[Event]:
        for event in super().stream(request):
            is_dead = isinstance(event, Result) and event.trigger is Trigger.EXPIRED
            yield attrs.evolve(event, session_id="demo-other") if is_dead else event  # type: ignore[arg-type]  # a result


class EchoesTheDeadId(DemoProvider):
    """A session that is gone is replaced in silence, under its old name and without its memory."""

    def stream(self, request: Request) -> Iterator[Event]:
        asked = request.session_id
        if asked is None or asked in self._sessions:
            yield from super().stream(request)
            return
        for event in super().stream(attrs.evolve(request, session_id=None)):
            yield attrs.evolve(event, session_id=asked) if isinstance(event, Result) else event


class NamesTheDeadAgain(DemoProvider):
    """A new session is named after the one that died."""

    _dead: str | None = None

    def stream(self, request: Request) -> Iterator[Event]:
        for event in super().stream(request):
            if isinstance(event, Result) and event.trigger is Trigger.EXPIRED:
                self._dead = request.session_id
            elif isinstance(event, Result) and request.session_id is None:
                yield attrs.evolve(event, session_id=self._dead or event.session_id)
                continue
            yield event


class NamesWhatItForgets(DemoProvider):
    """It names a session that it doesn't keep, so the next message finds it dead."""

    def stream(self, request: Request) -> Iterator[Event]:
        yield from super().stream(request)
        self.forget()


class SharesOneSession(DemoProvider):
    """All conversations share one session, and read each other's messages."""

    def stream(self, request: Request) -> Iterator[Event]:
        return super().stream(attrs.evolve(request, key="everybody"))


class RunsOnAfterClose(DemoProvider):
    """A stream that is closed goes on in the background, and what it costs goes on with it."""

    def stream(self, request: Request) -> Iterator[Event]:
        try:
            yield from super().stream(request)
        except GeneratorExit:
            threading.Thread(target=time.sleep, args=(30,), name="answering", daemon=True).start()
            raise


class HasAFalseTwin(DemoProvider):
    """Asked asynchronously, it takes a dead session for a failure that may pass: half a fix."""

    async def astream(self, request: Request) -> AsyncIterator[Event]:
        for event in self.stream(request):
            yield _as_failure(event)


def _as_failure(event: Event) -> Event:
    if isinstance(event, Result) and event.trigger is Trigger.EXPIRED:
        return Result(subtype="error_api", is_error=True, session_id=event.session_id)
    return event
