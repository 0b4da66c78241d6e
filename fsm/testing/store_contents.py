"""The contract that all content which JSON can hold is read back equal."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from fsm._core import decisions as decide
from fsm._core.turn import Answer
from fsm.events import Result
from fsm.records import Conversation
from fsm.testing import store_scripts as s
from fsm.testing.store_actions import EPOCH, LEASE, OWNER
from fsm.testing.store_looks import look_at_rows
from fsm.testing.subjects import StoreSubject

__all__ = ["contents"]

CONTENTS: tuple[Any, ...] = (
    "",
    " ",
    "\0",
    "a\0b",
    "\\u0000",
    "\r\n\t\x1b",
    "'; DROP TABLE message; --",
    "\U0001f600 é e\u0301 \u202e \ufeff \uffff",
    "x" * 100_000,
    None,
    True,
    0,
    -(2**63),
    2**53 + 1,
    0.1,
    1e300,
    [],
    {},
    [[], {}, [None]],
    {"": {"": []}, "b": 1, "a": [1, 1.5, "1", None, False]},
    [[[[[[[[[[[[]]]]]]]]]]]],
)

LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
JSON: st.SearchStrategy[Any] = st.recursive(
    LEAVES | st.text(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


def contents(subject: StoreSubject) -> None:
    """Check that every JSON value is read back equal, wherever it is stored."""
    with subject.store() as store:
        for number, value in enumerate((*CONTENTS, *s.some(JSON, subject.examples))):
            _say(s.Play(store), value, number)


def _say(play: s.Play, value: Any, number: int) -> None:
    told = json.dumps(value)
    told = told if len(told) <= 60 else told[:59] + "…"
    begin = decide.begin(
        Conversation(key=f"k-{number}", id=number + 1, created_at=EPOCH, updated_at=EPOCH),
        content=({"type": "document", "source": value},),
        provider="p",
        owner=OWNER,
        now=EPOCH.replace(microsecond=123456),
        lease=LEASE,
        metadata={"value": value},
    )
    result = Result(
        session_id="s-ß'\"",
        stop_reason="end_turn",
        errors=(str(value),),
        usage={"value": value},
        cost_usd=0.1,
        http_status=200,
    )
    answer = Answer((("assistant", ({"type": "text", "text": str(value)},), {"value": value}),), result)
    end = decide.finish(begin.after, turn=1, owner=OWNER, result=result, answer=answer, now=EPOCH)
    for step, what in ((begin, "turn 1 begins, with {} in its message and metadata"), (end, "it ends, with {} in it")):
        play.story.append(what.format(told))
        play.commit(step)
        look_at_rows(play)
