"""One turn with the Messages API, without I/O: the SDK's events and errors in, our events and one result out.

:class:`Exchange` is shared by the synchronous and the asynchronous provider. It makes the request
(:attr:`Exchange.arguments`), takes the events, and holds the result once the turn is over. It continues an answer that
the API pauses (``pause_turn``) within the same turn. It promises that

* a tool call is handed out only when its arguments are whole;
* the content of its result can be sent again as it is;
* whatever the SDK raises becomes a result, and a session is called dead only by evidence about its transcript.

Where an error leaves open whether the transcript is at fault, :attr:`Exchange.question` is what to ask
``count_tokens``, once; :meth:`Exchange.answered` takes what came of it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs
from attrs import frozen

from fsm.content import text_block
from fsm.events import EXPIRED, Event, Result
from fsm.provider import Request
from fsm.providers._anthropic.errors import Failed
from fsm.providers.anthropic_messages import evidence
from fsm.providers.anthropic_messages.answer import Answer
from fsm.providers.anthropic_messages.evidence import Fault, Sent
from fsm.providers.anthropic_messages.transcript import api_messages, container_of, continued, settled

__all__ = ["END", "Exchange", "Question"]

END = object()
"""Comes after the last event of the SDK's stream; an event may be null."""

CONTINUATIONS = 8
"""How often a paused answer is continued within one turn."""

ASKING = text_block("?")
"""A message that nobody refuses, after which an old transcript ends as the API demands."""

_IN_DOUBT = frozenset({Fault.TRANSCRIPT, Fault.FULL, Fault.LARGE, Fault.CONTENT, Fault.UNKNOWN})
"""The statuses that may end a session, if the stored transcript is at fault."""

_SUBTYPES: Mapping[Fault, str] = {
    Fault.ANSWER: "error_refusal",
    Fault.MESSAGE: "error_message",
    Fault.SETTINGS: "error_configuration",
}


@frozen
class Question:
    """A request to ``count_tokens``.

    Attributes:
        messages: the messages to count.
        failed: the error that left it open which message is at fault.
        fault: what that one is about.
    """

    messages: list[dict[str, Any]]
    failed: Failed
    fault: Fault


