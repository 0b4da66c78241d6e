"""Wrong stores and providers, each with one bug that real projects have shipped: does your suite catch them?

:data:`MUTANTS` holds them all. A test suite that checks a manager, a bot or a chat backend runs once with each, and
must fail each time; one that passes has a hole there. The stores are :class:`~fsm.testing.ReferenceStore` and the
providers :class:`~fsm.providers.DemoProvider` but for the bug, so all of them need no database and no network.

>>> [mutant.name for mutant in MUTANTS if mutant.breaks == "G6"]
['clears without logging']
"""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from typing import Any, Literal

import attrs
from attrs import frozen

from fsm import effects as fx
from fsm.content import text_block, text_of
from fsm.errors import Conflict, StoreError
from fsm.provider import Request
from fsm.providers.demo import DemoProvider
from fsm.records import Conversation, Message, Transition, Turn
from fsm.results import Event, Result
from fsm.states import Trigger
from fsm.testing.reference import ReferenceStore

__all__ = ["MUTANTS", "Mutant"]


@frozen
class Mutant:
    """A wrong store or provider.

    Attributes:
        name: what it does wrong, in a few words.
        kind: ``store`` or ``provider``.
        breaks: the guarantee that it breaks, or ``contract`` for what a manager refuses with ProviderError.
        make: makes a fresh one; the docstring of what it makes says more.

    >>> mutant = next(mutant for mutant in MUTANTS if mutant.kind == "store")
    >>> mutant.name, mutant.breaks
    ('loses the last message', 'G4')
    """

    name: str
    kind: Literal["store", "provider"]
    breaks: str
    make: Callable[[], Any]

    @property
    def description(self) -> str:
        """What it does wrong, in a line."""
        return (self.make.__doc__ or self.name).partition("\n")[0]


class _Wrong(ReferenceStore):
    """A store that opens a second time as wrong as it was."""

    def reopened(self) -> ReferenceStore:
        return type(self)(self._rows, self._lock)


class LosesTheLastMessage(_Wrong):
    """The answer with which a turn ends is acknowledged and never written."""

    def messages(
        self, conversation: Conversation, *, limit: int | None = None, before: int | None = None
    ) -> Sequence[Message]:
        lost = conversation.messages if conversation.running is None else None
        found = super().messages(conversation, limit=limit, before=before)
        return [message for message in found if message.number != lost or message.role == "user"]


class LastWriterWins(_Wrong):
    """It writes whatever it is given over whatever is there: no compare-and-swap."""

    def commit(self, step: fx.Step) -> None:
        with self._lock:
            known = self._rows.get(step.before.key)
            if known is not None and known.conversation.version != step.before.version:
                before = step.before
                self._rows[before.key] = attrs.evolve(
                    known,
                    conversation=before,
                    sessions=known.sessions[: before.session],
                    turns=known.turns[: before.turns],
                    messages=known.messages[: before.messages],
                    transitions=known.transitions[: before.transitions],
                )
                if before.version == 0:
                    del self._rows[before.key]
            super().commit(step)


class ChecksBeforeItLocks(LastWriterWins):
    """It looks at the version first and writes later: of two threads both pass, and one turn vanishes."""

    def commit(self, step: fx.Step) -> None:
        known = super().load(step.before.key)
        if (known.version if known else 0) != step.before.version:
            raise Conflict("somebody else was first", step.before.key)
        time.sleep(0.001)
        super().commit(step)


class ForgetsDeadIds(_Wrong):
    """It remembers no id that was reported dead, so one that is echoed is adopted again."""

    def dead(self, conversation: Conversation, session_ids: Collection[str]) -> frozenset[str]:  # noqa: ARG002
        return frozenset()


