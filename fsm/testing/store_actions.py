"""The actions in a script for stores, as plain data, and the strategies that make such scripts.

Each :class:`Action` is decided by the real functions of :mod:`fsm._core.decisions`; one that is not possible at the
time
is left out. :mod:`fsm.testing.store_scripts` plays them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import attrs
from attrs import frozen
from hypothesis import strategies as st

from fsm._core import decisions as decide
from fsm._core.effects import Step
from fsm._core.turn import Answer
from fsm.content import Block, text_block
from fsm.errors import ConversationBusy, TurnSuperseded
from fsm.events import EXPIRED, Result
from fsm.records import TurnStatus

if TYPE_CHECKING:
    from fsm.testing.store_scripts import Play

__all__ = [
    "EPOCH",
    "IDS",
    "LEASE",
    "OWNER",
    "SCRIPTS",
    "TOUR",
    "Action",
    "Begin",
    "Clock",
    "End",
    "Extend",
    "Late",
    "Reset",
    "Script",
]

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
LEASE = timedelta(seconds=60)
OWNER = "worker"
IDS = ("s-1", "s-2", "s-3")

Ending: TypeAlias = Literal["succeeded", "failed", "expired", "interrupted", "healed"]


@frozen
class Begin:
    """A turn begins; one whose lease is over is ended on the way, and a stale session renewed."""

    key: str = "a"
    text: str = "hello"
    provider: str = "p"
    idempotency_key: str | None = None
    brings_result: bool = False

    def decide(self, play: Play) -> Step | None:
        before = play.conversation(self.key)
        if self.idempotency_key and play.reference.turn_by_idempotency_key(before, self.idempotency_key):
            return None  # a manager would return its stored reply
        with suppress(ConversationBusy):
            return decide.begin(
                before,
                content=self._content,
                provider=self.provider,
                owner=OWNER,
                now=play.now,
                lease=LEASE,
                idempotency_key=self.idempotency_key,
            )
        return None

    def told(self, step: Step) -> str:
        named = f" with the idempotency key {self.idempotency_key!r}" if self.idempotency_key else ""
        result = " with the result of a tool" if self.brings_result else ""
        return f"turn {step.after.turn_count} begins in {self.key!r}{named}{result}: {self.text!r}"

    @property
    def _content(self) -> tuple[Block, ...]:
        result = ({"type": "tool_result", "tool_use_id": "t-1", "content": "done"},) if self.brings_result else ()
        return (*result, text_block(self.text))


@frozen
class End:
    """The running turn ends, or is healed."""

    key: str = "a"
    how: Ending = "succeeded"
    session_id: str | None = "s-1"
    text: str = "yes"

    def decide(self, play: Play) -> Step | None:
        before = play.conversation(self.key)
        if before.running is None:
            return None
        answer = _said(self.text) if self.how != "healed" else Answer()
        turn: dict[str, Any] = {"turn": before.running.turn, "owner": OWNER, "now": play.now}
        if self.how == "interrupted":
            return decide.interrupt(before, answer=answer, **turn)
        result = self._result
        turn["dead"] = play.dead(before, self.session_id)
        if self.how == "healed":
            return decide.heal(before, result=result, lease=LEASE, **turn)
        return decide.finish(before, result=result, answer=attrs.evolve(answer, result=result), **turn)

    @property
    def _result(self) -> Result:
        match self.how:
            case "expired" | "healed":
                return Result(subtype=EXPIRED, is_error=True, session_id=self.session_id)
            case "failed":
                return Result(is_error=True, session_id=self.session_id, http_status=429)
        return Result(session_id=self.session_id, stop_reason="end_turn")

    def told(self, step: Step) -> str:
        named = f", naming session {self.session_id}" if self.session_id and self.how != "interrupted" else ""
        turn = f"turn {step.before.turn_count} of {self.key!r}"
        if self.how == "healed":
            return f"{turn} finds its session dead{named}, and is healed"
        return f"{turn} ends, {self.how}{named}: {self.text!r}"


@frozen
class Reset:
    """A forced reset."""

    key: str = "a"

    def decide(self, play: Play) -> Step | None:
        before = play.conversation(self.key)
        if before.version == 0:
            return None
        return decide.reset(before, reason="asked for", provider=before.provider, now=play.now, force=True)

    def told(self, step: Step) -> str:
        ended = f", which ends turn {step.before.running.turn} as superseded" if step.before.running else ""
        return f"{self.key!r} is reset{ended}"


@frozen
class Late:
    """The answer of the newest turn comes after somebody else had ended it."""

    key: str = "a"
    session_id: str | None = None

    def decide(self, play: Play) -> Step | None:
        before = play.conversation(self.key)
        ended = play.reference.turns(before, limit=1)
        if not ended or ended[0].status not in {TurnStatus.INTERRUPTED, TurnStatus.SUPERSEDED}:
            return None
        result = Result(subtype=EXPIRED, is_error=True, session_id=self.session_id) if self.session_id else None
        answer = attrs.evolve(_said("late"), result=result)
        dead = play.dead(before, self.session_id)
        return decide.record_late_result(before, turn=ended[0].number, answer=answer, now=play.now, dead=dead)

    def told(self, step: Step) -> str:
        reported = f", and reports session {self.session_id} dead" if self.session_id else ""
        return f"the answer of turn {step.before.turn_count} of {self.key!r} comes late{reported}"


@frozen
class Extend:
    """The lease of the running turn is lengthened."""

    key: str = "a"

    def decide(self, play: Play) -> Step | None:
        before = play.conversation(self.key)
        with suppress(TurnSuperseded):
            return decide.extend(before, turn=before.turn_count, owner=OWNER, now=play.now, lease=LEASE)
        return None

    def told(self, step: Step) -> str:
        return f"turn {step.before.turn_count} of {self.key!r} gets a longer lease"


@frozen
class Clock:
    """The clock is put forward or back."""

    seconds: int = 120

    def told(self) -> str:
        way = "forward" if self.seconds > 0 else "back"
        return f"the clock goes {way} by {abs(self.seconds)} seconds"


Action: TypeAlias = Begin | End | Reset | Late | Extend | Clock
Script: TypeAlias = Sequence[Action]

TOUR: Script = (
    Begin(idempotency_key="i-1"),
    End(),
    Begin("b", "and you?", idempotency_key="i-1"),
    Begin(text="second", brings_result=True),
    End(how="failed"),
    End("b", session_id=None),
    Clock(-30),
    Begin(text="third"),
    Extend(),
    End(how="healed", session_id="s-2"),
    End(session_id="s-3", text="well"),
    Begin(text="fourth", idempotency_key="i-2"),
    End(how="expired", session_id="s-3", text="not any more"),
    Begin(text="fifth"),
    Reset(),
    Late(session_id="s-1"),
    Begin(text="sixth", provider="q"),
    Clock(120),
    Begin(text="seventh", provider="q"),
    End(how="interrupted", text="I was about to"),
    Reset(),
    Begin(text="eighth", provider="q"),
    End(session_id=None),
    Begin("b", "still there?"),
)
"""One script that meets everything once."""


def _said(text: str) -> Answer:
    content: tuple[Block, ...] = (text_block(text),)
    return Answer((("assistant", content, None),))


KEYS = st.sampled_from(["a", "a", "b"])
SESSION_IDS = st.sampled_from([*IDS, None])
TEXTS = st.sampled_from(["hello", "and?", "well…"])
HOWS: st.SearchStrategy[Ending] = st.sampled_from(
    ["succeeded", "succeeded", "failed", "expired", "interrupted", "healed"]
)

BEGINS = st.builds(
    Begin,
    key=KEYS,
    text=TEXTS,
    provider=st.sampled_from(["p", "p", "p", "q"]),
    idempotency_key=st.sampled_from([None, None, "i-1", "i-2"]),
)
ENDS = st.builds(End, key=KEYS, how=HOWS, session_id=SESSION_IDS, text=TEXTS)
OTHERS: st.SearchStrategy[Action] = st.one_of(
    st.builds(Reset, key=KEYS),
    st.builds(Late, key=KEYS, session_id=SESSION_IDS),
    st.builds(Extend, key=KEYS),
    st.builds(Clock, st.sampled_from([-30, 120])),
)
SCRIPTS: st.SearchStrategy[list[Action]] = st.lists(
    st.one_of(BEGINS, ENDS, BEGINS, ENDS, OTHERS), min_size=3, max_size=12
)
"""Scripts of up to twelve actions in two conversations, with a pool of three session ids."""
