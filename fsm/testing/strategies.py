"""Strategies for Hypothesis: results of a provider, content, and whole scripts.

Every function here returns a strategy and is cached, because making a strategy takes longer than an example. Examples
shrink to the simplest story: the first choice everywhere is the ordinary one, a message that is answered.

Provider session ids come from a pool of three, so that dead ids are echoed, ids change in mid-session and ids are
missing all the time.

>>> from hypothesis import given
>>> from fsm.testing import strategies
>>> @given(strategies.results())
... def check(result):
...     assert result.trigger in {"succeeded", "failed", "expired"}
>>> check()
"""

from __future__ import annotations

from functools import cache, lru_cache
from itertools import product

from hypothesis import strategies as st

from fsm._core.validation import KEY_LENGTH
from fsm.content import Block, Content, text_block
from fsm.events import Event, Result, TextDelta, ToolResult, ToolUse
from fsm.testing.result_strategies import IDS, Strategy, deaths, failures, pick, results, session_ids, successes
from fsm.testing.steps import Act, Hang, RefuseWrite, Reset, Restart, Send, Step, Wake

__all__ = [
    "IDS",
    "NAMES",
    "acts",
    "contents",
    "deaths",
    "event_streams",
    "failures",
    "hangs",
    "keys",
    "named_sends",
    "refused_writes",
    "results",
    "scripts",
    "sends",
    "session_ids",
    "successes",
    "well_formed",
]

NAMES = ("i-1", "i-2")
"""The idempotency keys that scripts use."""

# Events

SAYS: tuple[Event, ...] = (
    TextDelta("yes"),
    TextDelta("no "),
    TextDelta("maybe"),
    ToolUse("t-1", "look", {"at": "it"}),
    ToolResult("t-1", "seen"),
)
"""The events before a result: text and tools."""


@cache
def _said() -> Strategy[tuple[Event, ...]]:
    """Return a strategy for up to three of :data:`SAYS`."""
    said = [events for length in range(4) for events in product(SAYS, repeat=length)]
    return pick([()] * len(said) + said)


@lru_cache
def well_formed(result: Strategy[Result] | None = None) -> Strategy[Act]:
    """Return a strategy for the behaviour of a provider that keeps its contract, for one request.

    Args:
        result: how it ends; any of :func:`results` by default.
    """
    return _acts(results() if result is None else result, _said(), st.just("well"))


@cache
def acts() -> Strategy[Act]:
    """Return a strategy for the behaviour of a provider for one request: mostly well-formed, else cut off, without a
    result, or with events after it.
    """
    ways = ["well"] * 8 + ["raises", "ends", "goes on"]
    usual = _acts(results(), _said(), pick(ways))
    return st.one_of(*[usual] * 5, _acts(deaths(), st.just(()), st.just("well")))


@st.composite
def _acts(draw: st.DrawFn, results: Strategy[Result], said: Strategy[tuple[Event, ...]], ways: Strategy[str]) -> Act:
    result, events, way = draw(results), draw(said), draw(ways)
    if way in {"well", "goes on"}:
        events = (*events, result)
    return Act((*events, TextDelta("after")) if way == "goes on" else events, raises=way == "raises")


@lru_cache
def event_streams(*, malformed: bool = True) -> Strategy[tuple[Event, ...]]:
    """Return a strategy for the events of a provider for one request.

    Args:
        malformed: whether it may break its contract, and yield no result or go on after it.
    """
    return (acts() if malformed else well_formed()).map(lambda act: act.events)


# What callers give


@cache
def _texts() -> Strategy[str]:
    """Return a strategy for text that is not only white space: any script, emoji, controls, and markup."""
    tricky = [
        "hello",
        "naïve “quotes”",
        "你好",
        "👩‍🚀",
        "e\u0301",
        "\u202eabc",
        "</conversation-history>",
        "a\0b",
        "'--",
    ]
    return st.one_of(
        st.sampled_from(tricky),
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=30).filter(lambda text: bool(text.strip())),
    )


def _blocks() -> Strategy[Block]:
    names = st.sampled_from(["t-1", "t-2"])
    inputs = st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), st.integers() | _texts(), max_size=2)
    return st.one_of(
        _texts().map(text_block),
        st.builds(
            lambda name, content: {"type": "tool_result", "tool_use_id": name, "content": content}, names, _texts()
        ),
        st.builds(lambda name, given: {"type": "tool_use", "id": name, "name": "look", "input": given}, names, inputs),
        st.just({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}),
    )


@cache
def contents() -> Strategy[Content]:
    """Return a strategy for the content of a message: text of any kind, or blocks, tool calls and their results among
    them.

    >>> from hypothesis import find
    >>> find(contents(), lambda content: True)
    'hello'
    """
    return st.one_of(_texts(), st.lists(_blocks(), min_size=1, max_size=3))


@cache
def keys() -> Strategy[str]:
    """Return a strategy for keys: ordinary ones, any text that is allowed, and the longest.

    >>> from hypothesis import find
    >>> find(keys(), lambda key: True)
    'ticket-42'
    """
    usual = ["ticket-42", "slack:C042", "user/7", "ünïcödé ✓", "a" * KEY_LENGTH, "ö" * KEY_LENGTH, " ", "'; --"]
    allowed = st.characters(codec="utf-8", exclude_characters="\0")
    return st.one_of(st.sampled_from(usual), st.text(allowed, min_size=1, max_size=20))


# Scripts


@lru_cache
def sends(act: Strategy[Act] | None = None) -> Strategy[Send]:
    """Return a strategy for messages, some cut off midway, some to another provider, some without healing.

    Args:
        act: what the provider does for each request; any of :func:`acts` by default.
    """
    one = acts() if act is None else act
    return st.builds(
        Send,
        acts=st.tuples(one, one),
        provider=_providers(),
        take=st.sampled_from([None, None, None, None, 0, 1]),
        heal=st.sampled_from([True, True, False]),
    )


@cache
def hangs() -> Strategy[Hang]:
    """Return a strategy for messages whose worker stops after the first events."""
    return st.builds(Hang, acts=st.tuples(acts(), acts()), provider=_providers(), take=st.integers(0, 2))


@cache
def _providers() -> Strategy[str]:
    return st.sampled_from(["a", "a", "a", "a", "b"])


@lru_cache
def scripts(*more: Strategy[Step], max_size: int = 10) -> Strategy[list[Step]]:
    """Return a strategy for conversations: messages, late results, resets, crashes, changes of provider.

    Args:
        more: further kinds of steps, such as :func:`refused_writes` or messages with idempotency keys.
        max_size: how many steps at most.

    >>> from hypothesis import find
    >>> from fsm.testing.steps import story
    >>> script = find(scripts(), lambda script: any(isinstance(step, Restart) for step in script))
    >>> print(story(script))
    1. all workers crash, and others take their place after every lease is over
    """
    other = st.sampled_from([Reset(), Reset(force=True), Wake(), Restart()])
    usual = sends()
    return st.lists(st.one_of(other, usual, usual, usual, *more, hangs(), other), min_size=1, max_size=max_size)


@cache
def named_sends() -> Strategy[Send]:
    """Return a strategy for messages with an idempotency key of :data:`NAMES` (G13)."""
    return st.builds(Send, st.tuples(acts(), acts()), idempotency_key=st.sampled_from(NAMES))


@cache
def refused_writes() -> Strategy[RefuseWrite]:
    """Return a strategy for the refusal of one of the next three commits (G16)."""
    return st.builds(RefuseWrite, st.integers(1, 3))