class StoresTheIdFromTheError(_Wrong):
    """It keeps the id that came back with the error, and resumes the dead session for ever."""

    def load(self, key: str) -> Conversation | None:
        conversation = super().load(key)
        if conversation is None or conversation.session_id is not None:
            return conversation
        turns = self.turns(conversation, limit=1)
        if not turns or turns[0].subtype != "error_during_execution":
            return conversation
        return attrs.evolve(conversation, session_id=turns[0].session_id)


class WritesHalfAStep(_Wrong):
    """A step that is refused half-way leaves what was written until then: no transaction."""

    def commit(self, step: fx.Step) -> None:
        try:
            super().commit(step)
        except StoreError:
            for count in range(len(step.effects) - 1, 0, -1):
                try:
                    super().commit(attrs.evolve(step, effects=step.effects[:count]))
                except StoreError:
                    continue
                break
            raise


class SwallowsFailedWrites(_Wrong):
    """A write that was refused is acknowledged."""

    def commit(self, step: fx.Step) -> None:
        try:
            super().commit(step)
        except StoreError:
            return


class ClearsWithoutLogging(_Wrong):
    """A dead session is cleared, and the log has no trace of it."""

    def transitions(
        self, conversation: Conversation, *, limit: int | None = None, before: int | None = None
    ) -> Sequence[Transition]:
        found = super().transitions(conversation, limit=limit, before=before)
        return [move for move in found if move.trigger is not Trigger.EXPIRED]


class ReadsNewestFirst(_Wrong):
    """A page of messages comes newest first."""

    def messages(
        self, conversation: Conversation, *, limit: int | None = None, before: int | None = None
    ) -> Sequence[Message]:
        return list(super().messages(conversation, limit=limit, before=before))[::-1]


class OrdersByTheClock(_Wrong):
    """Messages are ordered by their time; the clock is put back, and they change places."""

    def messages(
        self, conversation: Conversation, *, limit: int | None = None, before: int | None = None
    ) -> Sequence[Message]:
        found = super().messages(conversation, limit=limit, before=before)
        return sorted(found, key=lambda message: message.created_at)


class PagesOverlap(_Wrong):
    """The row at which a page must end is in it: off by one."""

    def messages(
        self, conversation: Conversation, *, limit: int | None = None, before: int | None = None
    ) -> Sequence[Message]:
        return super().messages(conversation, limit=limit, before=None if before is None else before + 1)


class TellsFailedTurns(_Wrong):
    """The context has the messages of failed turns too, orphans without an answer."""

    def context(
        self, conversation: Conversation, *, first_session: int, last_session: int, limit: int | None
    ) -> Sequence[Message]:
        turns = [turn for turn in self.turns(conversation) if first_session <= turn.session <= last_session]
        ended = {turn.number for turn in turns if turn.ended_at is not None}
        found = [message for message in self.messages(conversation) if message.turn in ended]
        return found if limit is None else found[max(0, len(found) - limit) :]


class DoublesRowsOnRetry(_Wrong):
    """A step that is committed once more is written once more."""

    def commit(self, step: fx.Step) -> None:
        with self._lock:
            known = self._rows.get(step.after.key)
            if known is None or known.conversation != step.after:
                return super().commit(step)
            again = tuple(effect.message for effect in step.effects if isinstance(effect, fx.AddMessage))
            self._rows[step.after.key] = attrs.evolve(known, messages=known.messages + again)
        return None


class SharesIdempotencyKeys(_Wrong):
    """An idempotency key that one conversation has used is taken in all of them."""

    def turn_by_idempotency_key(self, conversation: Conversation, idempotency_key: str) -> Turn | None:  # noqa: ARG002
        for known in self.conversations():
            if found := super().turn_by_idempotency_key(known, idempotency_key):
                return found
        return None


class ConfusesKeys(_Wrong):
    """Two keys that differ in upper and lower case only are one conversation."""

    def load(self, key: str) -> Conversation | None:
        keys = [known.key for known in self.conversations() if known.key.casefold() == key.casefold()]
        return super().load(keys[0]) if keys else None


