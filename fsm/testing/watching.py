"""The store and the provider of a conversation machine, which record every call.

The store refuses the commit that it is told to refuse. The provider notes what it is asked and what it answers, on one
tape for each turn, and promises to change nothing of it.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from typing import Any

from attrs import Factory, define, frozen

from fsm._core.effects import Step
from fsm.errors import StoreError
from fsm.events import Event, Result
from fsm.provider import Provider, Request
from fsm.store import Store
from fsm.testing.steps import Act

__all__ = ["ENDED", "Books", "Heard", "RefusingStore", "Scripted", "Watched"]

ENDED, RAISED = "ended", "raised"


@frozen
class Heard:
    """A request as it reached the provider, and whether its turn was stored by then (G8)."""

    request: Request
    stored: bool


@define
class Books:
    """The records of one conversation.

    Attributes:
        key: the conversation.
        refuse_in: which commit the database refuses, counted from now on; 0 or less: none.
        acts: what the provider does, by the number of the turn.
        tapes: what the provider was asked and answered, by the number of the turn.
    """

    key: str
    refuse_in: int = 0
    acts: dict[int, list[Act]] = Factory(dict)
    tapes: dict[int, deque[Any]] = Factory(lambda: defaultdict(deque))


class RefusingStore:
    """A store that refuses to write when it is told to, and is otherwise another one.

    Args:
        store: the other one.
        books: say when.
    """

    def __init__(self, store: Store, books: Books) -> None:
        self._store = store
        self._books = books

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def commit(self, step: Step) -> None:
        """Write one step, or refuse; a step that would be a conflict is not counted."""
        if step.before.key != self._books.key:
            self._store.commit(step)
            return
        stored = self._store.load(step.before.key)
        if self._books.refuse_in == 1 and (stored.version if stored else 0) == step.before.version:
            self._books.refuse_in = 0
            raise StoreError("the database refuses to write, as the script says; nothing was written", step.before.key)
        self._store.commit(step)
        self._books.refuse_in -= 1


class Scripted:
    """A provider that does what the books say.

    Args:
        name: its name.
        books: say what it does in which turn.
    """

    def __init__(self, name: str, books: Books) -> None:
        self.name = name
        self._books = books

    def stream(self, request: Request) -> Iterator[Event]:
        """Do what is scripted; answer in nothing but success when that is used up."""
        acts = self._books.acts.get(request.turn, [])
        act = acts.pop(0) if acts else Act((Result(),))
        yield from act.events
        if act.raises:
            raise RuntimeError("as the script says")


class Watched:
    """A provider whose every request and event is noted.

    Args:
        provider: the provider.
        books: where it is noted.
        is_stored: tells whether the turn of a request is stored.
    """

    def __init__(self, provider: Provider, books: Books, is_stored: Callable[[Request], bool]) -> None:
        self.name = provider.name
        self.wants_transcript = getattr(provider, "wants_transcript", False)
        self._provider = provider
        self._books = books
        self._is_stored = is_stored

    def stream(self, request: Request) -> Iterator[Event]:
        """Yield the behaviour of the provider."""
        tape = self._books.tapes[request.turn]
        tape.append(Heard(request, self._is_stored(request)))
        events = iter(self._provider.stream(request))
        try:
            for event in events:
                tape.append(event)
                yield event
                if isinstance(event, Result):
                    break
            else:
                tape.append(ENDED)
        except Exception:
            tape.append(RAISED)
            raise
        yield from events  # after a result it is read in the background, and that is not the turn's
