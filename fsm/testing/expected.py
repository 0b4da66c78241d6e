"""The expectations of the reference model: plain values for stored rows, for requests, and for the meaning of a result.

It is written from the guarantees and shares no code with the core; words that name a state, a trigger or a status are
plain text here.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, TypeAlias

from attrs import Factory, define, frozen

from fsm.events import EXPIRED, INTERRUPTED, Result, TextDelta, ToolResult, ToolUse

__all__ = ["Asked", "Broken", "Live", "Message", "Move", "Session", "Turn", "context", "messages", "reason", "status"]
__all__ += ["trigger"]

Said: TypeAlias = tuple[str, tuple[Any, ...]]
"""A role, and the blocks it said."""


class Broken(Exception):  # it is no error of the model
    """The error that the caller must get instead of a reply; its text is the kind of error."""


class Unexpected(AssertionError):
    """The provider was asked what it must not be asked, or was not asked what it must."""


@frozen(kw_only=True)
class Asked:
    """The expected request: the session to resume, and the messages that the context is rebuilt from."""

    turn: int
    session_number: int
    session_id: str | None
    history: tuple[tuple[int, str], ...]
    """The number and the role of each; a turn that answered nothing in text has its last number twice."""


@define(kw_only=True)
class Session:
    """One session, as it must be stored."""

    number: int
    provider: str
    opened_reason: str
    parent: int | None = None
    session_id: str | None = None
    closed_reason: str | None = None


@define(kw_only=True)
class Turn:
    """One turn, as it must be stored."""

    number: int
    session_number: int
    first_message: int
    last_message: int
    status: str = "running"
    result: Result | None = None
    healed: bool = False
    state: str | None = None
    idempotency_key: str | None = None


@define(kw_only=True)
class Live:
    """A turn that some worker reads, and what that worker knows."""

    turn: int
    worker: object
    resumed: str | None
    session_number: int
    may_heal: bool
    until: float
    asked: bool = False
    request: str | None = None
    said: list[Any] = Factory(list)
    result: Result | None = None
    healed: bool = False
    over: bool = False
    status: str | None = None


@frozen(kw_only=True)
class Message:
    """One message, as it must be stored."""

    number: int
    turn: int
    role: str
    content: tuple[Any, ...]


@frozen(kw_only=True)
class Move:
    """One move, as it must be logged."""

    number: int
    trigger: str
    source: str
    target: str
    session_number: int
    session_id: str | None
    turn: int | None
    reason: str


def messages(said: Sequence[Any], result: Result | None) -> list[Said]:
    """Return events as messages: text is joined, and a message ends where the other role begins."""
    if result is not None and result.content is not None:
        return [("assistant", tuple(result.content))] if result.content else []
    blocks: list[tuple[str, Any]] = []
    for is_text, events in groupby(said, key=lambda event: isinstance(event, TextDelta)):
        if is_text:
            text = "".join(event.text for event in events)
            blocks += [("assistant", {"type": "text", "text": text})] if text else []
        else:
            blocks += [block(event) for event in events]
    if not blocks and result is not None and trigger(result) == "succeeded" and result.text:
        blocks = [("assistant", {"type": "text", "text": result.text})]
    return [(role, tuple(block for _, block in group)) for role, group in groupby(blocks, key=lambda said: said[0])]


def block(event: ToolUse | ToolResult) -> tuple[str, Any]:
    if isinstance(event, ToolUse):
        return "assistant", {"type": "tool_use", "id": event.id, "name": event.name, "input": dict(event.input)}
    failed = {"is_error": True} if event.is_error else {}
    return "user", {"type": "tool_result", "tool_use_id": event.tool_use_id, "content": event.content, **failed}


def trigger(result: Result) -> str:
    if result.subtype == EXPIRED:
        return "expired"
    return "failed" if result.is_error or result.subtype.startswith("error") else "succeeded"


def status(result: Result) -> str:
    if result.subtype == INTERRUPTED:
        return "interrupted"
    return "succeeded" if trigger(result) == "succeeded" else "failed"


def reason(result: Result) -> str:
    return result.subtype + ("" if result.http_status is None else f", HTTP {result.http_status}")


def context(turns: Sequence[Turn], said: Sequence[Message], session: int, most: int) -> tuple[tuple[int, str], ...]:
    """Return the messages that a session is told: the newest succeeded turns before it that fit, whole (G3).

    Tool results of turns that ended otherwise are told as well (G23). A turn that answers a tool call stays with the
    one before. A turn that is too large keeps its first message and its newest part (G22). Each message is its
    number and its role.
    """
    units: list[list[tuple[int, str]]] = []
    for turn in turns:
        mine = _told(turn, turns, said) if turn.session_number <= session else []
        if not mine:
            continue
        told = [(message.number, message.role) for message in mine]
        if all(role == "user" for _, role in told):
            told.append((told[-1][0], "assistant"))
        if units and _results(mine[0]):
            units[-1] += told
        else:
            units.append(told)
    kept: list[tuple[int, str]] = []
    for whole in reversed(units):
        unit = whole if len(whole) <= most else _ends(whole, most)
        if not unit or len(kept) + len(unit) > most:
            break
        kept = unit + kept
    return tuple(kept)


def _told(turn: Turn, turns: Sequence[Turn], said: Sequence[Message]) -> list[Message]:
    """Return the messages of a turn that may be told: all if it succeeded, else its tool results, unless sent again."""
    mine = [message for message in said if message.turn == turn.number]
    if turn.status == "succeeded":
        return mine
    if turn.status == "running" or not _results(mine[0]):
        return []
    known = {turn.number: turn.status for turn in turns}
    again: set[str] = set()
    for message in said[mine[0].number :]:
        is_first = message.number == turns[message.turn - 1].first_message
        if known[message.turn] in {"succeeded", "running"}:
            if message.role == "assistant":
                break
            again |= _results(message)
        elif is_first:
            again |= _results(message)
    return mine[:1] if _results(mine[0]) - again else []


def _results(message: Message) -> set[str]:
    return {block["tool_use_id"] for block in message.content if "tool_use_id" in block}


def _ends(unit: list[tuple[int, str]], most: int) -> list[tuple[int, str]]:
    """Return the first message of a unit, and as much of its newest part as fits, beginning with something of the
    AI's."""
    if most < 2:
        return []
    starts = [place for place in range(1, len(unit)) if unit[place][1] == "assistant"]
    fitting = [place for place in starts if 1 + len(unit) - place <= most]
    return [unit[0], *unit[fitting[0] :]] if fitting else [unit[0], unit[starts[-1]]]
