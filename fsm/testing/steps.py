"""The steps of a script: what may happen to a conversation, as plain values that read as a story.

A step says what a caller, a worker or the database does; an :class:`Act` says what the provider does meanwhile. Each
promises two readings: ``repr`` is short code that makes the same value again, ``str`` is a sentence, and
:func:`story` is a whole script as numbered sentences. So an example that fails can be read, and can be replayed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import attrs
from attrs import frozen

from fsm.events import Event, Result, TextDelta, ToolResult, ToolUse

__all__ = ["Act", "Hang", "RefuseWrite", "Reset", "Restart", "Send", "Step", "Wake", "story", "told"]


def told(event: object) -> str:
    """Return the events of a provider, in words.

    >>> told(Result(subtype="error_during_execution", is_error=True, session_id="s-1"))
    'error_during_execution of s-1'
    """
    match event:
        case TextDelta():
            return f"“{event.text}”"
        case ToolUse():
            return f"calls {event.name}"
        case ToolResult():
            return f"{'failure' if event.is_error else 'answer'} of {event.tool_use_id}"
        case Result():
            failed = " (an error)" if event.is_error and not event.subtype.startswith("error") else ""
            return f"{event.reason}{failed} of {event.session_id or 'no session'}"
        case _:
            return f"{event!r}, which is no event"


def _code(value: object) -> str:
    """Return Python code that makes this value, without default arguments."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_code, value))}{',' * (len(value) == 1)})"
    kind: type[Any] = type(value)
    if not attrs.has(kind):
        return repr(value)
    given = (
        f"{field.name}={_code(getattr(value, field.name))}"
        for field in attrs.fields(kind)
        if field.init and getattr(value, field.name) != _default(field)
    )
    return f"{kind.__name__}({', '.join(given)})"


def _default(field: Any) -> object:
    return field.default.factory() if hasattr(field.default, "factory") else field.default


class _Readable:
    """A value whose ``repr`` is short code."""

    __slots__ = ()

    def __repr__(self) -> str:
        return _code(self)

    def _repr_pretty_(self, printer: Any, _: object) -> None:
        printer.text(repr(self))


@frozen(repr=False)
class Act(_Readable):
    """The behaviour of the provider for one request.

    Attributes:
        events: what it yields, one after the other; well-formed if the last, and only the last, is a result.
        raises: whether it then raises.

    >>> act = Act((TextDelta("yes"), Result(session_id="s-1")))
    >>> print(act)
    “yes”, success of s-1
    >>> act
    Act(events=(TextDelta(text='yes'), Result(session_id='s-1')))
    """

    events: tuple[Event, ...] = ()
    raises: bool = False

    def __str__(self) -> str:
        said = [told(event) for event in self.events]
        if self.raises:
            said.append("raises")
        elif not any(isinstance(event, Result) for event in self.events):
            said.append("ends without a result")
        return ", ".join(said)


def _answers(provider: str, acts: tuple[Act, ...]) -> str:
    first, *others = [str(act) for act in acts] or ["nothing scripted"]
    return f"{provider} answers: {first}" + "".join(f"; if asked again: {act}" for act in others)


@frozen(repr=False)
class Send(_Readable):
    """A message, read to its end, or given up midway.

    Attributes:
        acts: what the provider does: for the first request, and for the second if the turn is healed.
        provider: names the provider that is asked; another than before is a change of provider (G15).
        take: after how many events the caller walks away; None: after the last.
        idempotency_key: the caller's name for the message (G13); the same name is the same message.
        heal: whether the worker heals (G11).

    >>> print(Send((Act((Result(),)),), take=0))
    a message, given up after 0 events; a answers: success of no session
    """

    acts: tuple[Act, ...]
    provider: str = "a"
    take: int | None = None
    idempotency_key: str | None = None
    heal: bool = True

    def __str__(self) -> str:
        named = "" if self.idempotency_key is None else f" named {self.idempotency_key}"
        left = "" if self.take is None else f", given up after {self.take} events"
        strict = "" if self.heal else ", by a worker that does not heal"
        return f"a message{named}{left}{strict}; {_answers(self.provider, self.acts)}"


@frozen(repr=False)
class Reset(_Readable):
    """Somebody asks for a new session.

    Attributes:
        force: whether a running turn is ended for it, as ``superseded``.
    """

    force: bool = False

    def __str__(self) -> str:
        return "a forced reset" if self.force else "a reset"


@frozen(repr=False)
class Hang(_Readable):
    """A message whose worker stops after the first events, and keeps its half-read turn.

    Attributes:
        acts: what the provider does for each request.
        provider: names the provider that is asked.
        take: after how many events the worker stops.
    """

    acts: tuple[Act, ...]
    provider: str = "a"
    take: int = 0

    def __str__(self) -> str:
        return f"a message whose worker stops after {self.take} events; {_answers(self.provider, self.acts)}"


@frozen(repr=False)
class Wake(_Readable):
    """The worker that stopped longest ago reads its turn to the end; its result may come late (G10)."""

    def __str__(self) -> str:
        return "the worker that stopped longest ago goes on"


@frozen(repr=False)
class Restart(_Readable):
    """All workers crash and are replaced, after every lease is over; a :class:`Wake` may bring one back."""

    def __str__(self) -> str:
        return "all workers crash, and others take their place after every lease is over"


@frozen(repr=False)
class RefuseWrite(_Readable):
    """The database refuses one commit (G16).

    Attributes:
        nth: which one, counted from now on; 1 is the next.
    """

    nth: int

    def __str__(self) -> str:
        return f"the database is going to refuse commit {self.nth} from now on"


Step: TypeAlias = Send | Reset | Hang | Wake | Restart | RefuseWrite
"""One step of a script."""


def story(script: Iterable[object]) -> str:
    """Return a script as numbered sentences, for ``hypothesis.note`` or a message.

    Args:
        script: its steps.

    >>> print(story([Send((Act((Result(session_id="s-1"),)),)), Restart()]))
    1. a message; a answers: success of s-1
    2. all workers crash, and others take their place after every lease is over
    """
    return "\n".join(f"{number}. {step}" for number, step in enumerate(script, 1))
