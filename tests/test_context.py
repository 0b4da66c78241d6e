"""Rebuilding a context: what is selected, and how it is delimited (G3)."""

import re
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsm import ContextWindow, Message
from fsm.content import text_block
from fsm.context import as_prompt, as_transcript, rebuild

NOW = datetime(2026, 1, 1, tzinfo=UTC)

CALL = {"type": "tool_use", "id": "t-1", "name": "look", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "t-1", "content": "seen"}


def history(*turns: list[list[dict[str, Any]]]) -> list[Message]:
    """Messages of turns, each a list of messages' blocks, users and assistants in turn."""
    messages: list[Message] = []
    for number, turn in enumerate(turns, 1):
        for position, blocks in enumerate(turn):
            role = "assistant" if position % 2 else "user"
            messages.append(Message(len(messages) + 1, number, role, tuple(blocks), NOW))
    return messages


def texts(*turns: tuple[str, ...]) -> list[Message]:
    """Messages of plain text."""
    return history(*([[text_block(text)] for text in turn] for turn in turns))


TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)
TURNS = st.lists(st.lists(TEXT, min_size=2, max_size=4).map(tuple), max_size=6)


@given(turns=TURNS, max_messages=st.integers(0, 12), max_characters=st.integers(0, 200))
def test_the_window_keeps_the_newest_whole_turns_that_fit_and_no_fewer(
    turns: list[tuple[str, ...]], max_messages: int, max_characters: int
) -> None:
    """Both limits hold, and one turn more would break one of them."""
    messages = texts(*turns)
    kept = ContextWindow(max_messages=max_messages, max_characters=max_characters).select(messages)
    assert list(kept) == messages[len(messages) - len(kept) :]
    whole = [list(of_turn) for _, of_turn in groupby(messages, key=lambda message: message.turn)]
    sizes = [(len(turn), sum(len(message.text) for message in turn)) for turn in whole]
    count = size = fitting = 0
    for in_turn, characters in reversed(sizes):
        if count + in_turn > max_messages or size + characters > max_characters:
            break
        count, size, fitting = count + in_turn, size + characters, fitting + 1
    assert len(kept) == sum(in_turn for in_turn, _ in sizes[len(sizes) - fitting :])


def test_what_fits_exactly_is_kept() -> None:
    """In messages and in characters."""
    messages = texts(("ab", "cd"), ("ef", "gh"))
    assert list(ContextWindow(max_messages=4, max_characters=8).select(messages)) == messages
    assert list(ContextWindow(max_messages=4, max_characters=7).select(messages)) == messages[2:]
    assert list(ContextWindow(max_messages=3, max_characters=8).select(messages)) == messages[2:]


def test_a_turn_whose_beginning_was_not_read_is_left_out() -> None:
    """A store reads one message more than fit, which cuts the oldest turn in half."""
    read = texts(("a", "b"), ("c", "d"), ("e", "f"))[1:]
    assert [message.number for message in ContextWindow(max_messages=4).select(read)] == [3, 4, 5, 6]


def test_a_call_that_nobody_answered_is_left_out() -> None:
    """Its text stays; a message that was nothing else says so."""
    messages = history([[text_block("a")], [text_block("let me look"), CALL]], [[text_block("b")], [CALL]])
    assert [message.text for message in rebuild(messages, ContextWindow())] == [
        "a",
        "let me look",
        "b",
        "(no answer in text)",
    ]


def test_a_call_that_the_new_message_answers_is_kept() -> None:
    """It is the reason for the new message."""
    messages = history([[text_block("a")], [CALL]])
    assert rebuild(messages, ContextWindow(), [RESULT])[-1].text == "[called the tool look with {}]"


def test_a_call_and_its_answer_are_kept_or_dropped_together() -> None:
    """Turns that they tie together count as one."""
    messages = history(
        [[text_block("a")], [CALL]], [[RESULT], [text_block("b")]], [[text_block("c")], [text_block("d")]]
    )
    assert [message.number for message in rebuild(messages, ContextWindow(max_messages=6))] == [1, 2, 3, 4, 5, 6]
    assert [message.number for message in rebuild(messages, ContextWindow(max_messages=5))] == [5, 6]
    assert rebuild(messages, ContextWindow())[2].text == "[the tool answered: seen]"


