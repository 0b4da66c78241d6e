"""One turn with the Claude Agent SDK, without I/O: the SDK's messages and errors in, our events and one result out.

:class:`Exchange` holds every decision that :class:`~fsm.providers.claude_agent.ClaudeAgent` makes: what the CLI is
told, what of its messages the caller hears, how long it may be silent, what its result means, and when the session is
dead. It promises that

* text is handed out once, whether the CLI streamed it or not, and an error's text never;
* a tool call is handed out only when its arguments are whole; what happens inside a subagent is the inside of a tool;
* a session is called dead only for a failure that would come back with it, and named only if it can be resumed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from fsm.content import Block, text_block
from fsm.context import as_preamble
from fsm.errors import ProviderError
from fsm.provider import Request
from fsm.providers.block_checks import IMAGES, Kind, check_blocks
from fsm.results import EXPIRED, Event, Result, TextDelta, ToolResult, ToolUse
from fsm.states import Trigger

__all__ = ["Exchange", "check_content"]

GRACE = 10.0
"""How long the CLI may take to exit after its last word, in seconds; its result is handed out all the same."""

_REFUSED = frozenset({400, 413})
"""With these the API refuses the transcript itself, and would refuse it again: the CLI keeps what it sent."""

_OUTGROWN = frozenset({"prompt_too_long", "image_error"})
"""Terminal reasons of a session that can take no more."""

_AGENTS = frozenset({"local_agent", "local_workflow"})
"""Background tasks whose end the CLI waits for, and answers with one more turn of its own."""

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
"""What the CLI passes on to the model. It runs the tools itself: the answer to a call is dropped without a word."""


def check_content(content: Iterable[Block]) -> None:
    """Refuse what the CLI drops or the API behind it refuses; see :func:`~fsm.providers.block_checks.check_blocks`.

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
        result: the result, once the CLI has reported one; None before. A later one takes its place: the CLI reports
            one more whenever an agent in the background has ended and it has answered that.

    >>> exchange = Exchange(Request("k", 1, 1, (text_block("hello"),)), timeout=60)
    >>> exchange.message["message"]
    {'role': 'user', 'content': [{'type': 'text', 'text': 'hello'}]}
    >>> exchange.judge({"subtype": "success", "is_error": True, "api_error_status": 429}).trigger
    <Trigger.FAILED: 'failed'>
    """

    def __init__(self, request: Request, *, timeout: float, stored: bool = True) -> None:
        self.result: Result | None = None
        self._request = request
        self._resumed = request.session_id
        self._timeout = timeout
        self._stored = stored
        self._streamed: set[str | None] = set()
        self._streaming: str | None = None
        self._speaking: str | None = None
        self._complaint: str | None = None
        self._agents: set[str] = set()

    @property
    def message(self) -> dict[str, Any]:
        """The user's message as the CLI reads it.

        With a rebuilt context it is marked as composed by a program, and delivered as written. In what a person types
        the CLI runs ``/commands`` and shows the model each file mentioned as ``@path``; what stands in the history may
        come from anybody.
        """
        blocks = [dict(block) for block in self._request.content]
        message: dict[str, Any] = {"type": "user", "parent_tool_use_id": None, "session_id": ""}
        if self._request.history:
            blocks.insert(0, dict(text_block(as_preamble(self._request.history))))
            message["client_composed"] = True
        return {**message, "message": {"role": "user", "content": blocks}}

    @property
    def patience(self) -> float:
        """For how many seconds the CLI may be silent now."""
        return self._timeout if self.result is None or self._agents else min(GRACE, self._timeout)

    def feed(self, message: Any) -> Sequence[Event]:
        """Take the next message of the SDK; return what the caller is to hear."""
        import claude_agent_sdk as sdk

        match message:
            case sdk.StreamEvent(parent_tool_use_id=None):
                return self._stream_event(message.event)
            case sdk.AssistantMessage(parent_tool_use_id=None):
                self._complaint = message.error
                return () if message.error else self._blocks(message.content, message.message_id)
            case sdk.UserMessage(parent_tool_use_id=None) if not isinstance(message.content, str):
                return self._blocks(message.content, None)
            case sdk.ResultMessage():
                self.result = self.judge(vars(message))
            case sdk.TaskStartedMessage() if message.task_type in _AGENTS:
                self._agents.add(message.task_id)
            case sdk.TaskNotificationMessage():
                self._agents.discard(message.task_id)
            case sdk.TaskUpdatedMessage() if message.status in sdk.TERMINAL_TASK_STATUSES:
                self._agents.discard(message.task_id)
        return ()

    def failed(self, error: Exception) -> None:
        """The SDK or the clock raised this; after a result it has no more to say, since the CLI exits with an error
        whenever it has reported one.

        Raises:
            ProviderError: the CLI did not answer.
        """
        import claude_agent_sdk as sdk

        if self.result is not None:
            return
        if isinstance(error, sdk.ResultError) and error.data:
            self.result = self.judge(error.data)
            return
        raise self._broken(self._what_failed(error)) from error

    def ended(self) -> Result:
        """The CLI has exited; the result of the turn.

        Raises:
            ProviderError: it reported none.
        """
        if self.result is None:
            raise self._broken("the Claude CLI exited without a result")
        return self.result

    def judge(self, mapping: Mapping[str, Any]) -> Result:
        """The result that one of the CLI's means.

        It exits with ``error_during_execution`` if there is no such session. Dead as well is a resumed session whose
        transcript the API refuses (400, 413), for the CLI keeps it and would send it again, and one that can take no
        more. A new session that begins so is not worth a name. An account without credit is reported as a 400 too;
        it is told as 402 and costs no session. After every other failure the session can be resumed, the first turn's
        too: the CLI has stored it by then.

        Args:
            mapping: the CLI's result, as it prints it.
        """
        result = Result.from_mapping(mapping)
        named = result.session_id if self._stored else None
        if result.trigger is Trigger.SUCCEEDED:
            return attrs.evolve(result, session_id=named)
        told = result.errors or ((result.text,) if result.text else ())
        result = attrs.evolve(result, errors=told, text=None)
        if result.trigger is Trigger.EXPIRED:
            return result
        reason = mapping.get("terminal_reason")
        if self._complaint == "billing_error":
            result = attrs.evolve(result, http_status=402)
        elif reason in _OUTGROWN or result.http_status in _REFUSED:
            if self._resumed is not None:
                return attrs.evolve(result, subtype=EXPIRED, session_id=self._resumed)
            subtype = "error_context_window" if reason == "prompt_too_long" else result.subtype
            return attrs.evolve(result, subtype=subtype, session_id=None)
        return attrs.evolve(result, session_id=self._resumed or named)

    def _stream_event(self, event: Mapping[str, Any]) -> Sequence[Event]:
        if event["type"] == "message_start":
            self._streaming = event["message"]["id"]
            self._streamed.add(self._streaming)
        elif event["type"] == "content_block_delta" and event["delta"]["type"] == "text_delta":
            return self._text(event["delta"]["text"], self._streaming)
        return ()

    def _blocks(self, content: Iterable[Any], message_id: str | None) -> list[Event]:
        """What a whole message says; text that was streamed has been said."""
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
        """One turn may have many messages, before and after tools; what they say must not run together."""
        if not text:
            return ()
        parted = self._speaking not in {None, message_id}
        self._speaking = message_id
        return (TextDelta(f"\n\n{text}" if parted else text),)

    def _what_failed(self, error: Exception) -> str:
        """What an error of the SDK says; its own text is told only where it can't hold any of the conversation's."""
        import claude_agent_sdk as sdk

        match error:
            case sdk.CLINotFoundError():
                return "the Claude CLI was not found; check options.cli_path, or install claude-agent-sdk anew"
            case sdk.CLIConnectionError():
                return (
                    f"the Claude CLI can't be run ({str(error).partition(chr(10))[0]}); check options.cwd and cli_path"
                )
            case sdk.ProcessError():
                return f"the Claude CLI exited with code {error.exit_code} before it had answered; see its stderr"
            case TimeoutError():
                return (
                    f"the Claude CLI was silent for {self.patience:g} seconds and was stopped; "
                    "if its tools need longer, raise the timeout"
                )
        return f"the Claude Agent SDK raised {type(error).__name__}"

    def _broken(self, why: str) -> ProviderError:
        return ProviderError(
            f"{why}. The turn is interrupted and the conversation takes the next message", self._request.key
        )
