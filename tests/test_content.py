"""Content: what may be sent, and how it is told as text."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsm import InvalidContent, InvalidKey
from fsm._core.validation import check_key
from fsm.content import as_blocks, plain, text_block, text_of

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(
    st.lists(
        st.builds(
            lambda extra, kind: {**extra, "type": kind},
            st.dictionaries(st.sampled_from("abc"), JSON),
            st.sampled_from(["image", "x"]),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_blocks_pass_as_they_are(blocks: list[dict[str, Any]]) -> None:
    assert as_blocks(blocks) == tuple(blocks)


@given(st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip))
def test_text_becomes_one_text_block(text: str) -> None:
    assert as_blocks(text) == (text_block(text),)
    assert text_of(as_blocks(text)) == text


def test_tuples_become_lists_as_json_has_it() -> None:
    assert as_blocks([{"type": "x", "items": (1, 2)}]) == ({"type": "x", "items": [1, 2]},)


def deep() -> Any:
    """A block nested deeper than JSON can be written."""
    block: dict[str, Any] = {"type": "x"}
    for _ in range(100_000):
        block = {"type": "x", "in": block}
    return block


@pytest.mark.parametrize("blank", ["", " ", "\n\t"])
def test_a_blank_text_beside_other_blocks_is_left_out(blank: str) -> None:
    """An empty field of a form beside an image; alone it is refused."""
    image = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
    assert as_blocks([text_block(blank), image, text_block("what is this?"), text_block(blank)]) == (
        image,
        text_block("what is this?"),
    )
    with pytest.raises(InvalidContent, match="only white space"):
        as_blocks([text_block(blank), text_block(blank)])


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "empty"),
        (" \n\t", "only white space"),
        ([], "the content is empty"),
        (None, "of type NoneType"),
        (7, "of type int"),
        (b"bytes", "of type bytes"),
        ({"type": "text", "text": "a mapping"}, "of type dict"),
        (["text"], "block 0 is no JSON object"),
        ([{"type": "text", "text": "good"}, {"text": "no type"}], "block 1 is no JSON object"),
        ([{"type": ""}], "block 0 is no JSON object"),
        ([{"type": 3}], "block 0 is no JSON object"),
        ([{"type": "text"}], "block 0 is of type 'text' but has no text"),
        ([{"type": "text", "text": " "}], "only white space"),
        ([{"type": "x", "data": b"bytes"}], "block 0 can't be written as JSON in UTF-8 (TypeError)"),
        ([{"type": "x", "data": float("nan")}], "block 0 can't be written as JSON in UTF-8 (ValueError)"),
        ([{"type": "x", "data": "\udfff"}], "block 0 can't be written as JSON in UTF-8 (UnicodeEncodeError)"),
        ([deep()], "block 0 can't be written as JSON in UTF-8 (RecursionError)"),
        ("a lone \ud800 surrogate", "a lone surrogate at position 7"),
    ],
)
def test_content_that_can_not_be_stored_and_sent_is_refused(content: Any, why: str) -> None:
    with pytest.raises(InvalidContent) as caught:
        as_blocks(content, "k")
    assert why in str(caught.value)
    assert str(caught.value).startswith("conversation 'k': ")


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("", "the key is empty"),
        ("x" * 513, "the key has 513 characters"),
        ("a\0b", "NUL"),
        ("\ud800", "a lone surrogate"),
        (None, "of type NoneType"),
        (b"k", "of type bytes"),
    ],
)
def test_a_key_that_is_none_is_refused(key: Any, why: str) -> None:
    with pytest.raises(InvalidKey) as caught:
        check_key(key)
    assert why in str(caught.value)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=512))
def test_any_other_text_is_a_key(key: str) -> None:
    assert check_key(key) == key


def test_the_longest_key_is_a_key() -> None:
    assert check_key("é" * 512) == "é" * 512


@pytest.mark.parametrize(
    ("block", "told"),
    [
        ({"type": "thinking", "thinking": "secret", "signature": "x"}, ""),
        ({"type": "redacted_thinking", "data": "x"}, ""),
        ({"type": "tool_use", "id": "t", "name": "look", "input": {"ä": 1}}, '[called the tool look with {"ä": 1}]'),
        ({"type": "server_tool_use", "id": "t", "name": "web", "input": {}}, "[called the tool web with {}]"),
        ({"type": "mcp_tool_use", "id": "t", "name": "far", "input": {}}, "[called the tool far with {}]"),
        ({"type": "text"}, ""),
        ({"type": "tool_result", "tool_use_id": "t", "content": "ok"}, "[the tool answered: ok]"),
        ({"type": "tool_result", "tool_use_id": "t", "content": "no", "is_error": True}, "[the tool failed: no]"),
        (
            {"type": "tool_result", "tool_use_id": "t", "content": [text_block("a"), {"type": "image"}]},
            "[the tool answered: a\n[image]]",
        ),
        (
            {"type": "web_search_tool_result", "tool_use_id": "t", "content": [{"url": "u"}]},
            '[the tool answered: [{"url": "u"}]]',
        ),
        ({"type": "tool_result", "tool_use_id": "t"}, "[the tool answered: null]"),
        ({"type": "document", "source": {}}, "[document]"),
    ],
)
def test_every_block_is_told_in_words(block: dict[str, Any], told: str) -> None:
    assert plain(block) == told


def test_the_text_of_blocks_is_that_of_the_text_blocks_joined_as_it_stands() -> None:
    assert text_of([text_block("a"), {"type": "image", "text": "no"}, {"type": "text"}, text_block("b")]) == "ab"


def test_what_a_tool_answered_is_told_in_its_own_letters() -> None:
    assert (
        plain({"type": "tool_result", "tool_use_id": "t", "content": {"ü": "é"}}) == '[the tool answered: {"ü": "é"}]'
    )
    assert plain({"type": "tool_use", "id": "t", "name": "look", "input": {"ü": 1}}) == (
        '[called the tool look with {"ü": 1}]'
    )
