"""The part of a request that an error of the Messages API is about: the stored transcript, the newest message, the
settings, or none.

A session is dead only by evidence about its transcript (G22). The rules are plain data: codes, the places that the API
names, and its words. An error that no rule knows is never evidence. Where a rule leaves open which message is at
fault, the API is asked: ``count_tokens`` with the old transcript alone, or with the newest message alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from enum import Enum

from attrs import frozen

from fsm.content import Block
from fsm.provider import Request
from fsm.providers._anthropic.errors import Failed

__all__ = [
    "BYTES",
    "DEFAULT_WINDOW",
    "Fault",
    "Sent",
    "fault_of",
    "is_evidence",
    "limit_of",
    "most_tokens",
    "names_in",
    "sent_of",
    "size",
]

DEFAULT_WINDOW = 200_000
"""The context window, in tokens, where the API does not say how large it is."""

BYTES = 1024 * 1024
"""A request with fewer bytes was not refused because its transcript is large."""

IMAGE = 5_000
"""More tokens than any image takes."""


class Fault(Enum):
    """The part of a request that is at fault."""

    TRANSCRIPT = "a stored message"
    FULL = "the length of the request in tokens"
    LARGE = "the size of the request in bytes"
    CONTENT = "a message, stored or new"
    MESSAGE = "the newest message"
    SETTINGS = "the settings of the application"
    ANSWER = "the answer"
    UNKNOWN = "a request that is refused for a reason that is not known"
    OTHER = "none of these"


_CODES: Mapping[str, Fault] = {
    "compaction_block_ambiguous": Fault.CONTENT,
    "compaction_block_misplaced": Fault.CONTENT,
    "compaction_content_mismatch": Fault.CONTENT,
    "compaction_signature_invalid": Fault.CONTENT,
    "compaction_too_many_tool_references": Fault.CONTENT,
    "compaction_tool_changes_mismatch": Fault.CONTENT,
    "image_dimensions_too_large": Fault.CONTENT,
    "tool_reference_unresolved": Fault.CONTENT,
    "available_tools_limit_exceeded": Fault.SETTINGS,
    "tool_name_conflict": Fault.SETTINGS,
    "compaction_incomplete_turn": Fault.SETTINGS,
    "compaction_nothing_to_summarize": Fault.SETTINGS,
    "thread_already_continued": Fault.SETTINGS,
    "thread_continue_in_flight": Fault.SETTINGS,
    "thread_fingerprint_mismatch": Fault.SETTINGS,
    "thread_unsupported_request": Fault.SETTINGS,
}
"""The subject of a 400 with a code; any other code is about the account or the service."""

_WORDS: Sequence[tuple[re.Pattern[str], Fault]] = [
    (re.compile(pattern, re.IGNORECASE), fault)
    for pattern, fault in (
        (r"^(?:messages: )?(?:prompt|input) is too long\b", Fault.FULL),
        (r"^input length and `?max_tokens`? exceed context limit", Fault.FULL),
        (r"^output blocked by content filtering policy", Fault.ANSWER),
        (r"^a maximum of \d+ blocks with cache_control", Fault.SETTINGS),
        (r"anthropic-(?:beta|version)|\bdo(?:es)? not support\b|\bnot supported\b", Fault.SETTINGS),
        (r"^messages\b", Fault.CONTENT),
        (r"`?tool_(?:use|result)`? (?:ids|blocks)|`?tool_use_id`?", Fault.CONTENT),
        (r"`?signature`? in `?thinking`? block|`?(?:redacted_)?thinking`? blocks?\b", Fault.CONTENT),
        (r"\b(?:image|images|pdf|pdfs|document|documents)\b", Fault.CONTENT),
    )
]
"""The subject of a 400 without a code, by its words, if it does not name a message; the first that fits."""

_MESSAGE = re.compile(r"messages\.(\d+)\b")
_PARAMETER = re.compile(r"^[`'\"]?([a-z][a-z_]*)(?:[.\[][\w.\[\]]*)?(?:[`'\"]|: )")
_CONTAINER = re.compile(r"^[`'\"]?container\b", re.IGNORECASE)
_TOO_LONG = re.compile(r"(\d+) tokens > (\d+) maximum")
_WITH_ANSWER = re.compile(r"(\d+) \+ (\d+) > (\d+)")
_EVIDENCE = frozenset({Fault.TRANSCRIPT, Fault.FULL, Fault.LARGE, Fault.CONTENT})


@frozen(kw_only=True)
class Sent:
    """The facts about a request that show which part of it is at fault.

    Attributes:
        newest: the position of the newest message.
        is_mixed: whether that one begins with something that was stored before.
        stored: names that only the stored transcript has, such as ids of files and of its container.
        new: the names that the newest message has.
        parameters: the names of the SDK's parameters, ``messages`` excepted.
        has_container: whether the stored transcript names the container that is asked for.
    """

    newest: int
    is_mixed: bool = False
    stored: frozenset[str] = frozenset()
    new: frozenset[str] = frozenset()
    parameters: frozenset[str] = frozenset()
    has_container: bool = False


def sent_of(request: Request, newest: int, parameters: frozenset[str], container: str | None) -> Sent:
    """Return the facts about a request.

    Args:
        request: the message and the transcript.
        newest: the position of the newest message in what is sent.
        parameters: the names of the SDK's parameters.
        container: the container that is asked for because the transcript names it, or None.
    """
    new = names_in(request.content)
    stored = frozenset[str]().union(*(names_in(message.content) for message in request.history))
    own = frozenset({container} if container else ())
    is_mixed = bool(request.history) and request.history[-1].role == "user"
    return Sent(
        newest=newest,
        is_mixed=is_mixed,
        stored=(stored | own) - new,
        new=new,
        parameters=parameters,
        has_container=container is not None,
    )


def fault_of(failed: Failed, sent: Sent) -> Fault:
    """Return the part of a request that an error is about.

    >>> words = "messages.1.content.0: Invalid `signature` in `thinking` block"
    >>> refusal = {"subtype": "error_api", "told": "", "status": 400, "kind": "invalid_request_error"}
    >>> failed = Failed(**refusal, words=words, is_of_the_api=True)
    >>> fault_of(failed, Sent(newest=2))
    <Fault.TRANSCRIPT: 'a stored message'>
    >>> fault_of(failed, Sent(newest=1))
    <Fault.MESSAGE: 'the newest message'>
    """
    if not failed.is_of_the_api:
        return Fault.OTHER
    match failed.status, failed.kind:
        case 413, _:
            return Fault.LARGE
        case 404, "not_found_error":
            return _of_not_found(failed, sent)
        case 400, "invalid_request_error":
            return _of_refusal(failed, sent)
    return Fault.OTHER


def is_evidence(failed: Failed, sent: Sent) -> bool:
    """Whether ``count_tokens`` has refused an old transcript for what is in it.

    Args:
        failed: what it said.
        sent: the old transcript, as if its newest message were stored too.
    """
    return fault_of(failed, sent) in _EVIDENCE


def limit_of(failed: Failed) -> int:
    """Return how many tokens a message may have, as far as the error says."""
    if found := _WITH_ANSWER.search(failed.words):
        return max(int(found[3]) - int(found[2]), 0)
    found = _TOO_LONG.search(failed.words)
    return int(found[2]) if found else DEFAULT_WINDOW


def most_tokens(blocks: Sequence[Block]) -> float:
    """Return a number of tokens that these blocks do not exceed: a token is at least a byte of text."""
    return sum(_most_tokens(block) for block in blocks)


def size(value: object) -> int:
    """Return how many bytes a JSON value takes."""
    return len(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))


def names_in(blocks: object) -> frozenset[str]:
    """Return the ids of files in blocks, at any depth."""
    if isinstance(blocks, Mapping):
        own = {value for name, value in blocks.items() if name == "file_id" and isinstance(value, str)}
        return frozenset(own).union(*map(names_in, blocks.values()))
    if isinstance(blocks, list | tuple):
        return frozenset().union(*map(names_in, blocks))
    return frozenset()


def _of_not_found(failed: Failed, sent: Sent) -> Fault:
    if named := _of_names(failed.words, sent):
        return named
    if failed.code == "file_expired":
        return Fault.CONTENT
    return Fault.SETTINGS if re.match(r"^model\b", failed.words) and failed.code is None else Fault.OTHER


def _of_refusal(failed: Failed, sent: Sent) -> Fault:
    if failed.code is not None:
        known = _CODES.get(failed.code, Fault.OTHER)
        return (_of_place(failed, sent) or known) if known is Fault.CONTENT else known
    rules: tuple[Callable[[], Fault | None], ...] = (
        lambda: _of_place(failed, sent),
        lambda: _of_names(failed.words, sent),
        lambda: _of_parameter(failed.words, sent),
        lambda: next((fault for pattern, fault in _WORDS if pattern.search(failed.words)), None),
    )
    return next((fault for rule in rules if (fault := rule()) is not None), Fault.UNKNOWN)


def _of_place(failed: Failed, sent: Sent) -> Fault | None:
    """Return the message that the API names at the start of its words, or in the list of paths that it adds."""
    places = [int(found[1]) for found in map(_MESSAGE.match, (failed.words, *failed.paths)) if found]
    if not places:
        return None
    if any(place < sent.newest for place in places):
        return Fault.TRANSCRIPT
    return Fault.CONTENT if sent.is_mixed else Fault.MESSAGE


def _of_names(words: str, sent: Sent) -> Fault | None:
    if any(name in words for name in sent.new):
        return Fault.MESSAGE
    if any(name in words for name in sent.stored) or (sent.has_container and _CONTAINER.match(words)):
        return Fault.TRANSCRIPT
    return None


def _of_parameter(words: str, sent: Sent) -> Fault | None:
    found = _PARAMETER.match(words)
    return Fault.SETTINGS if found and found[1] in sent.parameters else None


def _most_tokens(value: object) -> float:
    if isinstance(value, str):
        return len(value.encode("utf-8", "replace"))
    if isinstance(value, list | tuple):
        return sum(map(_most_tokens, value))
    if not isinstance(value, Mapping):
        return 8
    source = value.get("source")
    if value.get("type") == "image":
        return IMAGE
    if (
        value.get("type") == "document"
        and isinstance(source, Mapping)
        and source.get("type") not in {"text", "content"}
    ):
        return float("inf")  # a page of a PDF takes thousands, and a file does not say how many it has
    return sum(_most_tokens(held) + len(str(name)) for name, held in value.items())
