"""The user's message as events for a Managed Agents session, without I/O.

A message is one ``user.message``. Blocks that answer a tool call become separate events before it.
A ``tool_result`` is a ``user.custom_tool_result`` for a tool of the caller, and a ``user.tool_result`` for a tool of
the agent that the caller runs. A ``tool_confirmation`` allows or denies a call that asks for it. An answer to a call
that is not open becomes text.

While a call is open, the session does not take a new message. So open calls are answered too. The answer is the stored
result, also if the turn that brought it failed (G23). Without one it is an error, or the call is denied.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import frozen

from fsm.content import NO_RESULT, Block, plain, text_block
from fsm.context import as_preamble
from fsm.provider import Request
from fsm.providers._anthropic.block_checks import IMAGES, Kind, check_blocks
from fsm.records import Message

__all__ = ["LABELS", "Call", "check_content", "first_events", "metadata", "next_events"]

LABELS = ("conversation_key", "session_number")
LABEL_LENGTH = 512
"""The longest value in a session's metadata, in characters."""

NOT_ALLOWED = "no answer was recorded, so the call is denied"

_TEXT = Kind(needs=("text",), may=())
_URL = Kind(needs=("url",), may=())
_FILE = Kind(needs=("file_id",), may=())
_SHOWN: Mapping[str, Kind] = {
    "text": _TEXT,
    "image": Kind(
        may=(),
        sources={"base64": Kind(needs=("data", "media_type"), may=(), media=IMAGES), "url": _URL, "file": _FILE},
    ),
    "document": Kind(
        may=("title", "context"),
        sources={
            "base64": Kind(needs=("data", "media_type"), may=()),
            "text": Kind(needs=("data", "media_type"), may=(), media=("text/plain",)),
            "url": _URL,
            "file": _FILE,
        },
    ),
}
_TAKEN: Mapping[str, Kind] = {
    **_SHOWN,
    "tool_result": Kind(
        needs=("tool_use_id",),
        may=("is_error",),
        inner={**_SHOWN, "search_result": Kind(needs=("source", "title"), may=("citations", "content"))},
    ),
    "tool_confirmation": Kind(needs=("tool_use_id",), may=("deny_message",), one_of={"result": ("allow", "deny")}),
}


@frozen
class Call:
    """A tool call of the agent.

    Attributes:
        kind: the type of its event.
        name: the tool.
        asks: whether it needs a confirmation.
    """

    kind: str
    name: str
    asks: bool = False

    @property
    def needs(self) -> str:
        """The kind of its answer: a ``confirmation`` or a ``result``."""
        return "confirmation" if self.asks or self.kind == "agent.mcp_tool_use" else "result"


def check_content(content: Iterable[Block]) -> None:
    """Refuse what a Managed Agents session can't be sent; see
    :func:`~fsm.providers._anthropic.block_checks.check_blocks`."""
    check_blocks(content, _TAKEN, "the Managed Agents API")


def metadata(request: Request, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the metadata of a session: the conversation, the number of the session in it, and the given metadata."""
    own = (request.key, str(request.session_number))
    return {**(more or {}), **{name: value[:LABEL_LENGTH] for name, value in zip(LABELS, own, strict=True)}}


def first_events(history: Sequence[Message], content: Iterable[Block]) -> list[dict[str, Any]]:
    """Return the events that open a session: one message, the delimited history before what is new in it.

    >>> first_events([], [{"type": "text", "text": "hello"}])
    [{'type': 'user.message', 'content': [{'type': 'text', 'text': 'hello'}]}]
    """
    blocks = [dict(block) if _is_said(block) else dict(text_block(plain(block))) for block in content]
    if history:
        blocks.insert(0, dict(text_block(as_preamble(history))))
    return [{"type": "user.message", "content": blocks}]


def next_events(
    content: Iterable[Block], pending: Mapping[str, Call], history: Iterable[Message] = ()
) -> list[dict[str, Any]]:
    """Return the events that go on with a session.

    Args:
        content: the new message.
        pending: the calls that the session waits for.
        history: tool results that are stored, oldest first; those that the session does not wait for are not told.

    >>> answer = {"type": "tool_result", "tool_use_id": "t1", "content": "3"}
    >>> next_events([answer], {"t1": Call("agent.custom_tool_use", "add")})
    [{'type': 'user.custom_tool_result', 'custom_tool_use_id': 't1', 'content': [{'type': 'text', 'text': '3'}]}]
    """
    open_calls = dict(pending)
    answers: dict[str, dict[str, Any]] = {}
    said: list[dict[str, Any]] = []
    for block in content:
        if _is_said(block):
            said.append(dict(block))
        elif call := open_calls.pop(block["tool_use_id"], None):
            answers[block["tool_use_id"]] = _answer(block, call)
        else:
            said.append(dict(text_block(plain(block))))
    for call_id, block in _stored(history).items():
        if call := open_calls.pop(call_id, None):
            answers[call_id] = _answer(block, call)
    if not said:
        return list(answers.values())
    left = [_not_answered(call_id, call) for call_id, call in open_calls.items()]
    return [*answers.values(), *left, {"type": "user.message", "content": said}]


def _stored(history: Iterable[Message]) -> dict[str, Block]:
    """Return the newest stored result of each tool call, by the id of the call."""
    blocks = [block for message in history for block in message.content]
    return {str(block.get("tool_use_id")): block for block in blocks if block.get("type") == "tool_result"}


def _is_said(block: Block) -> bool:
    return block["type"] in _SHOWN


def _answer(block: Block, call: Call) -> dict[str, Any]:
    call_id = str(block["tool_use_id"])
    if block["type"] == "tool_confirmation":
        return _confirmation(call_id, block["result"], block.get("deny_message"))
    if call.needs == "confirmation":
        # It can't be given a result, since the agent runs it; so it hears why not to.
        return _confirmation(call_id, "deny", plain(block))
    content = block.get("content") or []
    blocks = [text_block(content)] if isinstance(content, str) else content
    return _result(call_id, call, [dict(inner) for inner in blocks], is_error=bool(block.get("is_error")))


def _not_answered(call_id: str, call: Call) -> dict[str, Any]:
    if call.needs == "confirmation":
        return _confirmation(call_id, "deny", NOT_ALLOWED)
    return _result(call_id, call, [dict(text_block(NO_RESULT))], is_error=True)


def _confirmation(call_id: str, result: str, why: str | None) -> dict[str, Any]:
    event = {"type": "user.tool_confirmation", "tool_use_id": call_id, "result": result}
    return {**event, "deny_message": why} if why and result == "deny" else event


def _result(call_id: str, call: Call, content: list[dict[str, Any]], *, is_error: bool) -> dict[str, Any]:
    own = call.kind == "agent.tool_use"
    event: dict[str, Any] = {
        "type": "user.tool_result" if own else "user.custom_tool_result",
        "tool_use_id" if own else "custom_tool_use_id": call_id,
        "content": content,
    }
    return {**event, "is_error": True} if is_error else event
