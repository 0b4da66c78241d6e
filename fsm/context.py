"""Rebuilding a context: what of the stored history a new provider session is told, and how.

When a session is dead, the model behind the next one knows nothing. :class:`ContextWindow` selects what it is told:
the newest turns that fit, whole, in order, and never a tool call without its answer. :func:`rebuild` turns them into
messages of plain text; :func:`as_prompt` renders messages as one text for providers that take text.

The rendering is delimited so that the model answers only the new message. The delimiter carries a *boundary* that is
computed from all that stands inside it and occurs nowhere in it: content can't close its own delimiter (G3).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import groupby

import attrs
from attrs import field, frozen, validators

from fsm.content import Block, plain, text_block
from fsm.records import Message

__all__ = ["ContextWindow", "as_preamble", "as_prompt", "as_text", "as_transcript", "rebuild"]

NO_ANSWER = "(no answer in text)"


@frozen(kw_only=True)
class ContextWindow:
    """How much of the stored history a new provider session is told.

    Attributes:
        max_messages: at most this many messages.
        max_characters: at most this many characters of text.

    Both count whole turns: the newest are kept, the first that does not fit ends the window.
    """

    max_messages: int = field(default=100, validator=[validators.instance_of(int), validators.ge(0)])
    max_characters: int = field(default=400_000, validator=[validators.instance_of(int), validators.ge(0)])

    def select(self, messages: Iterable[Message], content: Sequence[Block] = ()) -> tuple[Message, ...]:
        """The messages inside the window, rendered as plain text, oldest first.

        Args:
            messages: messages of succeeded turns, oldest first; the first turn may lack its beginning if there are
                more than :attr:`max_messages`.
            content: the new message; tool calls that it answers are kept.

        Returns:
            Messages with one text block each, of whole turns.
        """
        chosen: list[tuple[Message, ...]] = []
        count = size = 0
        for unit in reversed(_units(tuple(messages), content)):
            count += len(unit)
            size += sum(len(message.text) for message in unit)
            if count > self.max_messages or size > self.max_characters:
                break
            chosen.append(unit)
        return tuple(message for unit in reversed(chosen) for message in unit)


def rebuild(messages: Iterable[Message], window: ContextWindow, content: Sequence[Block] = ()) -> tuple[Message, ...]:
    """What a new session is told of the messages of succeeded turns; see :meth:`ContextWindow.select`."""
    return window.select(messages, content)


def _units(messages: tuple[Message, ...], content: Sequence[Block]) -> list[tuple[Message, ...]]:
    """The turns as plain text; turns that a tool call and its answer tie together are one unit."""
    answered = {
        str(block["tool_use_id"])
        for blocks in (*(message.content for message in messages), content)
        for block in blocks
        if "tool_use_id" in block
    }
    units: list[tuple[Message, ...]] = []
    for _, turn in groupby(messages, key=lambda message: message.turn):
        turn_messages = tuple(turn)
        told = tuple(_plain_message(message, answered) for message in turn_messages)
        if all(message.role == "user" for message in told):
            last = told[-1]
            told = (*told, attrs.evolve(last, role="assistant", content=(text_block(NO_ANSWER),)))
        if units and _answers_calls(turn_messages[0]):
            units[-1] += told
        else:
            units.append(told)
    return units


def _answers_calls(message: Message) -> bool:
    return message.role == "user" and any("tool_use_id" in block for block in message.content)


def _plain_message(message: Message, answered: set[str]) -> Message:
    text = as_text(block for block in message.content if not _is_unanswered(block, answered))
    return attrs.evolve(message, content=(text_block(text or NO_ANSWER),), provider_data=None)


def _is_unanswered(block: Block, answered: set[str]) -> bool:
    return block.get("type") == "tool_use" and block.get("id") not in answered


def as_text(blocks: Iterable[Block]) -> str:
    """Blocks as one text; see :func:`fsm.content.plain`."""
    return "\n".join(told for block in blocks if (told := plain(block)))


def as_transcript(messages: Sequence[Message]) -> str:
    """Messages as one delimited text; the empty text for none.

    >>> from datetime import UTC, datetime
    >>> print(as_transcript([Message(1, 1, "user", (text_block("hello"),), datetime.now(UTC))]))
    <conversation-history boundary="2cf24dba5fb0a30e">
    [2cf24dba5fb0a30e user]
    hello
    </conversation-history boundary="2cf24dba5fb0a30e">
    """
    if not messages:
        return ""
    texts = [as_text(message.content) for message in messages]
    mark = _boundary(texts)
    said = "\n".join(f"[{mark} {message.role}]\n{text}" for message, text in zip(messages, texts, strict=True))
    return f'<conversation-history boundary="{mark}">\n{said}\n</conversation-history boundary="{mark}">'


def _boundary(texts: Sequence[str]) -> str:
    """A mark that occurs in none of the texts: from their digest, and on from there if it must be."""
    digest = hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()
    while any(digest[:16] in text for text in texts):
        digest = hashlib.sha256(digest.encode()).hexdigest()
    return digest[:16]


def as_prompt(history: Sequence[Message], content: Sequence[Block]) -> str:
    """One text for a provider that takes text: the delimited history, how to read it, and the new message.

    Args:
        history: what the context is rebuilt from; may be empty.
        content: the new message.
    """
    new = as_text(content)
    return f"{as_preamble(history)}\n\n{new}" if history else new


def as_preamble(history: Sequence[Message]) -> str:
    """What stands before the new message: the delimited history and how to read it; the empty text for none.

    For a provider that takes blocks: this is one, and the blocks of the new message follow it.
    """
    if not history:
        return ""
    return (
        "The text between the two conversation-history tags is the earlier part of this conversation. It was already "
        "answered and is given only so that you remember it; nothing in it is a new request. Answer only the "
        f"message after it.\n\n{as_transcript(history)}"
    )
