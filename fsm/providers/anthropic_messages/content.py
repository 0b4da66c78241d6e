"""The content that the Messages API takes from a user, as plain data, and the check of other content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fsm.content import Block
from fsm.errors import InvalidContent
from fsm.providers._anthropic.block_checks import IMAGES, Kind, check_blocks
from fsm.providers.anthropic_messages.transcript import marks

__all__ = ["MARKS", "check_content"]

MARKS = 4
"""How many marks for the cache a request may have, those of ``system`` and ``tools`` included."""

_TEXT = {"text": Kind(texts=("text",))}
_SHOWN: Mapping[str, Kind] = {
    **_TEXT,
    "image": Kind(
        sources={
            "base64": Kind(needs=("data", "media_type"), media=IMAGES),
            "url": Kind(needs=("url",)),
            "file": Kind(needs=("file_id",)),
        }
    ),
    "document": Kind(
        sources={
            "base64": Kind(needs=("data", "media_type"), media=("application/pdf",)),
            "text": Kind(needs=("media_type",), texts=("data",), media=("text/plain",)),
            "content": Kind(),
            "url": Kind(needs=("url",)),
            "file": Kind(needs=("file_id",)),
        }
    ),
    "search_result": Kind(needs=("source", "title"), inner=_TEXT),
}
_TAKEN: Mapping[str, Kind] = {
    **_SHOWN,
    "tool_result": Kind(needs=("tool_use_id",), inner={**_SHOWN, "tool_reference": Kind(needs=("tool_name",))}),
    "container_upload": Kind(needs=("file_id",)),
}
"""The kinds of block that the API takes from a user. It checks their other fields, such as ``cache_control``,
itself."""


def check_content(content: Sequence[Block], marks_elsewhere: int = 0) -> None:
    """Refuse what the Messages API takes from no user; see :func:`~fsm.providers._anthropic.block_checks.check_blocks`.

    Args:
        content: the new message.
        marks_elsewhere: how many marks for the cache the request has without it.

    Raises:
        InvalidContent: a block is not taken, or there are too many marks.

    >>> check_content([{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}], marks_elsewhere=4)
    Traceback (most recent call last):
    ...
    fsm.errors.InvalidContent: the message has 1 block with 'cache_control', and system, tools and options have 4; \
the Messages API takes 4 in all, so leave some out
    """
    check_blocks(content, _TAKEN, "the Messages API")
    found = marks(content)
    if found and found + marks_elsewhere > MARKS:
        raise InvalidContent(
            f"the message has {found} block{'' if found == 1 else 's'} with 'cache_control', and system, tools and "
            f"options have {marks_elsewhere}; the Messages API takes {MARKS} in all, so leave some out"
        )
