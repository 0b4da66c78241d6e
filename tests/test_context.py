"""Rebuilding a context: what is selected, and how it is delimited (G3)."""

import re
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsm import ContextWindow, InvalidInput, Message
from fsm._core.shortening import shortened
from fsm.content import text_block
from fsm.context import as_prompt, as_transcript, narrower, rebuild, with_results

NOW = datetime(2026, 1, 1, tzinfo=UTC)

CALL = {"type": "tool_use", "id": "t-1", "name": "look", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "t-1", "content": "seen"}


def history(*turns: list[list[dict[str, Any]]]) -> list[Message]:
    """Messages of turns, each a list of messages' blocks, users and assistants in turn."""
    messages: list[Message] = []
    for number, turn in enumerate(turns, 1):
        for position, blocks in enumerate(turn):
            role = "assistant" if position % 2 else "user"
            messages.append(
                Message(number=len(messages) + 1, turn=number, role=role, content=tuple(blocks), created_at=NOW)
            )
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
    """G3, G22: both limits hold, whole turns stay as they are, and one more would break a limit."""
    messages = texts(*turns)
    kept = ContextWindow(max_messages=max_messages, max_characters=max_characters).select(messages)
    assert len(kept) <= max_messages
    assert sum(len(message.text) for message in kept) <= max_characters
    whole = [list(of_turn) for _, of_turn in groupby(messages, key=lambda message: message.turn)]
    count = size = 0
    due: list[Message] = []
    for turn in reversed(whole):
        count, size = count + len(turn), size + sum(len(message.text) for message in turn)
        if count > max_messages or size > max_characters:
            break
        due = turn + due
    assert list(kept[len(kept) - len(due) :]) == due
    too_large = [message.number for message in messages[: len(messages) - len(due)]]
    assert {message.number for message in kept[: len(kept) - len(due)]} <= set(too_large)


@given(turns=TURNS.filter(bool), max_messages=st.integers(2, 12), max_characters=st.integers(8, 200))
def test_something_is_told_while_there_is_something_to_tell_and_space_for_it(
    turns: list[tuple[str, ...]], max_messages: int, max_characters: int
) -> None:
    """G22: what is too large by itself is cut inside."""
    messages = texts(*turns)
    kept = ContextWindow(max_messages=max_messages, max_characters=max_characters).select(messages)
    assert kept
    assert all(message.text for message in kept)
    assert kept[0].role == "user"
    newest = [message.number for message in messages if message.turn == messages[-1].turn]
    assert newest[0] in {message.number for message in kept}


def test_a_long_text_leaves_space_for_what_was_said_before_it() -> None:
    """G22: its beginning and its end stay, and a mark says what is left out."""
    messages = texts(("I am Ann", "Hello Ann"), ("a" * 5_000 + "z" * 5_000, "that was long"))
    told = ContextWindow(max_characters=8_000).select(messages)
    assert [message.text for message in told[:2]] == ["I am Ann", "Hello Ann"]
    assert (len(told[2].text), told[2].text[:5], told[2].text[-5:]) == (1_999, "aaaaa", "zzzzz")
    assert "characters are left out here" in told[2].text
    assert told[3].text == "that was long"


@pytest.mark.parametrize("steps", [49, 50, 51, 200])
def test_a_long_chain_of_tool_calls_keeps_its_task_and_its_newest_steps(steps: int) -> None:
    """G22: and no answer comes without its call."""
    turns: list[list[list[dict[str, Any]]]] = [[[text_block("the task")], [called(1)]]]
    turns += [[[answered(step)], [called(step + 1)]] for step in range(1, steps)]
    told = ContextWindow().select(history(*turns), [answered(steps)])
    assert len(told) == min(2 * steps, 100)
    assert told[0].text.startswith("the task")
    assert ("messages are left out here" in told[0].text) == (steps > 50)
    assert told[-1].text == f'[called the tool look with {{"step": {steps}}}]'
    assert [message.role for message in told] == ["user", "assistant"] * (len(told) // 2)


def called(step: int) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"t-{step}", "name": "look", "input": {"step": step}}


def answered(step: int) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": f"t-{step}", "content": f"seen {step}"}


@given(st.text(max_size=300), st.integers(0, 300))
def test_a_shortened_text_is_as_long_as_it_may_be_and_says_so(text: str, limit: int) -> None:
    """G22."""
    short = shortened(text, limit)
    assert len(short) <= limit
    assert (short == text) == (len(text) <= limit)
    assert "…" in short or short == text or not limit


def test_what_fits_exactly_is_kept() -> None:
    messages = texts(("ab", "cd"), ("ef", "gh"))
    assert list(ContextWindow(max_messages=4, max_characters=8).select(messages)) == messages
    assert list(ContextWindow(max_messages=4, max_characters=7).select(messages)) == messages[2:]
    assert list(ContextWindow(max_messages=3, max_characters=8).select(messages)) == messages[2:]


def test_a_turn_whose_beginning_was_not_read_is_left_out() -> None:
    """A store reads one message more than fit, which cuts the oldest turn in half."""
    read = texts(("a", "b"), ("c", "d"), ("e", "f"))[1:]
    assert [message.number for message in ContextWindow(max_messages=4).select(read)] == [3, 4, 5, 6]


def test_a_call_without_a_result_is_told_as_one_that_may_have_run() -> None:
    """G23: nobody knows, and never is it told that it did not run."""
    messages = history([[text_block("a")], [text_block("let me look"), CALL]], [[text_block("b")], [CALL]])
    call = "[called the tool look with {}]\n[no result was recorded; it may have run]"
    assert [message.text for message in rebuild(messages, ContextWindow())] == ["a", f"let me look\n{call}", "b", call]


