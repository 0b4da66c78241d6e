"""The content of messages: text and blocks, checked before anything is stored.

Content is a tuple of *blocks*, JSON objects with a ``type``, in the shape of the Messages API: ``text``, ``image``,
``document``, ``tool_use``, ``tool_result``. A caller may pass plain text instead. Content that passes
:func:`as_blocks` can be stored, read back equal, and sent as UTF-8.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from fsm.errors import InvalidContent

__all__ = ["NO_ANSWER", "NO_RESULT", "Block", "Content", "as_blocks", "plain", "text_block", "text_of", "well_formed"]

NO_ANSWER = "(no answer in text)"
"""The text that stands for an answer without any text."""

NO_RESULT = "no result was recorded; it may have run"
"""The text that stands for the result of a tool call without a stored one: the tool may have run (G23)."""

BLANK = "the text is empty or only white space; providers refuse it"

Block: TypeAlias = Mapping[str, Any]
"""One JSON object with a ``type``."""

Content: TypeAlias = str | Sequence[Block]
"""The content of a message: text, or a list of blocks."""


def text_block(text: str) -> Block:
    """Return a block of plain text.

    >>> text_block("hello")
    {'type': 'text', 'text': 'hello'}
    """
    return {"type": "text", "text": text}


def as_blocks(content: Content, key: str | None = None) -> tuple[Block, ...]:
    """Return the content as a tuple of blocks that can be stored and sent.

    Args:
        content: non-empty text, or a non-empty list of JSON objects, each with a ``type``. Texts of white space
            beside other blocks are left out, since providers refuse them.
        key: the conversation, for the error message.

    Raises:
        InvalidContent: it is empty, of another type, or can't be written as JSON in UTF-8.

    >>> as_blocks("hello")
    ({'type': 'text', 'text': 'hello'},)
    >>> as_blocks([])
    Traceback (most recent call last):
    ...
    fsm.errors.InvalidContent: the content is empty; pass text or a list of blocks
    """
    if isinstance(content, str):
        if not content.strip():
            raise InvalidContent(BLANK, key)
        _check_utf_8(content, key)
        return (text_block(content),)
    given: object = content
    if not isinstance(given, Sequence) or isinstance(given, bytes | bytearray | memoryview):
        raise InvalidContent(f"the content is of type {type(given).__name__}; pass text or a list of blocks", key)
    if not content:
        raise InvalidContent("the content is empty; pass text or a list of blocks", key)
    blocks = [_checked(block, position, key) for position, block in enumerate(content)]
    said = tuple(block for block in blocks if block["type"] != "text" or block["text"].strip())
    if not said:
        raise InvalidContent(BLANK, key)
    return said


def _checked(block: object, position: int, key: str | None) -> Block:
    if not isinstance(block, Mapping) or not isinstance(block.get("type"), str) or not block["type"]:
        raise InvalidContent(
            f"block {position} is no JSON object with a 'type', such as {{'type': 'text', 'text': …}}", key
        )
    if block["type"] == "text":
        if not isinstance(block.get("text"), str):
            raise InvalidContent(f"block {position} is of type 'text' but has no text", key)
        _check_utf_8(block["text"], key)
    try:
        written = json.dumps(dict(block), allow_nan=False, ensure_ascii=False)
        written.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidContent(
            f"block {position} can't be written as JSON in UTF-8 ({type(error).__name__}); "
            "use objects, lists, text, finite numbers, true, false and null",
            key,
        ) from error
    normal: dict[str, Any] = json.loads(written)
    return normal


def _check_utf_8(text: str, key: str | None) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidContent(
            f"the text has a lone surrogate at position {error.start}, so it can't be sent as UTF-8", key
        ) from None


def text_of(blocks: Iterable[Block]) -> str:
    """Return the text of all text blocks, joined.

    >>> text_of([text_block("a"), {"type": "image"}, text_block("b")])
    'ab'
    """
    return "".join(str(block.get("text", "")) for block in blocks if block.get("type") == "text")


def well_formed(value: Any) -> Any:
    """Return a copy of a JSON value whose texts can be sent as UTF-8.

    Adjacent halves of a surrogate pair are joined. A lone half becomes U+FFFD.

    Args:
        value: text, or an object or list that holds texts at any depth.

    >>> well_formed({"path": "caf\\ud83d"})["path"].encode()
    b'caf\\xef\\xbf\\xbd'
    """
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return value
    if isinstance(value, Mapping):
        return {well_formed(name): well_formed(held) for name, held in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(well_formed, value))
    return value


def plain(block: Block) -> str:
    """Return a block as plain text for a model.

    Tool calls and results become words, since an API refuses a call without its result. An image leaves its name, and
    a thinking block leaves nothing.

    >>> plain({"type": "tool_use", "id": "t1", "name": "add", "input": {"a": 1}})
    '[called the tool add with {"a": 1}]'
    >>> plain({"type": "tool_result", "tool_use_id": "t1", "content": "2"})
    '[the tool answered: 2]'
    >>> plain({"type": "image"})
    '[image]'
    """
    kind = block.get("type")
    if kind == "text":
        return str(block.get("text", ""))
    if kind in {"thinking", "redacted_thinking"}:
        return ""
    if kind in {"tool_use", "server_tool_use", "mcp_tool_use"}:
        arguments = json.dumps(block.get("input"), ensure_ascii=False)
        return f"[called the tool {block.get('name')} with {arguments}]"
    if kind == "tool_confirmation":
        why = f": {block['deny_message']}" if block.get("deny_message") else ""
        return f"[the tool call was {'allowed' if block.get('result') == 'allow' else 'denied'}{why}]"
    if "tool_use_id" in block:
        content = block.get("content")
        told = content if isinstance(content, str) else _plain_result(content)
        return f"[the tool {'failed' if block.get('is_error') else 'answered'}: {told}]"
    return f"[{kind}]"


def _plain_result(content: object) -> str:
    if isinstance(content, Sequence) and all(isinstance(part, Mapping) and "type" in part for part in content):
        return "\n".join(plain(part) for part in content)
    return json.dumps(content, ensure_ascii=False)
