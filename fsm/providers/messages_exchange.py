"""One turn with the Messages API, without I/O: the SDK's events and errors in, our events and one result out.

:class:`Exchange` is what the synchronous and the asynchronous provider share. It says what to ask
(:attr:`Exchange.arguments`), is fed what comes back, and holds the result once the turn is over; an answer that the
API pauses (``pause_turn``) is asked to go on within the same turn. It promises that

* a tool call is handed out only when its arguments are whole;
* the content of its result can be sent again as it is;
* no error of the API or of the network leaves it but as a result, and a session is called dead only for an error
  that would come back with it; see :func:`failure`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from fsm.content import Block
from fsm.provider import Request
from fsm.providers.anthropic_errors import Failed
from fsm.providers.messages_transcript import api_messages, container_of, continued, settled
from fsm.results import EXPIRED, Event, Result, TextDelta, ToolUse

__all__ = ["Exchange", "failure"]

CONTINUATIONS = 8
"""How often a paused answer is continued within one turn."""


class Exchange:
    """One turn.

    Args:
        request: what is asked.
        call: the arguments of ``messages.stream`` that are the same in every turn.

    Attributes:
        result: the result, once the turn is over; None before.

    >>> from fsm.content import text_block
    >>> exchange = Exchange(Request("k", 1, 1, (text_block("hello"),)), {"model": "m"})
    >>> exchange.arguments
    {'model': 'm', 'messages': [{'role': 'user', 'content': [{'type': 'text', 'text': 'hello'}]}]}
    >>> exchange.ended()
    >>> exchange.result.subtype
    'error_connection'
    """

    def __init__(self, request: Request, call: Mapping[str, Any]) -> None:
        self.result: Result | None = None
        self._message: Any = None
        self._call = call
        self._resumed = request.session_id
        self._name = request.session_id
        self._asked = api_messages(request.history, request.content)
        self._messages = self._asked
        self._container = container_of(request.history) if request.session_id else None
        self._blocks: list[Block] = []
        self._usage: dict[str, Any] = {}
        self._rounds = 0
        self._open()

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of the next call of ``messages.stream``."""
        arguments = {**self._call, "messages": self._messages}
        given = arguments.get("container")
        if self._container is not None and not isinstance(given, str):
            arguments["container"] = {**given, "id": self._container} if given else self._container
        return arguments

    def feed(self, event: Any) -> Event | None:
        """Take the next event of the SDK's stream; return what the caller is to hear, if anything."""
        match event.type:
            case "content_block_start":
                self._json = ""
            case "content_block_delta":
                return self._delta(event.delta)
            case "content_block_stop" if event.content_block.type == "tool_use":
                return self._tool_use(event.index, event.content_block)
            case "message_stop":
                self._message = event.message
        return None

    def ended(self) -> None:
        """The stream has ended: the turn is over, or :attr:`arguments` says how to go on."""
        if self._message is None:
            self.result = self._error("error_connection", "the stream ended before the message was complete")
        else:
            self._complete(self._message)

    def failed(self, error: Exception) -> None:
        """One of the SDK's errors was raised: the turn is over."""
        self.result = failure(error, self._resumed, refusable=self._rounds == 0, usage=self._usage or None)

    def _open(self) -> None:
        self._message = None
        self._json = ""
        self._cut_off: set[int] = set()

    def _delta(self, delta: Any) -> Event | None:
        if delta.type == "text_delta" and delta.text:
            return TextDelta(delta.text)
        if delta.type == "input_json_delta":
            self._json += delta.partial_json
        return None

    def _tool_use(self, index: int, block: Any) -> Event | None:
        """The call, if its arguments are whole; ``max_tokens`` cuts them off anywhere."""
        try:
            arguments = json.loads(self._json, parse_constant=_refuse) if self._json.strip() else block.input
        except ValueError:
            arguments = None
        if isinstance(arguments, dict):
            return ToolUse(block.id, block.name, arguments)
        self._cut_off.add(index)
        return None

    def _complete(self, message: Any) -> None:
        self._rounds += 1
        self._name = self._name or message.id
        self._blocks += [_as_json(block) for index, block in enumerate(message.content) if index not in self._cut_off]
        self._usage = _sum(self._usage, _as_json(message.usage))
        if message.container is not None:
            self._container = message.container.id
        if message.stop_reason == "pause_turn" and self._rounds <= CONTINUATIONS:
            paused = continued(self._asked, self._blocks)
            if paused is not None:
                self._messages = paused
                self._open()
                return
        self.result = self._judge(message)

    def _judge(self, message: Any) -> Result:
        match message.stop_reason:
            case "refusal":
                return self._error("error_refusal", _why_refused(message), message)
            case "model_context_window_exceeded":
                subtype = EXPIRED if self._resumed else "error_context_window"
                return self._error(subtype, "the conversation has outgrown the model's context window", message)
        return Result(
            session_id=self._name,
            stop_reason=message.stop_reason,
            usage=self._usage,
            raw=_as_json(message),
            content=settled(self._blocks, message.stop_reason),
            provider_data={"container": self._container} if self._container else None,
        )

    def _error(self, subtype: str, told: str, message: Any = None) -> Result:
        return Result(
            subtype=subtype,
            is_error=True,
            session_id=self._resumed,
            errors=(told,),
            stop_reason=message.stop_reason if message is not None else None,
            usage=self._usage or None,
            raw=_as_json(message) if message is not None else None,
        )


def failure(error: Exception, session_id: str | None, *, refusable: bool, usage: Mapping[str, Any] | None) -> Result:
    """The result that an error means.

    A resumed transcript is dead if the API refuses it: 400 ``invalid_request_error``, 404, 413. Not if the account is
    what is wrong: a missing credit is reported as a bad request too, and it would cost every conversation its
    session; it is told as 402. A wrong model name is a 404 like any other: the new session fails as well, and names
    none. Every other error leaves the session as it was.

    Args:
        error: one of :func:`~fsm.providers.anthropic_errors.failures`.
        session_id: the session that was resumed, or None.
        refusable: whether it was the transcript that was sent; False for the continuation of a paused answer, whose
            transcript the API had already accepted.
        usage: the tokens that the turn had used before.
    """
    failed = Failed.of(error)
    is_dead = session_id is not None and refusable and (failed.is_refusal or failed.status in {404, 413})
    return Result(
        subtype=EXPIRED if is_dead else failed.subtype,
        is_error=True,
        session_id=session_id,
        errors=(failed.told,),
        http_status=failed.status,
        usage=usage,
    )


def _why_refused(message: Any) -> str:
    details = _as_json(message).get("stop_details") or {}
    return str(details.get("explanation") or details.get("category") or "the model refused")


def _as_json(model: Any) -> dict[str, Any]:
    """What the API sent and nothing that the SDK added: the SDK's own way of sending it back."""
    return dict(model.to_dict(mode="json", warnings=False))


def _sum(total: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Token counts added up, object by object; what is no number is taken from the newer.

    >>> _sum({"output_tokens": 1, "tier": "a"}, {"output_tokens": 2, "tier": None, "search": {"n": 1}})
    {'output_tokens': 3, 'tier': 'a', 'search': {'n': 1}}
    """
    summed = dict(total)
    for name, value in more.items():
        known = summed.get(name)
        if isinstance(value, Mapping):
            summed[name] = _sum(known if isinstance(known, Mapping) else {}, value)
        elif isinstance(value, int | float) and isinstance(known, int | float):
            summed[name] = known + value
        elif value is not None or name not in summed:
            summed[name] = value
    return summed


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