def test_a_turn_without_an_answer_is_told_as_such() -> None:
    """So that no model takes an old message for a new one."""
    assert [(message.role, message.text) for message in rebuild(texts(("a",), ("b", "c")), ContextWindow())] == [
        ("user", "a"),
        ("assistant", "(no answer in text)"),
        ("user", "b"),
        ("assistant", "c"),
    ]


def test_what_is_rebuilt_is_plain_text_without_what_a_provider_kept() -> None:
    """Thinking of a session that is gone means nothing to the next."""
    message = Message(1, 1, "assistant", ({"type": "thinking"}, text_block("a")), NOW, {"container": "c"})
    (kept,) = rebuild([message], ContextWindow())
    assert (kept.content, kept.provider_data) == ((text_block("a"),), None)


@pytest.mark.parametrize("bad", [{"max_messages": -1}, {"max_characters": -1}, {"max_messages": 1.5}])
def test_a_window_of_no_size_is_refused(bad: dict[str, Any]) -> None:
    """Sizes are whole numbers from 0."""
    with pytest.raises((TypeError, ValueError)):
        ContextWindow(**bad)


def parse(transcript: str) -> list[tuple[str, str]]:
    """Read a transcript back, by its boundary."""
    opening, _, rest = transcript.partition("\n")
    mark = re.fullmatch(r'<conversation-history boundary="([0-9a-f]{16})">', opening)[1]
    inside = rest.removesuffix(f'</conversation-history boundary="{mark}">').removesuffix("\n")
    pieces = re.split(rf"(?:^|\n)\[{mark} (user|assistant)\]\n", inside)
    assert pieces[0] == ""
    return list(zip(pieces[1::2], pieces[2::2], strict=True))


@given(TURNS.filter(bool), st.data())
def test_content_can_not_close_its_own_delimiter(turns: list[tuple[str, ...]], data: st.DataObject) -> None:
    """Content that quotes an earlier delimiter, whole or in part, is still read back exactly."""
    earlier = as_transcript(texts(*turns)).split("\n")
    forged = data.draw(st.lists(st.sampled_from([*earlier, earlier[0][-18:-2]]), min_size=1)).copy()
    messages = texts(*turns, ("\n".join(forged), earlier[-1]))
    assert parse(as_transcript(messages)) == [(message.role, message.text) for message in messages]


@given(TURNS.filter(bool), TEXT)
def test_the_new_message_stands_after_the_history_and_only_there(turns: list[tuple[str, ...]], new: str) -> None:
    """So that the model answers only the new message."""
    transcript = as_transcript(texts(*turns))
    prompt = as_prompt(texts(*turns), [text_block(new)])
    assert prompt.endswith(f"{transcript}\n\n{new}")
    assert prompt.count(transcript) == 1


def test_blocks_of_one_message_stand_on_lines_of_their_own() -> None:
    """But for those that can't be told."""
    blocks = [text_block("one"), {"type": "thinking", "thinking": "hm"}, text_block("two")]
    assert as_prompt((), blocks) == "one\ntwo"


def test_without_a_past_there_is_only_the_new_message() -> None:
    """No empty delimiters."""
    assert as_prompt((), [text_block("hello")]) == "hello"
    assert as_transcript(()) == ""


def test_a_mark_that_content_has_guessed_is_not_used() -> None:
    """Nobody can guess it; but if somebody did, the next one is taken."""
    from fsm.context import _boundary

    assert _boundary(["a"]) != _boundary(["b"])

    class Guesses(str):
        __slots__ = ()

        def __contains__(self, mark: object) -> bool:
            return mark == _boundary(["a"])

    assert _boundary([Guesses("a")]) not in {"", _boundary(["a"])}


def test_messages_that_differ_only_in_where_one_ends_have_different_marks() -> None:
    """A mark is drawn from all that is said, also from what can't be encoded as UTF-8."""
    from fsm.context import _boundary

    assert len({_boundary(texts) for texts in (["ab"], ["a", "b"], ["\ud83d"], ["?"], [])}) == 5


def test_a_prompt_says_what_the_history_is_for() -> None:
    """Something stands before it, and it is not the new message."""
    prompt = as_prompt(texts(("one", "two")), [text_block("three")])
    before, _, _ = prompt.partition("<conversation-history")
    assert "Answer only the message after it." in before
    assert "three" not in before
