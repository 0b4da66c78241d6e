"""Scripts: what may happen to a conversation, as plain data that shrinks to a story.

A script is a list of steps. Provider session ids come from a pool of three, so that dead ids are echoed, ids change in
mid-session and ids are missing all the time.
"""

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


# Built once: a strategy that is made anew for each example costs more than playing it.

SESSION_IDS: st.SearchStrategy[str | None] = st.sampled_from([*IDS, None])

SUCCESSES = st.builds(Result, session_id=SESSION_IDS, stop_reason=st.sampled_from(["end_turn", "max_tokens"]))
"""Answers."""

FAILURES = st.one_of(
    st.builds(
        Result,
        subtype=st.sampled_from(["error_max_turns", "error_max_budget_usd", "error_api", "interrupted"]),
        is_error=st.just(True),
        session_id=SESSION_IDS,
    ),
    st.builds(Result, is_error=st.just(True), session_id=SESSION_IDS, http_status=st.sampled_from([401, 429, 529])),
    st.builds(Result, subtype=st.just("error_max_turns"), session_id=SESSION_IDS),
)
"""Every error but the one that means death, API failures dressed as success among them."""

DEATHS = st.builds(Result, subtype=st.just(EXPIRED), is_error=st.just(True), session_id=SESSION_IDS)
"""``error_during_execution``, with the dead id, another one or none."""

RESULTS = st.one_of(SUCCESSES, DEATHS, FAILURES)
"""Everything a provider may report."""

SAID = st.lists(
    st.sampled_from(
        [
            TextDelta("yes"),
            TextDelta("no "),
            TextDelta("maybe"),
            ToolUse("t-1", "look", {"at": "it"}),
            ToolResult("t-1", "seen"),
        ]
    ),
    max_size=3,
).map(tuple)
"""What comes before a result."""


def well_formed(result: st.SearchStrategy[Result]) -> st.SearchStrategy[Act]:
    """One request's worth of events that ends in such a result."""
    return st.builds(lambda said, last: Act((*said, last)), SAID, result)


ACTS = st.one_of(
    *[well_formed(RESULTS)] * 3,
    DEATHS.map(lambda result: Act((result,))),
    st.builds(Act, SAID, st.booleans()),
    well_formed(RESULTS).map(lambda act: Act((*act.events, TextDelta("after")))),
)
"""One request's worth of events: well-formed most of the time; else broken off, without a result, or going on."""


TWO_ACTS = st.tuples(ACTS, ACTS)
"""What the provider does for a message and for the second try, if there is one."""

PROVIDERS = st.sampled_from(["a", "a", "a", "a", "b"])
"""The provider of a turn; mostly the same."""

TAKES = st.sampled_from([None, None, None, None, 0, 1])

HEALS = st.sampled_from([True, True, False])

SENDS = st.builds(Send, acts=TWO_ACTS, provider=PROVIDERS, take=TAKES, heal=HEALS)
"""Messages."""

HANGS = st.builds(Hang, acts=TWO_ACTS, provider=PROVIDERS, take=st.integers(0, 2))

WELL_FORMED_SENDS = st.builds(
    Send, acts=st.tuples(well_formed(RESULTS), well_formed(RESULTS)), provider=PROVIDERS, take=TAKES, heal=HEALS
)
"""Messages to a provider that keeps its contract."""

OTHER = st.sampled_from([Reset(), Reset(force=True), Wake(), Restart()])


def scripts(*more: st.SearchStrategy[Step]) -> st.SearchStrategy[list[Step]]:
    """Whole conversations: messages, and what else may happen, and ``more``."""
    return st.lists(st.one_of(SENDS, SENDS, SENDS, *more, HANGS, OTHER, OTHER), min_size=1, max_size=10)
