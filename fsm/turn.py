"""A turn while it runs, without I/O: events in, outcome out.

:class:`RunningTurn` is fed the events of a provider one by one. It promises that

* nothing but events passes, exactly one result ends them, and nothing follows it;
* what was said is kept in the order in which it was said, ready to be stored, whole or cut off;
* it knows whether a dead session may be healed: the turn resumed a session, handed nothing to its caller yet, and
  was not healed before (G11).

Batch is stream read to its end: both are this one class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from attrs import field, frozen

from fsm.content import Block, text_block, text_of
from fsm.errors import ProviderError, TurnFailed
from fsm.records import Conversation, Message, Role, Turn, TurnStatus
from fsm.results import Event, Result, TextDelta, ToolResult, ToolUse
from fsm.states import State, Trigger

__all__ = ["Answer", "Reply", "RunningTurn", "Said", "stored_reply"]

Said: TypeAlias = tuple[Role, tuple[Block, ...], Mapping[str, Any] | None]
"""One message to be stored: its role, its blocks, and what the provider keeps with it."""


@frozen
class Answer:
    """What the AI said in a turn, ready to be stored.

    Attributes:
        messages: the messages after the user's own.
        result: its result; None for a turn that was cut off.
        healed: whether a dead session was replaced within the turn.
    """

    messages: tuple[Said, ...] = field(default=(), hash=False)
    result: Result | None = None
    healed: bool = False


@frozen
class Reply:
    """What a caller gets for a message.

    Attributes:
        key: the conversation.
        turn: the number of the turn.
        text: the AI's text; of a failed turn, what it said before it failed. Never an error's text.
        state: the conversation's state after the turn.
        status: how the turn ended.
        result: what the AI reported; None if the turn was cut off.
        healed: whether a dead session was replaced within the turn.
        replayed: whether this was stored before and is returned for its idempotency key (G13).
    """

    key: str
    turn: int
    text: str
    state: State
    status: TurnStatus
    result: Result | None = None
    healed: bool = False
    replayed: bool = False

    @property
    def message(self) -> str:
        """One plain sentence about how it went, for the person at the other end."""
        if self.result is None:
            return "The answer was cut off; please send your message again."
        return self.result.message

    def raise_for_error(self) -> Reply:
        """Return the reply itself if its turn succeeded.

        Raises:
            TurnFailed: it did not; ``error.reply`` is this reply.
        """
        if self.status is TurnStatus.SUCCEEDED:
            return self
        how = f"{self.status.value}" if self.result is None else f"{self.status.value} ({self.result.reason})"
        raise TurnFailed(
            f"turn {self.turn} {how}; the conversation is {self.state.value} and takes the next message"
            + (", with another idempotency key" if self.replayed else ""),
            self.key,
            self,
        )


def stored_reply(conversation: Conversation, turn: Turn, messages: Sequence[Message]) -> Reply:
    """The reply of a stored turn, as its caller got it."""
    result = None
    if turn.subtype is not None:
        result = Result(
            subtype=turn.subtype,
            is_error=turn.is_error,
            session_id=turn.session_id,
            errors=turn.errors,
            stop_reason=turn.stop_reason,
            usage=turn.usage,
            cost_usd=turn.cost_usd,
            http_status=turn.http_status,
        )
    return Reply(
        key=conversation.key,
        turn=turn.number,
        text="".join(message.text for message in messages if message.role == "assistant"),
        state=turn.state or conversation.state,
        status=turn.status,
        result=result,
        healed=turn.healed,
        replayed=True,
    )


class RunningTurn:
    """One turn while it runs.

    Args:
        key: the conversation.
        number: the turn's number.
        resumed: whether the request resumes a provider session.
        heal: whether a dead session may be replaced within the turn.

    >>> turn = RunningTurn("ticket-42", 1)
    >>> turn.feed(TextDelta("Hello"))
    >>> turn.feed(Result(session_id="s-1"))
    >>> turn.text, turn.done, turn.should_heal
    ('Hello', True, False)
    """

    def __init__(self, key: str, number: int, *, resumed: bool = False, heal: bool = True) -> None:
        self.key = key
        self.number = number
        self.result: Result | None = None
        self.healed = False
        self._may_heal = resumed and heal
        self._reply: Reply | None = None
        self._said: list[tuple[Role, list[Block]]] = []
        self._deltas: list[str] = []

    @property
    def done(self) -> bool:
        """Whether the result has come."""
        return self.result is not None

    @property
    def should_heal(self) -> bool:
        """Whether the dead session that the result reports is to be replaced within this turn (G11)."""
        return (
            self._may_heal
            and not self._said
            and not self._deltas
            and self.result is not None
            and self.result.trigger is Trigger.EXPIRED
        )

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

    def feed(self, event: Event | object) -> None:
        """Take the next thing that the provider yielded.

        Raises:
            ProviderError: it is no event, or it comes after the result.
        """
        if self.result is not None:
            raise ProviderError(
                f"the provider yielded {type(event).__name__} after its result; a result ends a turn",
                self.key,
            )
        match event:
            case TextDelta():
                self._deltas.append(event.text)
            case ToolUse():
                self._add(
                    "assistant",
                    {"type": "tool_use", "id": event.id, "name": event.name, "input": dict(event.input)},
                )
            case ToolResult():
                self._add("user", _tool_result(event))
            case Result():
                self.result = event
            case _:
                raise ProviderError(
                    f"the provider yielded {type(event).__name__}, which is no event; "
                    "yield TextDelta, ToolUse, ToolResult or Result",
                    self.key,
                )

    def exhausted(self) -> None:
        """The provider has no more events.

        Raises:
            ProviderError: there was no result among them.
        """
        if self.result is None:
            raise ProviderError("the provider ended without a result; a turn ends with exactly one", self.key)

    def retry(self) -> None:
        """Forget the result of the dead session: the same turn is asked again, in a new one."""
        self.result = None
        self.healed = True
        self._may_heal = False

    def answer(self) -> Answer:
        """What was said so far, as messages to be stored."""
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
        """The turn has ended and left the conversation in this state; make the reply."""
        self._reply = Reply(self.key, self.number, self.text, state, status, self.result, self.healed)
        return self._reply

    def _add(self, role: Role, block: Block) -> None:
        self._flush()
        if not self._said or self._said[-1][0] != role:
            self._said.append((role, []))
        self._said[-1][1].append(block)

    def _flush(self) -> None:
        """Make one block of the text deltas since the last block."""
        if text := "".join(self._deltas):
            self._deltas.clear()
            self._add("assistant", text_block(text))


def _tool_result(event: ToolResult) -> Block:
    block = {"type": "tool_result", "tool_use_id": event.tool_use_id, "content": event.content}
    return {**block, "is_error": True} if event.is_error else block
