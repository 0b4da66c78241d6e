"""A turn while it runs, without I/O: events in, outcome out.

:class:`RunningTurn` is fed the events of a provider one by one.

* It refuses everything but events, and every event after the result.
* All text can be sent as UTF-8. A surrogate pair that was split over two events is joined, and a lone half becomes
  U+FFFD.
* It keeps the answer in order, ready to be stored, also if the turn is cut off.
* It decides whether to ask again within the turn (G11). It does so in a new session if the resumed one is dead, or
  with half of the history if a new session refused it for its size. It never does so after anything was handed to the
  caller.

Batch is stream read to its end. Both use this class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from attrs import field, frozen

from fsm._core.table import State, Trigger
from fsm.content import Block, text_block, text_of, well_formed
from fsm.context import narrower, size_of
from fsm.errors import ProviderError
from fsm.events import TOO_LARGE, Event, Result, TextDelta, ToolResult, ToolUse
from fsm.records import Role, TurnStatus
from fsm.reply import Reply

__all__ = ["Answer", "RunningTurn", "Said"]

NARROWINGS = 4
"""How often one turn may ask again with less of the history (G11)."""

Said: TypeAlias = tuple[Role, tuple[Block, ...], Mapping[str, Any] | None]
"""One message to store: its role, its blocks, and the provider's own data or None."""


@frozen
class Answer:
    """The answer of the AI in a turn, ready to be stored.

    Attributes:
        messages: the messages after the user's own.
        result: its result; None for a turn that was cut off.
        healed: whether a dead session was replaced within the turn.
    """

    messages: tuple[Said, ...] = field(default=(), hash=False)
    result: Result | None = None
    healed: bool = False


