"""Comparing what a store holds and a provider heard with what the reference model expects.

Every function promises to yield nothing if all is as it must be, and otherwise one line for each difference, which
cites the guarantee.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from fsm.events import Result, TextDelta
from fsm.provider import Request
from fsm.records import Conversation, Message, Turn
from fsm.reply import Reply
from fsm.store import Store
from fsm.testing import expected
from fsm.testing.model import Model

__all__ = ["asked_differs", "reply_differs", "stored_differs"]

REPORTED = ("subtype", "is_error", "session_id", "errors", "stop_reason", "usage", "cost_usd", "http_status")
"""The fields of a result that a turn keeps."""

UNREPORTED: dict[str, object] = {"is_error": False, "errors": ()}
"""The values of these fields for a turn without a result, if they are not None."""


def stored_differs(store: Store, key: str, model: Model, ids: Sequence[str]) -> Iterator[str]:
    """Yield the differences of the stored conversation (G1, G2, G4 to G7, G9, G10, G16)."""
    conversation = store.load(key)
    if conversation is None or not model.turns:
        if conversation is not None or model.turns:
            yield f"G9: the conversation is {'missing' if conversation is None else 'there before its first turn'}"
        return
    yield from _row(conversation, model)
    yield from _table("G4, G5", "message", store.messages(conversation), model.messages)
    yield from _table("G6", "transition", store.transitions(conversation), model.moves)
    yield from _table("G7", "session", store.sessions(conversation), model.sessions)
    yield from _turns(store.turns(conversation), model)
    for first in range(0, len(ids), 2):
        pair = set(ids[first : first + 2])
        if (dead := store.dead(conversation, pair)) != pair & model.dead:
            yield f"G2: of {sorted(pair)} the dead are {sorted(dead)}, not {sorted(pair & model.dead)}"


def _row(conversation: Conversation, model: Model) -> Iterator[str]:
    due = {
        "state": ("G1", model.state),
        "session_id": ("G1, G2", model.held),
        "provider": ("G15", model.provider),
        "session_number": ("G7", len(model.sessions)),
        "turn_count": ("G5", len(model.turns)),
        "message_count": ("G5", len(model.messages)),
        "transition_count": ("G6", len(model.moves)),
    }
    for name, (guarantee, value) in due.items():
        if getattr(conversation, name) != value:
            yield f"{guarantee}: {name} is {getattr(conversation, name)!r}, not {value!r}"
    running = conversation.running and conversation.running.turn
    if running != (model.running and model.running.turn):
        yield f"G5, G9: turn {running} runs, not {model.running and model.running.turn}"


def _table(guarantee: str, table: str, rows: Sequence[Any], due: Sequence[Any]) -> Iterator[str]:
    if len(rows) != len(due):
        yield f"{guarantee}: there are {len(rows)} rows in {table}, not {len(due)}"
    for row, wanted in zip(rows, due, strict=False):
        for field in attrs.fields(type(wanted)):
            if (found := getattr(row, field.name)) != (value := getattr(wanted, field.name)):
                yield f"{guarantee}: {field.name} of {table} {wanted.number} is {found!r}, not {value!r}"


def _turns(rows: Sequence[Turn], model: Model) -> Iterator[str]:
    if len(rows) != len(model.turns):
        yield f"G5: there are {len(rows)} turns, not {len(model.turns)}"
    names = (
        "number",
        "session_number",
        "status",
        "first_message",
        "last_message",
        "healed",
        "state",
        "idempotency_key",
    )
    for row, due in zip(rows, model.turns, strict=False):
        for name in names:
            running = due.status == "running" and name in {"session_number", "healed"}
            if not running and getattr(row, name) != getattr(due, name):
                yield f"G9: {name} of turn {due.number} is {getattr(row, name)!r}, not {getattr(due, name)!r}"
        for name in REPORTED:
            if getattr(row, name) != (value := _reported(due.result, name)):
                yield f"G9: {name} of turn {due.number} is {getattr(row, name)!r}, not {value!r}"


def _reported(result: Result | None, name: str) -> object:
    return UNREPORTED.get(name) if result is None else getattr(result, name)


def asked_differs(request: Request, due: expected.Asked, model: Model, *, wants_transcript: bool) -> Iterator[str]:
    """Yield the differences of a request (G2, G3, G14, G15)."""
    if request.session_id in model.dead:
        yield f"G2: turn {due.turn} resumes {request.session_id!r}, which was reported dead"
    if request.session_id != due.session_id:
        yield f"G3, G14, G15: turn {due.turn} resumes {request.session_id!r}, not {due.session_id!r}"
    if (request.turn, request.session_number) != (due.turn, due.session_number):
        numbers, right = (request.turn, request.session_number), (due.turn, due.session_number)
        yield f"G5: the request is of turn and session {numbers}, not {right}"
    if request.content != model.messages[model.turns[due.turn - 1].first_message - 1].content:
        yield f"G8: turn {due.turn} asks something else than is stored"
    if wants_transcript and due.session_id is not None:
        return
    told = tuple((message.number, message.role) for message in request.history)
    if told != due.history:
        yield f"G3: turn {due.turn} is told the messages {told}, not {due.history}"
        return
    for message in request.history:
        if message.role == "user":
            yield from _message_differs(message, model.messages[message.number - 1], due.turn, model)


def _message_differs(told: Message, said: expected.Message, turn: int, model: Model) -> Iterator[str]:
    """Yield the differences of a user message in a request (G3, G23)."""
    if model.turns[said.turn - 1].status != "succeeded":
        if "[the tool " not in told.text:
            yield f"G23: turn {turn} is told message {told.number} without the result of a tool"
        return
    for block in said.content:
        if block["type"] == "text" and block["text"] not in told.text:
            yield f"G3: turn {turn} is told message {told.number} without its text"
        if block["type"] == "tool_result" and "[the tool " not in told.text:
            yield f"G23: turn {turn} is told message {told.number} without the result of a tool"


def reply_differs(reply: Reply | None, live: expected.Live | expected.Turn | None, model: Model) -> Iterator[str]:
    """Yield the differences of a caller's reply (G11, G13, G16)."""
    if live is None or reply is None:
        if live is not None or reply is not None:
            yield f"G16: the caller gets {'no reply' if reply is None else 'a reply'}"
        return
    if isinstance(live, expected.Turn):
        due: dict[str, object] = {"turn": live.number, "replayed": True, "status": live.status, "healed": live.healed}
        due |= {"state": live.state, "text": _stored_text(live.number, model)}
    else:
        due = {"turn": live.turn, "replayed": False, "status": live.status, "healed": live.healed}
        due |= {"result": live.result, "text": _text(live)}
    for name, value in due.items():
        if getattr(reply, name) != value:
            yield f"G11, G13, G16: {name} of the reply is {getattr(reply, name)!r}, not {value!r}"


def _text(live: expected.Live) -> str:
    said = "".join(event.text for event in live.said if isinstance(event, TextDelta))
    if said or live.result is None or expected.trigger(live.result) != "succeeded":
        return said
    blocks = live.result.content or ()
    return live.result.text or "".join(block["text"] for block in blocks if block.get("type") == "text")


def _stored_text(turn: int, model: Model) -> str:
    mine = [message for message in model.messages if (message.turn, message.role) == (turn, "assistant")]
    return "".join(block["text"] for message in mine for block in message.content if block.get("type") == "text")
