"""Shortening turns that are too large for a context window, so that a part of them is always told (G22).

A *unit* is told together: one turn, or several that tool calls and their results connect, as messages of plain text.
The first message of a unit names its subject, and its newest part leads to the next message. Both are kept. A mark
says how much is left out, so that the model does not take a part for the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import attrs

from fsm.content import NO_ANSWER, text_block
from fsm.records import Message

__all__ = ["Unit", "cut", "shortened"]

Unit: TypeAlias = tuple[Message, ...]
"""Messages with one text block each, told together or not at all."""

SHARE = 4
"""The largest part of the window that one text may fill if its unit is too large, so that a pasted book is not all."""


def shortened(text: str, limit: int) -> str:
    """Return the text, or its beginning and end with a mark between them, in at most ``limit`` characters.

    >>> shortened("hello", 5)
    'hello'
    >>> shortened("a" * 500 + "b" * 500, 60)
    'aaaaaaaaaa[… 980 characters are left out here …]bbbbbbbbbb'
    >>> shortened("hello", 3)
    'he…'
    """
    if len(text) <= limit:
        return text
    kept = limit - len(_mark(len(text), "characters"))
    if kept < 2:
        return text[: limit - 1] + "…" if limit else ""
    head, tail = (kept + 1) // 2, kept // 2
    return text[:head] + _mark(len(text) - head - tail, "characters") + text[len(text) - tail :]


def cut(unit: Unit, max_messages: int, max_characters: int) -> Unit:
    """Return the unit if it fits, else the parts of it that fit; nothing if no part does.

    Args:
        unit: at least one message.
        max_messages: the most messages to keep.
        max_characters: the most characters to keep.
    """
    if len(unit) <= max_messages and _size(unit) <= max_characters:
        return unit
    if max_messages < 2 or max_characters < SHARE:
        return ()
    limit = max_characters // SHARE
    short = tuple(_with_text(message, shortened(message.text, limit)) for message in unit)
    if len(short) <= max_messages and _size(short) <= max_characters:
        return short
    return _ends(short, max_messages, max_characters, limit)


def _ends(unit: Unit, max_messages: int, max_characters: int, limit: int) -> Unit:
    """Return the first message and the newest part of a unit; that part begins with an answer of the AI."""
    room = max_characters - limit
    starts = [place for place in range(1, len(unit)) if unit[place].role == "assistant"]
    fitting = [place for place in starts if len(unit) - place < max_messages and _size(unit[place:]) <= room]
    if not fitting:
        said = unit[starts[-1]] if starts else _with_text(attrs.evolve(unit[0], role="assistant"), NO_ANSWER)
        return (_marked(unit[0], len(unit) - 2, limit), _with_text(said, shortened(said.text, limit)))
    return (_marked(unit[0], fitting[0] - 1, limit), *unit[fitting[0] :])


def _marked(first: Message, left_out: int, limit: int) -> Message:
    """Return the first message with a mark after it."""
    if not left_out:
        return first
    mark = "\n" + _mark(left_out, "messages" if left_out > 1 else "message")
    if len(mark) >= limit:
        return _with_text(first, shortened(first.text + "…" * limit, limit))
    return _with_text(first, shortened(first.text, limit - len(mark)) + mark)


def _mark(number: int, things: str) -> str:
    return f"[… {number:,} {things} {'is' if number == 1 else 'are'} left out here …]"


def _with_text(message: Message, text: str) -> Message:
    return message if message.text == text else attrs.evolve(message, content=(text_block(text),))


def _size(messages: Sequence[Message]) -> int:
    return sum(len(message.text) for message in messages)