class RunningTurn:
    """One turn while it runs.

    Args:
        key: the conversation.
        number: the turn's number.
        resumed: whether the request resumes a provider session.
        heal: whether a dead session may be replaced within the turn.

    Attributes:
        told: the characters of history in the newest request to a new session; None if that request resumed one.
        told_at_most: the most characters of history in the newest request, if an earlier one was refused for its size.

    >>> turn = RunningTurn("ticket-42", 1)
    >>> turn.feed(TextDelta("Hello"))
    [TextDelta(text='Hello')]
    >>> _ = turn.feed(Result(session_id="s-1"))
    >>> turn.text, turn.done, turn.should_heal
    ('Hello', True, False)
    """

    def __init__(self, key: str, number: int, *, resumed: bool = False, heal: bool = True) -> None:
        self.key = key
        self.number = number
        self.result: Result | None = None
        self.healed = False
        self.told: int | None = None
        self.told_at_most: int | None = None
        self._may_heal = resumed and heal
        self._narrowed = 0
        self._reply: Reply | None = None
        self._said: list[tuple[Role, list[Block]]] = []
        self._deltas: list[str] = []
        self._half = ""

    @property
    def done(self) -> bool:
        """Whether the result has come."""
        return self.result is not None

    @property
    def should_heal(self) -> bool:
        """Whether the dead session that the result reports is to be replaced within this turn (G11)."""
        return self._may_heal and self._is_silent and self.result is not None and self.result.trigger is Trigger.EXPIRED

    @property
    def narrower(self) -> int | None:
        """The characters of history to tell instead, if a new session refused the request for its size; else None."""
        is_refused = self.result is not None and self.result.subtype == TOO_LARGE
        if self.told is None or not is_refused or not self._is_silent or self._narrowed >= NARROWINGS:
            return None
        return narrower(self.told)

    def fitting(self, content: Sequence[Block]) -> int | None:
        """Return the most characters that a new session takes, to be remembered with the conversation.

        Args:
            content: the user's message.

        Returns:
            The characters of history and message together. None if no request was refused for its size, or if the
            message is larger than the history, so that the message may be at fault.
        """
        if self.told is None or self.result is None:
            return None
        if self.result.subtype != TOO_LARGE:
            return self.told_at_most and self.told_at_most + size_of(content)
        less = narrower(self.told)
        return less + size_of(content) if less is not None and size_of(content) <= self.told else None

    @property
    def _is_silent(self) -> bool:
        """Whether nothing was handed to the caller."""
        return not (self._said or self._deltas or self._half)

    @property
    def reply(self) -> Reply:
        """The reply, once the turn has ended.

        Raises:
            RuntimeError: it has not ended; read its events to the end first.
        """
        if self._reply is None:
            raise RuntimeError(f"turn {self.number} of {self.key!r} has no reply yet; read its events to the end")
        return self._reply

    @property
    def text(self) -> str:
        """The text so far."""
        said = "".join(text_of(blocks) for role, blocks in self._said if role == "assistant")
        said += "".join(self._deltas)
        if not said and self.result is not None and self.result.trigger is Trigger.SUCCEEDED:
            return self.result.text or text_of(self.result.content or ())
        return said

    def feed(self, event: Event | object) -> list[Event]:
        """Take the next event of the provider.

        Returns:
            The events for the caller; none for half a surrogate pair, whose other half is still to come.

        Raises:
            ProviderError: it is not an event, or it comes after the result.
        """
        if self.result is not None:
            raise ProviderError(
                f"the provider yielded {type(event).__name__} after its result; a result ends a turn",
                self.key,
            )
        if isinstance(event, TextDelta):
            return self._take_text(event)
        if not isinstance(event, ToolUse | ToolResult | Result):
            raise ProviderError(
                f"the provider yielded {type(event).__name__}, which is not an event; "
                "yield TextDelta, ToolUse, ToolResult or Result",
                self.key,
            )
        before = self._take_half()
        match event:
            case ToolUse():
                block = {"type": "tool_use", "id": event.id, "name": event.name, "input": dict(event.input)}
                self._add("assistant", block)
            case ToolResult():
                self._add("user", _tool_result(event))
            case Result():
                self.result = event
        return [*before, event]

    def _take_text(self, event: TextDelta) -> list[Event]:
        """Return the text that can be sent; the first half of a surrogate pair waits for the second."""
        text, self._half = self._half + event.text, ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        text = well_formed(text)
        self._deltas += [text] if text else []
        if text == event.text:
            return [event]
        return [TextDelta(text)] if text else []

    def _take_half(self) -> list[Event]:
        """Return U+FFFD as an event if a half of a surrogate pair still waits for the other half; nothing if none
        does."""
        half, self._half = well_formed(self._half), ""
        if not half:
            return []
        self._deltas.append(half)
        return [TextDelta(half)]

    def heal(self) -> None:
        """Forget the result of the dead session, before the same turn is asked again in a new one."""
        self.result = None
        self.healed = True
        self._may_heal = False

    def narrow(self, characters: int) -> None:
        """Forget the refusal for size, before the turn is asked again with at most so many characters of history."""
        self.result = None
        self.told_at_most = characters
        self._narrowed += 1

    def answer(self) -> Answer:
        """Return the answer so far, as messages to be stored."""
        self._take_half()
        self._flush()
        result = self.result
        said: tuple[Said, ...]
        if result is not None and result.content is not None:
            said = (("assistant", tuple(result.content), result.provider_data),) if result.content else ()
        else:
            said = tuple((role, tuple(blocks), None) for role, blocks in self._said)
            if not said and self.text:
                said = (("assistant", (text_block(self.text),), None),)
            if said and result is not None and result.provider_data is not None:
                role, blocks, _ = said[-1]
                said = (*said[:-1], (role, blocks, result.provider_data))
        return Answer(said, result, self.healed)

    def end(self, state: State, status: TurnStatus) -> Reply:
        """End the turn, which left the conversation in this state; return the reply."""
        said = self.answer().messages
        self._reply = Reply(
            key=self.key,
            turn=self.number,
            text=self.text,
            state=state,
            status=status,
            result=self.result,
            healed=self.healed,
            content=tuple(block for role, blocks, _ in said if role == "assistant" for block in blocks),
        )
        return self._reply

    def _add(self, role: Role, block: Block) -> None:
        self._flush()
        if not self._said or self._said[-1][0] != role:
            self._said.append((role, []))
        self._said[-1][1].append(block)

    def _flush(self) -> None:
        """Join the text deltas since the last block into one block."""
        if text := "".join(self._deltas):
            self._deltas.clear()
            self._add("assistant", text_block(text))


def _tool_result(event: ToolResult) -> Block:
    block = {"type": "tool_result", "tool_use_id": event.tool_use_id, "content": event.content}
    return {**block, "is_error": True} if event.is_error else block
