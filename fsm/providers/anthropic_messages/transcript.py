"""A request as messages that the Messages API accepts: pure, no I/O.

The API keeps nothing, so every request brings the whole transcript, and the API refuses one whose structure is not
sound. A refused transcript is refused every time, so :func:`api_messages` promises that it is sound whatever was
stored:

* the first message is of the user, and no two messages in a row are of the same role;
* Each tool call is answered at the start of the next message, by an error if no result was recorded. A result whose
  call is not right before it becomes text.
* no text is blank, at any depth; no message is empty, no answer ends in a thought;
* every text can be sent as UTF-8;
* only the newest message has marks for the cache (``cache_control``), which are of one request.

It also promises that a request begins with all that the request before it had, the marks aside: that is what the
API's cache goes by. Blocks that the API signed (thinking) or runs itself (server tools) are sent back unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fsm.content import NO_RESULT, Block, plain, text_block, well_formed
from fsm.records import Message, Role

__all__ = ["api_messages", "container_of", "continued", "marks", "settled"]

EMPTY = "(empty)"
LEFT_OUT = "(The beginning of this conversation is left out.)"
NO_OUTPUT = "(no output)"

_THOUGHTS = frozenset({"thinking", "redacted_thinking"})
_SERVER_CALLS = frozenset({"server_tool_use", "mcp_tool_use"})


def api_messages(history: Iterable[Message], content: Sequence[Block]) -> list[dict[str, Any]]:
    """Return the messages of a request.

    Args:
        history: the transcript so far, oldest first.
        content: the new message of the user.

    Returns:
        Objects with ``role`` and ``content``, the last one of the user.

    >>> api_messages([], [{"type": "text", "text": "hello"}])
    [{'role': 'user', 'content': [{'type': 'text', 'text': 'hello'}]}]
    """
    messages: list[dict[str, Any]] = []
    heard: list[list[dict[str, Any]]] = []
    for message in history:
        blocks = _sendable(message.content, keep_marks=False)
        if message.role == "user":
            heard.append(blocks or [dict(text_block(EMPTY))])
        elif blocks := _without_last_thoughts(blocks):
            _hear(messages, heard)
            _append(messages, message.role, blocks)
            heard = []
    heard.append(_sendable(content, keep_marks=True) or [dict(text_block(EMPTY))])
    _hear(messages, heard)
    return messages


def continued(messages: Sequence[dict[str, Any]], blocks: Iterable[Block]) -> list[dict[str, Any]] | None:
    """Return the messages that let the API go on with an answer it paused; None if there is nothing to go on from.

    >>> asked = [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]
    >>> continued(asked, [{"type": "text", "text": "Wait "}])[-1]
    {'role': 'assistant', 'content': [{'type': 'text', 'text': 'Wait'}]}
    """
    said = _without_last_thoughts(_sendable(blocks, keep_marks=False))
    if not said:
        return None
    if said[-1]["type"] == "text":
        said[-1]["text"] = said[-1]["text"].rstrip()
    return [*messages, {"role": "assistant", "content": said}]


def settled(blocks: Sequence[Block], stop_reason: str | None) -> tuple[Block, ...]:
    """Return the blocks of a finished answer that can be sent again.

    A call of a server tool that was cut off never gets its result, and the API refuses it. Next to a call of the
    client's tools (``tool_use``), its result comes with the next answer.

    >>> settled([{"type": "server_tool_use", "id": "s1"}], "max_tokens")
    ()
    """
    if stop_reason == "tool_use":
        return tuple(blocks)
    answered = [block["tool_use_id"] for block in blocks if "tool_use_id" in block]
    return tuple(block for block in blocks if block["type"] not in _SERVER_CALLS or block.get("id") in answered)


def container_of(history: Sequence[Message]) -> str | None:
    """Return the id of the newest container in a transcript, or None.

    >>> container_of([]) is None
    True
    """
    for message in reversed(history):
        data: Mapping[str, Any] = message.provider_data or {}
        if isinstance(data.get("container"), str):
            return str(data["container"])
    return None


def marks(blocks: object) -> int:
    """Return how many marks for the cache blocks have, at any depth that the API looks into.

    >>> marks([{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "b"}])
    1
    """
    if not isinstance(blocks, list | tuple):
        return 0
    return sum(
        (block.get("cache_control") is not None) + marks(block.get("content")) + marks(_source_of(block).get("content"))
        for block in blocks
        if isinstance(block, Mapping)
    )


def _append(messages: list[dict[str, Any]], role: Role, blocks: list[dict[str, Any]]) -> None:
    if not messages and role != "user":
        messages.append({"role": "user", "content": [dict(text_block(LEFT_OUT))]})
    if messages and messages[-1]["role"] == role:
        messages[-1] = {"role": role, "content": messages[-1]["content"] + blocks}
    else:
        messages.append({"role": role, "content": blocks})


def _hear(messages: list[dict[str, Any]], heard: Sequence[list[dict[str, Any]]]) -> None:
    """Append what the user said between two answers, after one result for each call of the answer before it."""
    before = messages[-1]["content"] if messages else []
    calls = [block["id"] for block in before if block["type"] == "tool_use"]
    if blocks := _answered(heard, calls):
        _append(messages, "user", blocks)


def _answered(heard: Sequence[list[dict[str, Any]]], calls: Sequence[str]) -> list[dict[str, Any]]:
    results: dict[str, dict[str, Any]] = {}
    others: list[dict[str, Any]] = []
    are_open = True
    for blocks in heard:
        for block in blocks:
            call = str(block.get("tool_use_id"))
            if block["type"] != "tool_result":
                others.append(block)
            elif not are_open or call not in calls:
                others.append(_told(block))
            else:
                earlier = results.get(call)
                if earlier is not None and not _is_same(earlier, block):
                    others.append(_told(earlier))
                results[call] = block
        # A message with more than results was answered by its own turn, and the calls with it.
        are_open = are_open and all(block["type"] == "tool_result" for block in blocks)
    return [*(results.get(call) or _not_answered(call) for call in calls), *others]


def _is_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return _cleaned(one, keep_marks=False) == _cleaned(other, keep_marks=False)


def _told(result: Block) -> dict[str, Any]:
    return dict(text_block(plain(result)))


def _not_answered(call: str) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": call, "is_error": True, "content": NO_RESULT}


def _sendable(blocks: Iterable[Block], *, keep_marks: bool) -> list[dict[str, Any]]:
    return [well_formed(_cleaned(block, keep_marks=keep_marks)) for block in blocks if not _is_blank(block)]


def _without_last_thoughts(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    while blocks and blocks[-1]["type"] in _THOUGHTS:
        blocks.pop()
    return blocks


def _cleaned(block: Block, *, keep_marks: bool) -> dict[str, Any]:
    """Return a block without blank texts inside, and without marks unless they are kept."""
    clean = {name: value for name, value in block.items() if keep_marks or name != "cache_control"}
    source = _source_of(block)
    if block["type"] == "tool_result":
        clean["content"] = _cleaned_content(block.get("content"), NO_OUTPUT, keep_marks=keep_marks)
    elif block["type"] == "search_result":
        clean["content"] = _cleaned_content(block.get("content"), EMPTY, keep_marks=keep_marks)
    elif block["type"] == "document" and source.get("type") == "content":
        content = _cleaned_content(source.get("content"), EMPTY, keep_marks=keep_marks)
        clean["source"] = {**source, "content": content}
    elif block["type"] == "document" and source.get("type") == "text" and not str(source.get("data", "")).strip():
        clean["source"] = {**source, "data": EMPTY}
    return clean


def _cleaned_content(content: object, empty: str, *, keep_marks: bool) -> Any:
    if isinstance(content, str):
        return content if content.strip() else empty
    if not isinstance(content, list | tuple):
        return empty if content is None else content
    blocks = [
        _cleaned(inner, keep_marks=keep_marks) if isinstance(inner, Mapping) and "type" in inner else inner
        for inner in content
        if not (isinstance(inner, Mapping) and _is_blank(inner))
    ]
    return blocks or [dict(text_block(empty))]


def _source_of(block: Mapping[str, Any]) -> Mapping[str, Any]:
    source = block.get("source")
    return source if isinstance(source, Mapping) else {}


def _is_blank(block: Mapping[str, Any]) -> bool:
    return block.get("type") == "text" and not str(block.get("text") or "").strip()
