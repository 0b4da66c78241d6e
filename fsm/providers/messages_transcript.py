"""A request as messages that the Messages API accepts: pure, no I/O.

The API keeps nothing, so every request brings the whole transcript, and the API refuses one whose structure is not
sound. A refused transcript is refused every time, so :func:`api_messages` promises that it is sound whatever was
stored:

* the first message is of the user, and no two messages in a row are of the same role;
* each tool call is answered at the start of the next message, by an error if nobody answered it; an answer to a call
  that is not there is told as text;
* no text is blank, no message is empty, no answer ends in a thought.

What the API signed (thinking) or runs itself (server tools) is sent back as it came.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fsm.content import Block, plain, text_block
from fsm.providers.block_checks import IMAGES, Kind, check_blocks
from fsm.records import Message, Role

__all__ = ["api_messages", "check_content", "container_of", "continued", "settled"]

LEFT_OUT = "(The beginning of this conversation is left out.)"
NOT_ANSWERED = "The call was not answered: the turn ended before the tool had run."

_SHOWN: Mapping[str, Kind] = {
    "text": Kind(needs=("text",)),
    "image": Kind(
        sources={
            "base64": Kind(needs=("data", "media_type"), media=IMAGES),
            "url": Kind(needs=("url",)),
            "file": Kind(needs=("file_id",)),
        }
    ),
    "document": Kind(
        sources={
            "base64": Kind(needs=("data", "media_type"), media=("application/pdf",)),
            "text": Kind(needs=("data", "media_type"), media=("text/plain",)),
            "content": Kind(),
            "url": Kind(needs=("url",)),
            "file": Kind(needs=("file_id",)),
        }
    ),
    "search_result": Kind(needs=("source", "title")),
}
_TAKEN: Mapping[str, Kind] = {
    **_SHOWN,
    "tool_result": Kind(needs=("tool_use_id",), inner={**_SHOWN, "tool_reference": Kind(needs=("tool_name",))}),
    "container_upload": Kind(needs=("file_id",)),
}
"""What the API takes from a user. Fields that it has besides, such as ``cache_control``, are its own to check."""

_THOUGHTS = frozenset({"thinking", "redacted_thinking"})
_SERVER_CALLS = frozenset({"server_tool_use", "mcp_tool_use"})


def check_content(content: Iterable[Block]) -> None:
    """Refuse what the Messages API takes from no user; see :func:`~fsm.providers.block_checks.check_blocks`."""
    check_blocks(content, _TAKEN, "the Messages API")


def api_messages(history: Iterable[Message], content: Sequence[Block]) -> list[dict[str, Any]]:
    """The messages of a request.

    Args:
        history: the transcript so far, oldest first.
        content: the new message of the user.

    Returns:
        Objects with ``role`` and ``content``, the last one of the user.

    >>> api_messages([], [{"type": "text", "text": "hello"}])
    [{'role': 'user', 'content': [{'type': 'text', 'text': 'hello'}]}]
    """
    messages: list[dict[str, Any]] = []
    for message in history:
        _append(messages, message.role, message.content)
    _append(messages, "user", content)
    if messages and messages[0]["role"] != "user":
        messages.insert(0, {"role": "user", "content": [text_block(LEFT_OUT)]})
    calls: list[str] = []
    for sent in messages:
        if sent["role"] == "user":
            sent["content"] = _answered(sent["content"], calls)
        calls = [block["id"] for block in sent["content"] if block["type"] == "tool_use"]
    return messages


def continued(messages: Sequence[dict[str, Any]], blocks: Iterable[Block]) -> list[dict[str, Any]] | None:
    """The messages that let the API go on with an answer it paused; None if there is nothing to go on from.

    >>> asked = [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]
    >>> continued(asked, [{"type": "text", "text": "Wait "}])[-1]
    {'role': 'assistant', 'content': [{'type': 'text', 'text': 'Wait'}]}
    """
    sent = [*messages]
    _append(sent, "assistant", blocks)
    if sent[-1]["role"] != "assistant":
        return None
    last = sent[-1]["content"][-1]
    if last["type"] == "text":
        last["text"] = last["text"].rstrip()
    return sent


def settled(blocks: Sequence[Block], stop_reason: str | None) -> tuple[Block, ...]:
    """The blocks of a finished answer that can be sent again.

    A call of a server tool that was cut off never gets its result, and the API refuses it; only beside a call of the
    client's tools (``tool_use``) does its result come with the next answer.

    >>> settled([{"type": "server_tool_use", "id": "s1"}], "max_tokens")
    ()
    """
    if stop_reason == "tool_use":
        return tuple(blocks)
    answered = {block["tool_use_id"] for block in blocks if "tool_use_id" in block}
    return tuple(block for block in blocks if block["type"] not in _SERVER_CALLS or block.get("id") in answered)


def container_of(history: Sequence[Message]) -> str | None:
    """The id of the newest container in a transcript, or None.

    >>> container_of([]) is None
    True
    """
    for message in reversed(history):
        data: Mapping[str, Any] = message.provider_data or {}
        if isinstance(data.get("container"), str):
            return str(data["container"])
    return None


def _append(messages: list[dict[str, Any]], role: Role, blocks: Iterable[Block]) -> None:
    sendable = [dict(block) for block in blocks if not _is_blank(block)]
    while role == "assistant" and sendable and sendable[-1]["type"] in _THOUGHTS:
        sendable.pop()
    if not sendable:
        return
    if messages and messages[-1]["role"] == role:
        messages[-1] = {"role": role, "content": messages[-1]["content"] + sendable}
    else:
        messages.append({"role": role, "content": sendable})


def _is_blank(block: Block) -> bool:
    return block["type"] == "text" and not str(block.get("text", "")).strip()


def _answered(blocks: Sequence[dict[str, Any]], calls: Sequence[str]) -> list[dict[str, Any]]:
    """The blocks of a user message, after one answer to each of the calls before it."""
    answers: dict[str, dict[str, Any]] = {}
    others: list[dict[str, Any]] = []
    for block in blocks:
        if block["type"] != "tool_result":
            others.append(block)
        elif block.get("tool_use_id") in calls and block["tool_use_id"] not in answers:
            answers[block["tool_use_id"]] = block
        else:
            others.append(dict(text_block(plain(block))))
    return [*(answers.get(call) or _not_answered(call) for call in calls), *others]


def _not_answered(call: str) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": call, "is_error": True, "content": NOT_ANSWERED}
