"""An answer of the Messages API, put together from the events it is streamed in: pure, no I/O.

The events are plain JSON objects. Gateways that speak the Messages API nearly leave fields out or send null, so every
field is read as if it might be missing. An event without a field that it needs is :class:`Unreadable`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from fsm.content import Block
from fsm.events import NAME_LENGTH, Event, TextDelta, ToolUse

__all__ = ["Answer", "Unreadable"]

_INPUT = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})
"""Blocks whose arguments are streamed as pieces of JSON."""

_CUT_OFF = frozenset({"max_tokens", "model_context_window_exceeded", "refusal"})
"""Stop reasons that may leave the arguments of a call in the middle."""

_FIRST = {"text": "text_delta", "thinking": "thinking_delta", "partial_json": "input_json_delta"}


class Unreadable(ValueError):
    """The answer is not one that can be told or sent again."""


class Answer:
    """One answer.

    Attributes:
        has_begun: whether the API has accepted the request: something of an answer came.
        is_whole: whether all of it came.

    >>> answer = Answer()
    >>> answer.feed({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi."}})
    (TextDelta(text='Hi.'),)
    >>> answer.blocks
    [{'type': 'text', 'text': 'Hi.'}]
    """

    def __init__(self) -> None:
        self.has_begun = False
        self.is_whole = False
        self._message: dict[str, Any] = {}
        self._blocks: list[dict[str, Any]] = []
        self._places: dict[object, int] = {}
        self._json: dict[int, str] = {}
        self._open: set[int] = set()
        self._cut_off: set[int] = set()

    @property
    def blocks(self) -> list[Block]:
        """The blocks as the API sent them; a call whose arguments are not whole is left out."""
        return [block for place, block in enumerate(self._blocks) if place not in self._cut_off]

    @property
    def message(self) -> dict[str, Any]:
        """The whole message."""
        return {**self._message, "content": self.blocks}

    @property
    def id(self) -> str | None:
        """The id of the message, if it has one that can name a session."""
        return _name(self._message.get("id"))

    @property
    def stop_reason(self) -> str | None:
        """Why the model stopped, if that is said."""
        return _name(self._message.get("stop_reason"))

    @property
    def usage(self) -> dict[str, Any]:
        """The token counts; empty if there are none that can be written as JSON."""
        usage = _object(self._message.get("usage"))
        try:
            json.dumps(usage, allow_nan=False)
        except ValueError:
            return {}
        return usage

    @property
    def container(self) -> str | None:
        """The id of the container that the answer was made in, or None."""
        return _name(_object(self._message.get("container")).get("id"))

    def feed(self, event: object) -> tuple[Event, ...]:
        """Take the next event of the stream.

        Returns:
            The events for the caller.

        Raises:
            Unreadable: it is not an event of an answer.
        """
        if not isinstance(event, Mapping) or event.get("type") == "error":
            raise Unreadable("an event is not of an answer")
        match event.get("type"):
            case "message_start":
                return self._begin(event.get("message"))
            case "content_block_start":
                return self._start(event.get("index"), event.get("content_block"))
            case "content_block_delta":
                return self._delta(event.get("index"), _object(event.get("delta")))
            case "content_block_stop":
                place = self._place(event.get("index"))
                return () if place is None else self._stop(place)
            case "message_delta":
                self._amend(event)
            case "message_stop":
                return self.end()
        return ()

    def end(self) -> tuple[Event, ...]:
        """End the answer after its last event; it is whole if it has a stop reason or a ``message_stop``.

        Returns:
            The tool calls that were not handed out yet.

        Raises:
            Unreadable: a call of a tool is broken.
        """
        self.is_whole = True
        told = tuple(event for place in sorted(self._open) for event in self._stop(place))
        is_broken = any(self._blocks[place].get("type") == "tool_use" for place in self._cut_off)
        if is_broken and self.stop_reason not in _CUT_OFF:
            raise Unreadable("the arguments of a call are broken")
        return told

    def _begin(self, message: object) -> tuple[Event, ...]:
        self.has_begun = True
        self._message = {**_object(message), **self._message}
        content = self._message.pop("content", None)
        if not isinstance(content, Sequence) or isinstance(content, str):
            return ()
        return tuple(event for block in content for event in self._start(None, block))

    def _start(self, index: object, block: object) -> tuple[Event, ...]:
        if not isinstance(block, Mapping) or not isinstance(block.get("type"), str):
            return ()
        self.has_begun = True
        place = len(self._blocks)
        self._blocks.append(dict(block))
        self._open.add(place)
        if isinstance(index, int):
            self._places[index] = place
        if block["type"] == "text":
            self._blocks[place]["text"] = ""
            return self._say(place, block.get("text"))
        return ()

    def _delta(self, index: object, delta: Mapping[str, Any]) -> tuple[Event, ...]:
        self.has_begun = True
        kind = delta.get("type") or next((_FIRST[name] for name in _FIRST if name in delta), None)
        if kind == "text_delta":
            return self._say(self._place_of(index, "text"), delta.get("text"))
        if kind == "thinking_delta":
            block = self._blocks[self._place_of(index, "thinking")]
            block["thinking"] = f"{block.get('thinking') or ''}{delta.get('thinking') or ''}"
            return ()
        place = self._place(index)
        if place is not None:
            self._change(place, kind, delta)
        return ()

    def _change(self, place: int, kind: object, delta: Mapping[str, Any]) -> None:
        block = self._blocks[place]
        if kind == "input_json_delta":
            self._json[place] = self._json.get(place, "") + str(delta.get("partial_json") or "")
        elif kind == "signature_delta" and block.get("type") == "thinking":
            block["signature"] = delta.get("signature")
        elif kind == "citations_delta" and block.get("type") == "text":
            block["citations"] = [*(block.get("citations") or ()), delta.get("citation")]
        elif kind == "compaction_delta" and block.get("type") == "compaction":
            block.update({name: value for name, value in delta.items() if name != "type"})

    def _say(self, place: int, text: object) -> tuple[Event, ...]:
        if not isinstance(text, str) or not text:
            return ()
        self._blocks[place]["text"] += text
        return (TextDelta(text),)

    def _stop(self, place: int) -> tuple[Event, ...]:
        self._open.discard(place)
        block = self._blocks[place]
        if block.get("type") not in _INPUT:
            return ()
        arguments = _arguments(self._json.pop(place, ""), block.get("input"))
        if arguments is None:
            self._cut_off.add(place)
            return ()
        block["input"] = arguments
        if block["type"] != "tool_use":
            return ()
        call, name = _name(block.get("id")), _name(block.get("name"))
        if call is None or name is None:
            raise Unreadable("a call of a tool has no id or no name")
        return (ToolUse(call, name, arguments),)

    def _amend(self, event: Mapping[str, Any]) -> None:
        """Take the fields that are known only at the end; counts are totals, and null changes nothing."""
        self.has_begun = True
        more = {name: value for name, value in event.items() if name not in {"type", "delta", "usage"}}
        more.update(_object(event.get("delta")))
        self._message.update({name: value for name, value in more.items() if value is not None})
        counts = {name: value for name, value in _object(event.get("usage")).items() if value is not None}
        if counts:
            self._message["usage"] = {**self.usage, **counts}

    def _place(self, index: object) -> int | None:
        """Return the position of the block with an index, or of the newest block if the event has no index."""
        if isinstance(index, int):
            return self._places.get(index)
        return len(self._blocks) - 1 if self._blocks else None

    def _place_of(self, index: object, kind: str) -> int:
        """Return the same for a block of this kind, which is begun if nobody has begun it."""
        place = self._place(index)
        if place is None or self._blocks[place].get("type") != kind:
            place = len(self._blocks)
            self._start(index, {"type": kind, kind: ""})
        return place


def _object(value: object) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _name(value: object) -> str | None:
    """Return a text that can be a name in a result."""
    if not isinstance(value, str) or not 1 <= len(value) <= NAME_LENGTH or "\0" in value:
        return None
    return value if value.isascii() or value.encode("utf-8", "replace").decode() == value else None


def _arguments(written: str, given: object) -> dict[str, Any] | None:
    """Return the arguments of a call, or None if they are not whole; ``max_tokens`` cuts them off anywhere."""
    if not written.strip():
        return _object(given)
    try:
        arguments = json.loads(written, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return arguments if isinstance(arguments, dict) else None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