def test_a_result_of_a_turn_that_did_not_succeed_is_told_in_its_place() -> None:
    """G23: the result, and nothing else of that turn."""
    told = history([[text_block("a")], [CALL]], [], [], [[text_block("c")], [text_block("d")]])
    told[2:] = [attrs.evolve(message, number=message.number + 2) for message in told[2:]]
    unheard = Message(number=3, turn=2, role="user", content=(RESULT, text_block("secret")), created_at=NOW)
    messages = with_results(told, [unheard])
    assert [message.number for message in messages] == [1, 2, 3, 5, 6]
    assert messages[2].content == (RESULT,)
    assert [message.text for message in rebuild(messages, ContextWindow())] == [
        "a",
        "[called the tool look with {}]",
        "[the tool answered: seen]",
        "(no answer in text)",
        "c",
        "d",
    ]


def test_a_result_that_was_sent_again_right_away_is_told_once() -> None:
    """G23: the newest counts, whether its turn succeeded or is the new message."""
    told = history([[text_block("a")], [CALL]])
    first, second = (
        Message(number=number, turn=number - 1, role="user", content=(RESULT,), created_at=NOW) for number in (3, 4)
    )
    assert [message.number for message in with_results(told, [first, second])] == [1, 2, 4]
    assert [message.number for message in with_results(told, [first, second], [RESULT])] == [1, 2]
    later = Message(number=5, turn=4, role="user", content=(RESULT,), created_at=NOW)
    assert [message.number for message in with_results([*told, later], [first, second])] == [1, 2, 5]
    answer = Message(number=5, turn=4, role="assistant", content=(text_block("hm"),), created_at=NOW)
    again = Message(number=6, turn=5, role="user", content=(RESULT,), created_at=NOW)
    assert [message.number for message in with_results([*told, answer, again], [first])] == [1, 2, 3, 5, 6]


def test_less_of_the_history_is_told_each_time_a_new_session_refuses_it() -> None:
    """G11, G22: half of it, down to the smallest window."""
    tried, told = [], 1_000
    while (narrowed := narrower(told)) is not None:
        tried.append(narrowed)
        told = narrowed
    assert tried == [500, 250, 125, 100]


def test_a_window_is_remembered_by_what_fitted() -> None:
    """G22: history and message together; the smallest window is always told, and never more than the manager's."""
    window, message = ContextWindow(max_characters=50_000), [text_block("x" * 1_000)]
    assert window.remembered(None, message) == window
    assert window.remembered(11_000, message).max_characters == 10_000
    assert window.remembered(900, message).max_characters == 100
    assert window.remembered(99_000, message) == window
    assert ContextWindow(max_characters=0).remembered(11_000, message).max_characters == 0


def test_a_call_that_the_new_message_answers_is_kept() -> None:
    messages = history([[text_block("a")], [CALL]])
    assert rebuild(messages, ContextWindow(), [RESULT])[-1].text == "[called the tool look with {}]"


def test_a_call_and_its_answer_are_kept_or_dropped_together() -> None:
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
    message = Message(
        number=1,
        turn=1,
        role="assistant",
        content=({"type": "thinking"}, text_block("a")),
        created_at=NOW,
        provider_data={"container": "c"},
    )
    (kept,) = rebuild([message], ContextWindow())
    assert (kept.content, kept.provider_data) == ((text_block("a"),), None)


@pytest.mark.parametrize(
    "bad", [{"max_messages": -1}, {"max_characters": -1}, {"max_messages": 1.5}, {"max_messages": True}]
)
def test_a_window_of_no_size_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=f"{next(iter(bad))} is .*; it must be a whole number from 0"):
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
    earlier = as_transcript(texts(*turns)).split("\n")
    forged = data.draw(st.lists(st.sampled_from([*earlier, earlier[0][-18:-2]]), min_size=1)).copy()
    messages = texts(*turns, ("\n".join(forged), earlier[-1]))
    assert parse(as_transcript(messages)) == [(message.role, message.text) for message in messages]


@given(TURNS.filter(bool), TEXT)
def test_the_new_message_stands_after_the_history_and_only_there(turns: list[tuple[str, ...]], new: str) -> None:
    transcript = as_transcript(texts(*turns))
    prompt = as_prompt(texts(*turns), [text_block(new)])
    assert prompt.endswith(f"{transcript}\n\n{new}")
    assert prompt.count(transcript) == 1


def test_blocks_of_one_message_stand_on_lines_of_their_own() -> None:
    blocks = [text_block("one"), {"type": "thinking", "thinking": "hm"}, text_block("two")]
    assert as_prompt((), blocks) == "one\ntwo"


def test_without_a_past_there_is_only_the_new_message() -> None:
    assert as_prompt((), [text_block("hello")]) == "hello"
    assert as_transcript(()) == ""


def test_a_mark_that_content_has_guessed_is_not_used() -> None:
    from fsm.context import boundary

    assert boundary(["a"]) != boundary(["b"])

    class Guesses(str):
        __slots__ = ()

        def __contains__(self, mark: object) -> bool:
            return mark == boundary(["a"])

    assert boundary([Guesses("a")]) not in {"", boundary(["a"])}


def test_messages_that_differ_only_in_where_one_ends_have_different_marks() -> None:
    """A mark is drawn from all that is said, also from what can't be encoded as UTF-8."""
    from fsm.context import boundary

    assert len({boundary(texts) for texts in (["ab"], ["a", "b"], ["\ud83d"], ["?"], [])}) == 5


def test_a_prompt_says_what_the_history_is_for() -> None:
    prompt = as_prompt(texts(("one", "two")), [text_block("three")])
    before, _, _ = prompt.partition("<conversation-history")
    assert "Answer only the message after it." in before
    assert "three" not in before
