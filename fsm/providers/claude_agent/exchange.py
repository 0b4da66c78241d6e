"""One turn with the Claude Agent SDK, without I/O: the SDK's messages and errors in, our events and one result out.

:class:`Exchange` makes every decision of :class:`~fsm.providers.claude_agent.ClaudeAgent`: the input of the CLI, the
events for the caller, the longest silence, the meaning of the result, and whether the session is dead. It promises that

* text is handed out once, whether the CLI streamed it or not, and an error's text never;
* a tool call is handed out only when its arguments are whole; what happens inside a subagent is the inside of a tool;
* a session is called dead only by evidence about it (:mod:`fsm.providers.claude_agent.results`), and named only if
  the CLI
  has stored all of it;
* a message that nobody foresaw is skipped, and never raises.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import uuid4

import attrs

from fsm import Trigger
from fsm.content import Block, text_block
from fsm.context import as_preamble
from fsm.errors import ProviderError
from fsm.events import Event, Result, TextDelta, ToolResult, ToolUse
from fsm.provider import Request
from fsm.providers._anthropic.block_checks import IMAGES, Kind, check_blocks
from fsm.providers.claude_agent import results
from fsm.providers.claude_agent.errors import what_failed
from fsm.providers.claude_agent.notices import Notices

__all__ = ["UNREADABLE", "Exchange", "check_content"]

GRACE = 3.0
"""How long the CLI may take to exit after its last result, in seconds; then the result is handed out anyway."""

UNREADABLE = (AttributeError, LookupError, TypeError, ValueError)
"""Errors of a message that is not as the SDK or this module expects it. Such a message is skipped."""

_TAKEN: Mapping[str, Kind] = {
    "text": Kind(needs=("text",)),
    "image": Kind(
        sources={"base64": Kind(needs=("data", "media_type"), media=IMAGES), "url": Kind(needs=("url",))},
    ),
    "document": Kind(
        sources={
            "base64": Kind(needs=("data", "media_type"), media=("application/pdf",)),
            "text": Kind(needs=("data", "media_type"), media=("text/plain",)),
            "content": Kind(),
            "url": Kind(needs=("url",)),
        }
    ),
    "search_result": Kind(needs=("source", "title")),
}
"""The kinds of block that the CLI passes on to the model. It runs the tools itself: the answer to a call is dropped
without a word."""


def check_content(content: Iterable[Block]) -> None:
    """Refuse what the CLI drops or the API behind it refuses; see
    :func:`~fsm.providers._anthropic.block_checks.check_blocks`.

    >>> check_content([{"type": "tool_result", "tool_use_id": "t1", "content": "3"}])
    Traceback (most recent call last):
    ...
    fsm.errors.InvalidContent: block 0 is of type 'tool_result', which the Claude CLI does not take; send text, ...
    """
    check_blocks(content, _TAKEN, "the Claude CLI")


class Exchange:
    """One turn.

    Args:
        request: what is asked.
        timeout: for how many seconds the CLI may be silent.
        stored: whether the CLI keeps its sessions, so that they can be resumed.

    Attributes:
        notices: what the CLI says beside its results.
        result: the result, once the CLI has reported one; None before. A later one takes its place: the CLI reports
            one more whenever an agent in the background has ended and it has answered that.

    >>> request = Request(key="k", turn=1, session_number=1, content=(text_block("hello"),))
    >>> exchange = Exchange(request, timeout=60)
    >>> exchange.message["message"]
    {'role': 'user', 'content': [{'type': 'text', 'text': 'hello'}]}
    >>> exchange.judge({"subtype": "success", "is_error": True, "api_error_status": 429}).trigger
    <Trigger.FAILED: 'failed'>
    """

    def __init__(self, request: Request, *, timeout: float, stored: bool = True) -> None:
        self.result: Result | None = None
        self._request = request
        self.notices = Notices(request)
        self._uuid = str(uuid4())
        self._resumed = request.session_id
        self._timeout = timeout
        self._stored = stored
        self._streamed: set[str | None] = set()
        self._streaming: str | None = None
        self._speaking: str | None = None
        self._complaint: str | None = None
        self._is_answering = False
        self._unreadable: Exception | None = None

    @property
    def message(self) -> dict[str, Any]:
        """The user's message as the CLI reads it.

        With a rebuilt context it is marked as composed by a program, and delivered as written. In what a person types
        the CLI runs ``/commands`` and shows the model each file mentioned as ``@path``; what stands in the history may
        come from anybody.
        """
        blocks = [dict(block) for block in self._request.content]
        message: dict[str, Any] = {"type": "user", "uuid": self._uuid, "parent_tool_use_id": None, "session_id": ""}
        if self._request.history:
            blocks.insert(0, dict(text_block(as_preamble(self._request.history))))
            message["client_composed"] = True
        return {**message, "message": {"role": "user", "content": blocks}}

    @property
    def is_final(self) -> bool:
        """Whether the CLI has reported its last result: no agent runs that it would answer for."""
        return self.result is not None and not self.notices.agents and not self._is_answering

    @property
    def patience(self) -> float:
        """For how many seconds the CLI may be silent now."""
        return min(GRACE, self._timeout) if self.is_final else self._timeout

    def feed(self, message: Any) -> Sequence[Event]:
        """Take the next message of the SDK; return what the caller is to hear."""
        try:
            return self._take(message)
        except UNREADABLE as error:
            self._unreadable = error
            return ()

    def skip(self, error: Exception, data: object = None) -> None:
        """Take a message that the SDK could not read.

        Args:
            error: what it raised.
            data: the message as the CLI printed it, if that is known; a result is still a result.
        """
        self._unreadable = error
        if isinstance(data, Mapping) and data.get("type") == "result":
            self._report(data)

    def _take(self, message: Any) -> Sequence[Event]:
        import claude_agent_sdk as sdk

        match message:
            case sdk.StreamEvent(parent_tool_use_id=None):
                self._is_answering, self.notices.is_repeating = True, False
                return self._stream_event(message.event)
            case sdk.AssistantMessage() | sdk.UserMessage() if self.notices.is_repeating:
                pass
            case sdk.AssistantMessage(parent_tool_use_id=None):
                self._is_answering = True
                self._complaint = message.error
                return () if message.error else self._blocks(message.content, message.message_id)
            case sdk.UserMessage(parent_tool_use_id=None) if not isinstance(message.content, str):
                return self._blocks(message.content, None)
            case sdk.ResultMessage() if self._is_of_this_turn(message):
                self._report(vars(message))
            case _:
                self.notices.take(message)
        return ()

    def _is_of_this_turn(self, message: Any) -> bool:
        """Return whether a result answers the message of this turn.

        A resumed session may first report the outcome of its background tasks in another result.
        """
        origin: Mapping[str, Any] = message.origin or {}
        return (
            self.result is not None
            or origin.get("kind", "human") == "human"
            or self._uuid in (message.user_message_uuids or ())
        )

    def _report(self, mapping: Mapping[str, Any]) -> None:
        """Take a result of the CLI."""
        self.result = self.judge(mapping)
        self._is_answering = self.notices.is_stopped = False

    def failed(self, error: Exception) -> None:
        """Take an error of the SDK or the clock; it is ignored after a result, since the CLI exits with an error
        whenever it has reported one.

        Raises:
            ProviderError: the CLI did not answer.
        """
        import claude_agent_sdk as sdk

        if self.result is not None:
            return
        if isinstance(error, sdk.ResultError) and error.data:
            self._report(error.data)
            return
        raise self._broken(what_failed(error, self.patience)) from error

    def ended(self) -> Result:
        """End the turn after the CLI has ended it; return the result.

        Raises:
            ProviderError: it reported none.
        """
        if self.result is None:
            unread = "" if self._unreadable is None else f" that could be read ({type(self._unreadable).__name__})"
            raise self._broken(f"the Claude CLI exited without a result{unread}") from self._unreadable
        if self.result.session_id in self.notices.lost and self.result.trigger is not Trigger.EXPIRED:
            return attrs.evolve(self.result, session_id=None)
        return self.result

    def judge(self, mapping: Mapping[str, Any]) -> Result:
        """Return the result that one of the CLI's means; see :func:`~fsm.providers.claude_agent.results.judge`.

        Args:
            mapping: the CLI's result, as it prints it.
        """
        unpaid = self._complaint == "billing_error"
        resumed = None if self.notices.is_moved else self._resumed
        result = results.judge(mapping, resumed, unpaid=unpaid, stopped=self.notices.is_stopped)
        if self._stored or result.session_id == self._resumed or result.trigger is Trigger.EXPIRED:
            return result
        return attrs.evolve(result, session_id=None)

    def _stream_event(self, event: Mapping[str, Any]) -> Sequence[Event]:
        if event["type"] == "message_start":
            self._streaming = event["message"]["id"]
            self._streamed.add(self._streaming)
        elif event["type"] == "content_block_delta" and event["delta"]["type"] == "text_delta":
            return self._text(event["delta"]["text"], self._streaming)
        return ()

    def _blocks(self, content: Iterable[Any], message_id: str | None) -> list[Event]:
        """Return the events of a whole message, without text that was streamed before."""
        import claude_agent_sdk as sdk

        events: list[Event] = []
        for block in content:
            match block:
                case sdk.TextBlock() if message_id is not None and message_id not in self._streamed:
                    events += self._text(block.text, message_id)
                case sdk.ToolUseBlock() | sdk.ServerToolUseBlock():
                    events.append(ToolUse(block.id, block.name, block.input))
                case sdk.ToolResultBlock():
                    answer = "" if block.content is None else block.content
                    events.append(ToolResult(block.tool_use_id, answer, bool(block.is_error)))
                case sdk.ServerToolResultBlock():
                    events.append(ToolResult(block.tool_use_id, block.content))
        return events

    def _text(self, text: str, message_id: str | None) -> Sequence[Event]:
        """Return text as an event; a paragraph separates the messages of a turn, before and after tools."""
        if not text:
            return ()
        parted = self._speaking not in {None, message_id}
        self._speaking = message_id
        return (TextDelta(f"\n\n{text}" if parted else text),)

    def _broken(self, why: str) -> ProviderError:
        return ProviderError(
            f"{why}. The turn is interrupted and the conversation takes the next message", self._request.key
        )