class KeepsTextOnly(_Wrong):
    """It stores the text of a message, and loses images, tool calls and everything else."""

    def commit(self, step: fx.Step) -> None:
        effects = (
            fx.AddMessage(attrs.evolve(effect.message, content=(text_block(text_of(effect.message.content)),)))
            if isinstance(effect, fx.AddMessage)
            else effect
            for effect in step.effects
        )
        super().commit(attrs.evolve(step, effects=tuple(effects)))


class LosesTheLastCommit(_Wrong):
    """It acknowledges before it writes: opened again, the last commit is not there."""

    def __init__(self, *rows: Any) -> None:
        super().__init__(*rows)
        self._written: dict[str, Any] = dict(self._rows)

    def commit(self, step: fx.Step) -> None:
        written = dict(self._rows)
        super().commit(step)
        self._written = written

    def reopened(self) -> ReferenceStore:
        return type(self)(self._written, self._lock)


class CrashesOnConflict(_Wrong):
    """Being overtaken is raised as an error of its own instead of a conflict, so nobody decides again."""

    def commit(self, step: fx.Step) -> None:
        try:
            super().commit(step)
        except Conflict as error:
            raise RuntimeError("optimistic lock failed") from error


# Providers


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
    """A dead session is reported as a failure that may pass, so it is resumed for ever."""

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


MUTANTS: tuple[Mutant, ...] = (
    Mutant("loses the last message", "store", "G4", LosesTheLastMessage),
    Mutant("lets the last writer win", "store", "G5", LastWriterWins),
    Mutant("checks before it locks", "store", "G5", ChecksBeforeItLocks),
    Mutant("forgets dead ids", "store", "G2", ForgetsDeadIds),
    Mutant("stores the id from the error", "store", "G1", StoresTheIdFromTheError),
    Mutant("writes half a step", "store", "G9", WritesHalfAStep),
    Mutant("swallows a failed write", "store", "G16", SwallowsFailedWrites),
    Mutant("clears without logging", "store", "G6", ClearsWithoutLogging),
    Mutant("reads newest first", "store", "G5", ReadsNewestFirst),
    Mutant("orders by the clock", "store", "G5", OrdersByTheClock),
    Mutant("lets pages overlap", "store", "G4", PagesOverlap),
    Mutant("tells failed turns", "store", "G3", TellsFailedTurns),
    Mutant("doubles rows on retry", "store", "G13", DoublesRowsOnRetry),
    Mutant("shares idempotency keys", "store", "G13", SharesIdempotencyKeys),
    Mutant("confuses keys", "store", "G12", ConfusesKeys),
    Mutant("keeps text only", "store", "G4", KeepsTextOnly),
    Mutant("loses the last commit", "store", "G8", LosesTheLastCommit),
    Mutant("crashes on conflict", "store", "G5", CrashesOnConflict),
    Mutant("reports twice", "provider", "contract", ReportsTwice),
    Mutant("talks after its result", "provider", "contract", TalksAfterItsResult),
    Mutant("never reports", "provider", "contract", NeverReports),
    Mutant("yields text", "provider", "contract", YieldsText),
    Mutant("raises on dead sessions", "provider", "G11", RaisesOnDeadSessions),
    Mutant("reports death as failure", "provider", "G11", ReportsDeathAsFailure),
    Mutant("blames another session", "provider", "G2", BlamesAnotherSession),
    Mutant("echoes the dead id", "provider", "G3", EchoesTheDeadId),
    Mutant("names the dead again", "provider", "G2", NamesTheDeadAgain),
    Mutant("names what it forgets", "provider", "G11", NamesWhatItForgets),
    Mutant("shares one session", "provider", "G3", SharesOneSession),
    Mutant("runs on after close", "provider", "G9", RunsOnAfterClose),
    Mutant("has a false twin", "provider", "G12", HasAFalseTwin),
)
"""All of them, the stores first."""
