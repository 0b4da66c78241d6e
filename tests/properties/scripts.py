"""Scripts: what may happen to a conversation, as plain data that shrinks to a story.

A script is a list of steps. Provider session ids come from a pool of three, so that dead ids are echoed, ids change in
mid-session and ids are missing all the time.
"""

from collections.abc import Sequence

from attrs import frozen
from hypothesis import strategies as st

from fsm import Result, TextDelta, ToolResult, ToolUse
from fsm.results import EXPIRED, Event

IDS = ("s-1", "s-2", "s-3")
KEYS = ("i-1", "i-2")


@frozen
class Act:
    """What the provider does for one request: yield these events, and then raise if it is broken."""

    events: tuple[Event, ...]
    raises: bool = False


@frozen
class Send:
    """A message, read to its end; or only its first events, if ``take`` is a number."""

    acts: tuple[Act, ...]
    provider: str = "a"
    take: int | None = None
    idempotency_key: str | None = None
    heal: bool = True


@frozen
class Reset:
    """A reset, forced or not."""

    force: bool = False


@frozen
class Hang:
    """A message whose worker stops after the first events, and keeps its half-read turn."""

    acts: tuple[Act, ...]
    provider: str = "a"
    take: int = 0


@frozen
class Wake:
    """The worker that stopped longest ago reads its turn to the end."""


@frozen
class Restart:
    """All workers are replaced, after every lease is over; what they were reading is only read if one wakes up."""


@frozen
class RefuseWrite:
    """The database refuses the nth commit from now on."""

    nth: int


Step = Send | Reset | Hang | Wake | Restart | RefuseWrite


def ids() -> st.SearchStrategy[str | None]:
    """A provider session id, or none."""
    return st.sampled_from([*IDS, None])


def successes() -> st.SearchStrategy[Result]:
    """Answers."""
    return st.builds(Result, session_id=ids(), stop_reason=st.sampled_from(["end_turn", "max_tokens"]))


def failures() -> st.SearchStrategy[Result]:
    """Every error but the one that means death, API failures dressed as success among them."""
    return st.one_of(
        st.builds(
            Result,
            subtype=st.sampled_from(["error_max_turns", "error_max_budget_usd", "error_api", "interrupted"]),
            is_error=st.just(True),
            session_id=ids(),
        ),
        st.builds(Result, is_error=st.just(True), session_id=ids(), http_status=st.sampled_from([401, 429, 529])),
        st.builds(Result, subtype=st.just("error_max_turns"), session_id=ids()),
    )


def deaths() -> st.SearchStrategy[Result]:
    """``error_during_execution``, with the dead id, another one or none."""
    return st.builds(Result, subtype=st.just(EXPIRED), is_error=st.just(True), session_id=ids())


def results() -> st.SearchStrategy[Result]:
    """Everything a provider may report."""
    return st.one_of(successes(), deaths(), failures())


def said() -> st.SearchStrategy[Sequence[Event]]:
    """What comes before a result."""
    return st.lists(
        st.one_of(
            st.builds(TextDelta, st.sampled_from(["yes", "no ", "maybe"])),
            st.just(ToolUse("t-1", "look", {"at": "it"})),
            st.just(ToolResult("t-1", "seen")),
        ),
        max_size=3,
    )


@st.composite
def acts(draw: st.DrawFn, result: st.SearchStrategy[Result] | None = None) -> Act:
    """One request's worth of events, well-formed most of the time."""
    events = tuple(draw(said()))
    ending = draw(st.sampled_from(["result"] * 6 + ["raise", "nothing", "more"])) if result is None else "result"
    if ending == "raise":
        return Act(events, raises=True)
    if ending == "nothing":
        return Act(events)
    last = draw(results() if result is None else result)
    return Act((*events, last, TextDelta("after")) if ending == "more" else (*events, last))


def two_acts(result: st.SearchStrategy[Result] | None = None) -> st.SearchStrategy[tuple[Act, ...]]:
    """What the provider does for a message and for the second try, if there is one."""
    return st.tuples(acts(result), acts(result))


def providers() -> st.SearchStrategy[str]:
    """The provider of a turn; mostly the same."""
    return st.sampled_from(["a", "a", "a", "a", "b"])


def sends(result: st.SearchStrategy[Result] | None = None) -> st.SearchStrategy[Send]:
    """Messages."""
    return st.builds(
        Send,
        acts=two_acts(result),
        provider=providers(),
        take=st.sampled_from([None, None, None, None, 0, 1]),
        heal=st.sampled_from([True, True, False]),
    )


def scripts(*more: st.SearchStrategy[Step]) -> st.SearchStrategy[list[Step]]:
    """Whole conversations: messages, and what else may happen, and ``more``."""
    hangs = st.builds(Hang, acts=two_acts(), provider=providers(), take=st.integers(0, 2))
    resets = st.builds(Reset, force=st.booleans())
    return st.lists(
        st.one_of(sends(), sends(), sends(), *more, hangs, resets, st.just(Wake()), st.just(Restart())),
        min_size=1,
        max_size=12,
    )