class Exchange:
    """One turn.

    Args:
        request: what is asked.
        call: the arguments of ``messages.create`` that are the same in every turn.
        parameters: the names of all that ``messages.create`` takes.

    Attributes:
        result: the result, once the turn is over; None before.
        question: what to ask ``count_tokens`` before the turn is over; None if there is no doubt.
        is_open: whether more of the answer is to come.

    >>> from fsm.content import text_block
    >>> request = Request(key="k", turn=1, session_number=1, content=(text_block("hello"),))
    >>> exchange = Exchange(request, {"model": "m"})
    >>> exchange.arguments
    {'model': 'm', 'messages': [{'role': 'user', 'content': [{'type': 'text', 'text': 'hello'}]}]}
    >>> exchange.feed(END)
    ()
    >>> exchange.result.subtype
    'error_connection'
    """

    def __init__(self, request: Request, call: Mapping[str, Any], parameters: frozenset[str] = frozenset()) -> None:
        self.result: Result | None = None
        self.question: Question | None = None
        self.is_open = True
        self._request = request
        self._call = call
        self._parameters = parameters
        self._resumed = request.session_id
        self._name = request.session_id
        self._messages = api_messages(request.history, request.content)
        self._asked = self._messages
        self._stored_container = container_of(request.history) if request.session_id else None
        self._container = self._stored_container
        self._answer = Answer()
        self._blocks: list[Any] = []
        self._usage: dict[str, Any] = {}
        self._rounds = 0

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of the next call of ``messages.create``."""
        arguments = {**self._call, "messages": self._messages}
        given = arguments.get("container")
        if self._container is not None and not isinstance(given, str):
            arguments["container"] = {**given, "id": self._container} if given else self._container
        return arguments

    @contextmanager
    def reading(self) -> Iterator[None]:
        """End the turn with a result if the SDK raises an error in the block."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  # the SDK raises AttributeError, TypeError, … for a field that is null
            self.failed(error)

    def feed(self, event: Any) -> tuple[Event, ...]:
        """Take the next event of the SDK's stream, or :data:`END`; return what the caller is to hear."""
        if event is not END:
            told = self._answer.feed(event.to_dict(mode="json", warnings=False))
        elif self._answer.stop_reason is None:
            told = ()
            self._over(self._error("error_connection", "the stream ended before the message was complete"))
        else:
            told = self._answer.end()
        if self._answer.is_whole and self.is_open:
            self._complete()
        return told

    def failed(self, error: Exception) -> None:
        """Take an error of the SDK: the turn ends, or there is a :attr:`question`."""
        failed = Failed.of(error)
        fault = evidence.fault_of(failed, self._sent())
        if self._rounds or self._answer.has_begun:
            # The API has accepted the transcript, and said something already.
            self._over(self._failure(failed, fault if fault in {Fault.ANSWER, Fault.SETTINGS} else Fault.OTHER))
            return
        if self._resumed is None or fault not in _IN_DOUBT:
            self._over(self._failure(failed, fault))
        elif self._is_certain(fault, failed):
            self._over(self._dead(failed))
        else:
            self.is_open = False
            is_about_the_new = fault is Fault.FULL
            history, content = ((), self._request.content) if is_about_the_new else (self._request.history, (ASKING,))
            self.question = Question(api_messages(history, content), failed, fault)

    def answered(self, question: Question, answer: Any) -> None:
        """Take the answer to the question, or the error that it raised.

        Args:
            question: what it was asked.
            answer: what ``count_tokens`` returned, or the exception that it raised.
        """
        self.question = None
        failed, fault = question.failed, question.fault
        refused = Failed.of(answer) if isinstance(answer, Exception) else None
        if fault is Fault.FULL:
            self._over(self._judge_full(failed, refused, getattr(answer, "input_tokens", None)))
        elif refused is None:
            self._over(self._failure(failed, fault if fault is Fault.UNKNOWN else Fault.MESSAGE))
        elif evidence.is_evidence(refused, self._sent_before(len(question.messages))):
            self._over(self._dead(failed))
        else:
            self._over(self._failure(failed, Fault.OTHER))

    def _judge_full(self, failed: Failed, refused: Failed | None, tokens: object) -> Result:
        """Decide whether the session is full; it is not if the newest message would fill a new one too."""
        if refused is not None:
            is_too_long = evidence.fault_of(refused, self._sent()) is Fault.FULL
            return self._failure(failed, Fault.MESSAGE if is_too_long else Fault.OTHER)
        if not isinstance(tokens, int):
            return self._failure(failed, Fault.OTHER)
        return self._failure(failed, Fault.MESSAGE) if tokens > evidence.limit_of(failed) else self._dead(failed)

    def _is_certain(self, fault: Fault, failed: Failed) -> bool:
        """Whether the transcript is at fault beyond doubt."""
        match fault:
            case Fault.TRANSCRIPT:
                return True
            case Fault.FULL:
                return evidence.most_tokens(self._request.content) * 2 <= evidence.limit_of(failed)
            case Fault.LARGE:
                whole, new = evidence.size(self._messages), evidence.size(self._request.content)
                return whole > evidence.BYTES and new * 16 <= whole
        return False

    def _sent(self) -> Sent:
        is_given = isinstance(self._call.get("container"), str)
        container = None if is_given else self._stored_container
        return evidence.sent_of(self._request, len(self._messages) - 1, self._parameters, container)

    def _sent_before(self, count: int) -> Sent:
        """Return the old transcript alone: whatever message of it is named, it was stored."""
        return attrs.evolve(self._sent(), newest=count, is_mixed=False, new=frozenset())

    def _complete(self) -> None:
        answer = self._answer
        self._rounds += 1
        self._name = self._name or answer.id or f"local-{uuid.uuid4()}"
        self._blocks += answer.blocks
        self._usage = _sum(self._usage, answer.usage)
        self._container = answer.container or self._container
        if answer.stop_reason == "pause_turn" and self._rounds <= CONTINUATIONS:
            paused = continued(self._asked, self._blocks)
            if paused is not None:
                self._messages = paused
                self._answer = Answer()
                self.is_open = False
                return
        self._over(self._judge(answer))

    def reopen(self) -> None:
        """Begin the next round of the turn."""
        self.is_open = True

    def _judge(self, answer: Answer) -> Result:
        match answer.stop_reason:
            case "refusal":
                return self._error("error_refusal", _why_refused(answer.message), answer)
            case "model_context_window_exceeded":
                subtype = EXPIRED if self._resumed else "error_context_window"
                return self._error(subtype, "the conversation has outgrown the model's context window", answer)
        return Result(
            session_id=self._name,
            stop_reason=answer.stop_reason,
            usage=self._usage,
            raw=answer.message,
            content=settled(self._blocks, answer.stop_reason),
            provider_data={"container": self._container} if self._container else None,
        )

    def _over(self, result: Result) -> None:
        self.result = result
        self.is_open = False

    def _dead(self, failed: Failed) -> Result:
        return attrs.evolve(self._failure(failed, Fault.OTHER), subtype=EXPIRED)

    def _failure(self, failed: Failed, fault: Fault) -> Result:
        is_too_long = self._resumed is None and (fault is Fault.FULL or failed.status == 413)
        return Result(
            subtype="error_context_window" if is_too_long else _SUBTYPES.get(fault, failed.subtype),
            is_error=True,
            session_id=self._resumed,
            errors=(failed.told,),
            http_status=failed.status,
            usage=self._usage or None,
        )

    def _error(self, subtype: str, told: str, answer: Answer | None = None) -> Result:
        return Result(
            subtype=subtype,
            is_error=True,
            session_id=self._resumed,
            errors=(told,),
            stop_reason=answer.stop_reason if answer is not None else None,
            usage=self._usage or None,
            raw=answer.message if answer is not None else None,
        )


def _why_refused(message: Mapping[str, Any]) -> str:
    details = message.get("stop_details")
    told = details if isinstance(details, Mapping) else {}
    return str(told.get("explanation") or told.get("category") or "the model refused")


def _sum(total: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sum of token counts, also inside objects; other values are those of the newer.

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
