"""The strategies: what they make is what may be, all of it comes up, and it shrinks to the simplest story."""

import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

from fsm import Message, Result, SessionManager, TextDelta, ToolResult, ToolUse, Trigger
from fsm._core.validation import check_key
from fsm.content import as_blocks
from fsm.events import EXPIRED
from fsm.testing import ReferenceStore, strategies
from fsm.testing.steps import Act, Hang, RefuseWrite, Reset, Restart, Send, Wake, story, told
from persistence import SQLStore
from tests.properties.world import RefusingStore, World

QUICKLY = settings(max_examples=2000, database=None, derandomize=True)


@pytest.mark.parametrize(
    "wanted",
    [
        lambda result: result.trigger is Trigger.SUCCEEDED and result.session_id is None,
        lambda result: result.trigger is Trigger.EXPIRED and result.session_id == "s-2",
        lambda result: result.subtype == "success" and result.http_status == 429,
        lambda result: result.subtype == "error_max_turns" and not result.is_error,
        lambda result: result.subtype == "interrupted",
        lambda result: result.stop_reason == "refusal",
    ],
)
def test_every_kind_of_result_comes_up(wanted: object) -> None:
    """Failures dressed as success and missing ids among them."""
    assert find(strategies.results(), wanted, settings=QUICKLY)


@given(success=strategies.successes(), failure=strategies.failures(), death=strategies.deaths(), act=strategies.acts())
def test_a_strategy_makes_what_its_name_says(success: Result, failure: Result, death: Result, act: Act) -> None:
    """Triggers tell."""
    assert success.trigger is Trigger.SUCCEEDED
    assert failure.trigger in {Trigger.FAILED, Trigger.SUCCEEDED if failure.subtype == "interrupted" else None}
    assert death.subtype == EXPIRED
    assert all(isinstance(event, TextDelta | ToolUse | ToolResult | Result) for event in act.events)


@given(events=strategies.event_streams(malformed=False), other=strategies.event_streams())
def test_well_formed_streams_end_in_their_one_result(events: tuple[object, ...], other: tuple[object, ...]) -> None:
    """Others may not."""
    assert [isinstance(event, Result) for event in events] == [False] * (len(events) - 1) + [True]
    assert sum(isinstance(event, Result) for event in other) <= 1


@given(key=strategies.keys(), content=strategies.contents())
def test_keys_and_contents_are_accepted_and_stored_as_they_are(key: str, content: object) -> None:
    """By every kind of store in this process."""
    assert check_key(key) == key
    with SQLStore("sqlite:///:memory:") as sqlite:
        for store in (sqlite, ReferenceStore()):
            manager = SessionManager(store, _Silent())
            manager.send(key, content)
            (message,) = manager.conversations.messages(key)
            assert isinstance(message, Message)
            assert message.content == as_blocks(content)


class _Silent:
    name = "silent"

    def stream(self, request: object) -> object:
        yield Result()


def test_a_strategy_is_made_once() -> None:
    """Making it for each draw takes longer than playing it."""
    assert strategies.scripts() is strategies.scripts()
    assert strategies.scripts(strategies.refused_writes()) is strategies.scripts(strategies.refused_writes())
    assert strategies.sends(strategies.well_formed()) is strategies.sends(strategies.well_formed())


@pytest.mark.parametrize("kind", [Send, Hang, Wake, Reset, Restart, RefuseWrite])
def test_a_script_shrinks_to_the_step_that_matters(kind: type) -> None:
    """Whatever it began with."""
    script = find(
        strategies.scripts(strategies.refused_writes()),
        lambda script: any(isinstance(step, kind) for step in script),
        settings=QUICKLY,
    )
    assert [type(step) for step in script] == [kind]


def test_a_step_reads_as_a_sentence_and_as_code() -> None:
    """So a failing example can be read and be played again."""
    names = {cls.__name__: cls for cls in (Act, Hang, RefuseWrite, Reset, Restart, Send, Wake)}
    names |= {cls.__name__: cls for cls in (Result, TextDelta, ToolUse, ToolResult)}
    busy = Act((ToolUse("t-1", "look", {"at": "it"}), ToolResult("t-1", "no", is_error=True)), raises=True)
    cut = Act((TextDelta("yes"),))
    script = [
        Send((busy, cut), take=1, idempotency_key="i-1", heal=False),
        Hang((Act((Result(is_error=True, http_status=429, usage={"n": 1}),)),), provider="b", take=2),
        Reset(),
        Reset(force=True),
        Wake(),
        Restart(),
        RefuseWrite(2),
    ]
    assert eval(repr(script), names) == script
    first = "1. a message named i-1, given up after 1 events, by a worker that does not heal; a answers: "
    first += "calls look, failure of t-1, raises; if asked again: “yes”, ends without a result"
    assert story(script).splitlines() == [
        first,
        "2. a message whose worker stops after 2 events; b answers: success, HTTP 429 (an error) of no session",
        "3. a reset",
        "4. a forced reset",
        "5. the worker that stopped longest ago goes on",
        "6. all workers crash, and others take their place after every lease is over",
        "7. the database is going to refuse commit 2 from now on",
    ]
    assert told(1) == "1, which is no event"
    assert str(Send(())) == "a message; a answers: nothing scripted"


@given(st.data())
def test_scripts_can_be_played(data: st.DataObject) -> None:
    """On a real store, whatever is added to them."""
    with RefusingStore("sqlite:///:memory:") as store:
        world = World(store).play(data.draw(strategies.scripts(strategies.named_sends(), max_size=4)))
        assert all(isinstance(outcome.step, Send | Hang) for outcome in world.outcomes)
