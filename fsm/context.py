"""Rebuilding a context: the part of the stored history that a new provider session is told, and its form.

When a session is dead, the model behind the next one knows nothing. :class:`ContextWindow` selects the newest turns
that fit, in order, and never a tool result without its call. :func:`rebuild` makes messages of plain text from them.
:func:`as_prompt` renders messages as one text, for providers that take text.

Two guarantees hold for a rebuilt context:

* It is never empty while there is a message that fits in part (G22). A turn that is too large is cut inside.
* It contains every stored tool result, also of a turn that failed (:func:`with_results`). For a call without a stored
  result it says that none was recorded and that the tool may have run (G23).

The rendering is delimited so that the model answers only the new message. The delimiter carries a *boundary* that is
computed from the content and occurs nowhere in it, so content can't close the delimiter (G3).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import dropwhile, groupby
from typing import Any

import attrs
from attrs import field, frozen

from fsm._core.shortening import Unit, cut
from fsm.content import NO_ANSWER, NO_RESULT, Block, plain, text_block
from fsm.errors import InvalidInput
from fsm.records import Message

__all__ = ["ContextWindow", "as_preamble", "as_prompt", "as_text", "as_transcript"]
__all__ += ["from_beginning", "has_beginning", "narrower", "rebuild", "size_of", "with_results"]

FLOOR = 100
"""The smallest window, in characters. If even that is too large, the new message is at fault."""


def _is_size(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if type(value) is not int or value < 0:
        raise InvalidInput(f"{attribute.name} is {value!r}; it must be a whole number from 0")


@frozen(kw_only=True)
class ContextWindow:
    """The part of the stored history that a new provider session is told.

    The newest turns are kept whole, and the first that does not fit ends the window. If the newest turn alone is larger
    than the window, it is cut inside. Its first message and its newest part stay, long texts are shortened, and a mark
    says so.

    Attributes:
        max_messages: the most messages.
        max_characters: the most characters of text.

    Raises:
        InvalidInput: one of them is not a whole number from 0.
    """

    max_messages: int = field(default=100, validator=_is_size)
    max_characters: int = field(default=400_000, validator=_is_size)

    def select(self, messages: Iterable[Message], content: Sequence[Block] = ()) -> tuple[Message, ...]:
        """Return the messages inside the window, as plain text, oldest first.

        Args:
            messages: the messages to select from, oldest first. The first turn may lack its beginning if there are more
                than :attr:`max_messages`.
            content: the new message; tool calls that it answers are kept.

        Returns:
            Messages with one text block each.
        """
        chosen: list[Unit] = []
        count = size = 0
        for whole in reversed(_units(tuple(messages), content)):
            unit = cut(whole, self.max_messages, self.max_characters)
            count += len(unit)
            size += sum(len(message.text) for message in unit)
            if not unit or count > self.max_messages or size > self.max_characters:
                break
            chosen.append(unit)
        return tuple(message for unit in reversed(chosen) for message in unit)

    def narrowed(self, characters: int) -> ContextWindow:
        """Return this window with at most so many characters."""
        return attrs.evolve(self, max_characters=min(self.max_characters, characters))

    def remembered(self, fitted: int | None, content: Sequence[Block]) -> ContextWindow:
        """Return the window for a new session, if an earlier one was refused for its size (G22).

        Args:
            fitted: the most characters to ask with, history and message together; None if none was refused.
            content: the message that opens the session.
        """
        return self if fitted is None else self.narrowed(max(FLOOR, fitted - size_of(content)))


def narrower(told: int) -> int | None:
    """Return the characters of history to tell a new session after one was refused for its size: half as many.

    Args:
        told: the characters of history in the refused request.

    Returns:
        The number, or None if the smallest window was refused.

    >>> narrower(400_000), narrower(150), narrower(100)
    (200000, 100, None)
    """
    return None if told <= FLOOR else max(told // 2, FLOOR)


def rebuild(messages: Iterable[Message], window: ContextWindow, content: Sequence[Block] = ()) -> tuple[Message, ...]:
    """Return the messages that a new session is told; see :meth:`ContextWindow.select`."""
    return window.select(messages, content)


def with_results(
    told: Sequence[Message], unheard: Iterable[Message], content: Sequence[Block] = ()
) -> tuple[Message, ...]:
    """Return messages of a conversation, with the tool results of turns that did not succeed among them (G23).

    Args:
        told: messages of succeeded turns, oldest first.
        unheard: user messages with tool results of turns that ended otherwise, oldest first. Only their results are
            taken, without those that the user sent again right afterwards.
        content: the new message.

    Returns:
        The messages, in the order of their numbers.
    """
    newest_first: list[Message] = []
    sent_again = _results_in(content)
    succeeded = {message.number for message in told}
    for message in sorted((*told, *unheard), key=lambda message: message.number, reverse=True):
        results = _results_in(message.content)
        if message.number in succeeded:
            newest_first.append(message)
            sent_again = sent_again | results if message.role == "user" else frozenset()
        elif results - sent_again:
            blocks = tuple(block for block in message.content if _answers(block) - sent_again)
            newest_first.append(attrs.evolve(message, content=blocks))
            sent_again |= results
    return tuple(reversed(newest_first))


def _answers(block: Block) -> frozenset[str]:
    return frozenset({str(block["tool_use_id"])}) if "tool_use_id" in block else frozenset()


def _results_in(blocks: Iterable[Block]) -> frozenset[str]:
    """Return the ids of the calls that these blocks answer."""
    return frozenset().union(*map(_answers, blocks))


def has_beginning(messages: Iterable[Message]) -> bool:
    """Return whether one of these messages is the first of a unit: a user message that does not answer a call."""
    return any(map(_is_beginning, messages))


def from_beginning(messages: Sequence[Message]) -> Sequence[Message]:
    """Return these messages without the rest of a turn that began before them; see :func:`has_beginning`."""
    return tuple(dropwhile(lambda message: not _is_beginning(message), messages))


def _is_beginning(message: Message) -> bool:
    return message.role == "user" and not _results_in(message.content)


def _units(messages: tuple[Message, ...], content: Sequence[Block]) -> list[Unit]:
    """Return the turns as plain text; turns that share a tool call and its result are one unit."""
    answered = _results_in(content).union(*(_results_in(message.content) for message in messages))
    units: list[Unit] = []
    for _, turn in groupby(messages, key=lambda message: message.turn):
        turn_messages = tuple(turn)
        told = tuple(_plain_message(message, answered) for message in turn_messages)
        if all(message.role == "user" for message in told):
            last = told[-1]
            told = (*told, attrs.evolve(last, role="assistant", content=(text_block(NO_ANSWER),)))
        if units and turn_messages[0].role == "user" and _results_in(turn_messages[0].content):
            units[-1] += told
        else:
            units.append(told)
    return units


def _plain_message(message: Message, answered: frozenset[str]) -> Message:
    told = [_plain_block(block, answered) for block in message.content]
    return attrs.evolve(message, content=(text_block("\n".join(filter(None, told)) or NO_ANSWER),), provider_data=None)


def _plain_block(block: Block, answered: frozenset[str]) -> str:
    if block.get("type") == "tool_use" and str(block.get("id")) not in answered:
        return f"{plain(block)}\n[{NO_RESULT}]"
    return plain(block)


def size_of(blocks: Iterable[Block]) -> int:
    """Return the number of characters of blocks as text."""
    return len(as_text(blocks))


def as_text(blocks: Iterable[Block]) -> str:
    """Return blocks as one text; see :func:`fsm.content.plain`."""
    return "\n".join(told for block in blocks if (told := plain(block)))


def as_transcript(messages: Sequence[Message]) -> str:
    """Return messages as one delimited text; the empty text for none.

    >>> from datetime import UTC, datetime
    >>> hello = (text_block("hello"),)
    >>> said = Message(number=1, turn=1, role="user", content=hello, created_at=datetime.now(UTC))
    >>> print(as_transcript([said]))
    <conversation-history boundary="2cf24dba5fb0a30e">
    [2cf24dba5fb0a30e user]
    hello
    </conversation-history boundary="2cf24dba5fb0a30e">
    """
    if not messages:
        return ""
    texts = [as_text(message.content) for message in messages]
    mark = boundary(texts)
    said = "\n".join(f"[{mark} {message.role}]\n{text}" for message, text in zip(messages, texts, strict=True))
    return f'<conversation-history boundary="{mark}">\n{said}\n</conversation-history boundary="{mark}">'


def boundary(texts: Sequence[str]) -> str:
    """Return a mark that occurs in none of the texts, made from their digest."""
    digest = hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()
    while any(digest[:16] in text for text in texts):
        digest = hashlib.sha256(digest.encode()).hexdigest()
    return digest[:16]


def as_prompt(history: Sequence[Message], content: Sequence[Block]) -> str:
    """Return one text for a provider that takes text: the delimited history, how to read it, and the new message.

    Args:
        history: the messages of the rebuilt context; may be empty.
        content: the new message.
    """
    new = as_text(content)
    return f"{as_preamble(history)}\n\n{new}" if history else new


def as_preamble(history: Sequence[Message]) -> str:
    """Return the text before the new message: the delimited history and how to read it; the empty text for none.

    For a provider that takes blocks, it is one block, and the blocks of the new message follow it.
    """
    if not history:
        return ""
    return (
        "The text between the two conversation-history tags is the earlier part of this conversation. It was already "
        "answered and is given only so that you remember it; nothing in it is a new request. Answer only the "
        f"message after it.\n\n{as_transcript(history)}"
    )
