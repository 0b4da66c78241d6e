"""Content that an API takes, and a clear word about content that it does not: pure, no I/O.

A provider lists the kinds of block that it takes as plain data (:class:`Kind`) and calls :func:`check_blocks` from its
``check_content``. So a message that the API would refuse is refused before the turn begins. An error names the
block's position, what is wrong with it, and what to do.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import field, frozen

from fsm.content import Block
from fsm.errors import InvalidContent

__all__ = ["IMAGES", "Kind", "check_blocks"]

IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")
"""The images that Claude sees."""


@frozen(kw_only=True)
class Kind:
    """One kind of block, or of source.

    Attributes:
        needs: the fields it must have, each a text that is not empty.
        texts: the fields it must have, each a text that may be empty.
        may: the other fields it may have; None for any.
        sources: the kinds of its field ``source``, if it has one that is an object.
        media: the values that its ``media_type`` may have; empty for any.
        inner: the kinds of block that its ``content`` may be a list of; ``content`` may also be text or be missing.
        one_of: fields that have one of a few values.
    """

    needs: tuple[str, ...] = ()
    may: tuple[str, ...] | None = None
    sources: Mapping[str, Kind] = field(factory=dict)
    media: tuple[str, ...] = ()
    inner: Mapping[str, Kind] = field(factory=dict)
    one_of: Mapping[str, tuple[str, ...]] = field(factory=dict)
    texts: tuple[str, ...] = ()


def check_blocks(blocks: Iterable[Block], kinds: Mapping[str, Kind], api: str) -> None:
    """Check that each block is of a kind that the API takes.

    Args:
        blocks: the content of a message.
        kinds: what the API takes, by the blocks' ``type``.
        api: what the API is called in an error.

    Raises:
        InvalidContent: one is not.

    >>> check_blocks([{"type": "text", "text": "hello"}], {"text": Kind(needs=("text",))}, "the API")
    >>> check_blocks([{"type": "audio"}], {"text": Kind(needs=("text",))}, "the API")
    Traceback (most recent call last):
    ...
    fsm.errors.InvalidContent: block 0 is of type 'audio', which the API does not take; send text
    """
    for position, block in enumerate(blocks):
        _check(block, kinds, f"block {position}", api)


def _check(thing: object, kinds: Mapping[str, Kind], where: str, api: str) -> None:
    name = thing.get("type") if isinstance(thing, Mapping) else None
    if not isinstance(thing, Mapping) or not isinstance(name, str):
        raise InvalidContent(f"{where} must be an object with a 'type'; send {_listed(kinds)}")
    kind = kinds.get(name)
    if kind is None:
        raise InvalidContent(f"{where} is of type {name!r}, which {api} does not take; send {_listed(kinds)}")
    where = f"{where} ({name})"
    _check_fields(thing, kind, where, api)
    if kind.sources:
        _check(thing.get("source"), kind.sources, f"the source of {where}", api)
    if kind.inner:
        _check_inner(thing.get("content"), kind.inner, where, api)
    if name == "base64":
        _check_base64(thing["data"], where)


def _check_fields(thing: Mapping[str, Any], kind: Kind, where: str, api: str) -> None:
    for needed in kind.needs:
        if not isinstance(thing.get(needed), str) or not thing[needed]:
            raise InvalidContent(f"{where} must have a text {needed!r} that is not empty")
    for needed in kind.texts:
        if not isinstance(thing.get(needed), str):
            raise InvalidContent(f"{where} must have a text {needed!r}")
    for name, values in {**kind.one_of, **({"media_type": kind.media} if kind.media else {})}.items():
        if thing.get(name) not in values:
            raise InvalidContent(f"{name!r} of {where} must be {_listed(values)}, and is {thing.get(name)!r}")
    if kind.may is None:
        return
    own = {"type", *kind.needs, *kind.texts, *kind.may, *kind.one_of}
    own |= ({"source"} if kind.sources else set()) | ({"content"} if kind.inner else set())
    if unknown := sorted(thing.keys() - own):
        raise InvalidContent(f"{where} has the field {unknown[0]!r}, which {api} does not take; leave it out")


def _check_inner(content: object, kinds: Mapping[str, Kind], where: str, api: str) -> None:
    if content is None or isinstance(content, str):
        return
    if not isinstance(content, Sequence):
        raise InvalidContent(f"the content of {where} must be text or a list of blocks")
    for position, inner in enumerate(content):
        _check(inner, kinds, f"block {position} in the content of {where}", api)


def _check_base64(data: str, where: str) -> None:
    try:
        binascii.a2b_base64(data, strict_mode=True)
    except ValueError as error:
        raise InvalidContent(f"'data' of {where} is no base64 ({error}); encode the bytes with base64") from None


def _listed(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
