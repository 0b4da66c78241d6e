"""The synchronous manager: what its callers see, told with real stores and the demo provider."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import attrs
import pytest

from fsm import (
    AsyncSessionManager,
    Conflict,
    ContextWindow,
    ConversationBusy,
    ConversationNotFound,
    Event,
    FSMError,
    InvalidContent,
    InvalidInput,
    InvalidKey,
    ProviderError,
    Reply,
    Request,
    Result,
    SessionManager,
    State,
    StoreError,
    TextDelta,
    ToolResult,
    ToolUse,
    Transition,
    Trigger,
    TurnStatus,
    TurnSuperseded,
)
from fsm._core import decisions as decide
from fsm._core.effects import Step
from fsm.content import Block
from fsm.events import EXPIRED
from fsm.providers import DemoProvider
from persistence import SQLStore
from tests.begun import abandoned_turn
from tests.stores import Refusing, begins, ends, extends

ANSWER = [TextDelta("one "), TextDelta("two"), Result(session_id="s-1")]
DEAD = Result(subtype=EXPIRED, is_error=True, session_id="s-1")


class Clock:
    """A clock that stands still until it is told to move."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        """Move."""
        self.now += timedelta(seconds=seconds)


def manager(store: SQLStore, *script: Any, **options: Any) -> SessionManager:
    """A manager whose provider does what the script says."""
    return SessionManager(store, DemoProvider(script), **options)


def moves(sessions: SessionManager) -> list[tuple[State, Trigger, State]]:
    """The log of the conversation k."""
    return [(move.source, move.trigger, move.target) for move in sessions.conversations.transitions("k")]


def test_a_dead_session_is_healed_within_the_turn_that_finds_it_dead(store: SQLStore) -> None:
    provider = DemoProvider()
    sessions = SessionManager(store, provider)
    sessions.send("k", "my name is Ada")
    provider.forget()
    reply = sessions.send("k", "what is my name?")
    assert "“my name is Ada”" in reply.text
    assert (reply.healed, reply.state, reply.status) == (True, State.ACTIVE, TurnStatus.SUCCEEDED)
    assert moves(sessions) == [
        (State.FRESH, Trigger.SUCCEEDED, State.ACTIVE),
        (State.ACTIVE, Trigger.EXPIRED, State.STALE),
        (State.STALE, Trigger.RESET, State.FRESH),
        (State.FRESH, Trigger.SUCCEEDED, State.ACTIVE),
    ]
    first, second = sessions.conversations.sessions("k")
    assert (first.closed_reason, second.opened_reason, second.parent) == (EXPIRED, "heal", 1)
    assert sessions.conversations.turns("k")[-1].session_number == 2


def test_without_healing_the_turn_fails_and_the_next_one_remembers(store: SQLStore) -> None:
    provider = DemoProvider()
    sessions = SessionManager(store, provider, heal=False)
    sessions.send("k", "my name is Ada")
    provider.forget()
    reply = sessions.send("k", "what is my name?")
    assert (reply.state, reply.status, reply.text) == (State.STALE, TurnStatus.FAILED, "")
    assert sessions.conversations.get("k").state is State.STALE
    assert "“my name is Ada”" in sessions.send("k", "and now?").text


def test_a_stream_hands_out_what_batch_returns(store: SQLStore) -> None:
    sessions = manager(store, ANSWER, ANSWER)
    with sessions.stream("k", "hello") as turn:
        assert list(turn) == ANSWER
        assert turn.reply.text == "one two"
    assert sessions.send("k", "hello").text == "one two"


def test_the_result_is_stored_before_it_is_handed_out(store: SQLStore) -> None:
    """A caller that gets the result may rely on it (G8)."""
    sessions = manager(store, ANSWER)
    with sessions.stream("k", "hello") as turn:
        for event in turn:
            ended = store.turns(sessions.conversations.get("k"))[0].status is TurnStatus.SUCCEEDED
            assert ended == isinstance(event, Result)


def test_the_message_is_stored_before_the_provider_hears_of_it(store: SQLStore) -> None:
    """G8."""

    def look(request: Request) -> Result:
        assert [message.text for message in store.messages(store.load("k"))] == ["hello"]
        assert store.load("k").running.turn == request.turn
        return Result()

    assert manager(store, look).send("k", "hello").status is TurnStatus.SUCCEEDED


def test_an_abandoned_stream_is_interrupted_and_its_text_kept(store: SQLStore) -> None:
    provider = DemoProvider([ANSWER, ANSWER])
    sessions = SessionManager(store, provider)
    sessions.send("k", "hello")
    with sessions.stream("k", "again") as turn:
        next(iter(turn))
    assert (turn.reply.status, turn.reply.text, turn.reply.result) == (TurnStatus.INTERRUPTED, "one ", None)
    assert sessions.conversations.get("k").session_id == "s-1"
    assert [message.text for message in sessions.conversations.messages("k")] == ["hello", "one two", "again", "one "]
    sessions.reset("k")
    sessions.send("k", "now")
    assert [message.text for message in provider.requests[-1].history] == ["hello", "one two"]


def test_an_exception_in_the_callers_block_interrupts_the_turn_and_comes_through(store: SQLStore) -> None:
    sessions = manager(store, ANSWER)
    with pytest.raises(ZeroDivisionError), sessions.stream("k", "hello") as turn:
        next(iter(turn))
        raise ZeroDivisionError
    assert sessions.conversations.turns("k")[0].status is TurnStatus.INTERRUPTED


def test_abandoning_closes_the_provider(store: SQLStore) -> None:
    closed = []

    class Watched(DemoProvider):
        def stream(self, request: Request) -> Iterator[Any]:
            try:
                yield from ANSWER
            finally:
                closed.append(request.turn)

    with SessionManager(store, Watched()).stream("k", "hello") as turn:
        next(iter(turn))
    assert closed == [1]


@pytest.mark.parametrize(
    ("does", "why", "status", "text"),
    [
        (RuntimeError("secret"), "the provider raised RuntimeError", TurnStatus.INTERRUPTED, ""),
        ([TextDelta("a"), RuntimeError()], "the provider raised RuntimeError", TurnStatus.INTERRUPTED, "a"),
        ([TextDelta("a")], "ended without a result", TurnStatus.INTERRUPTED, "a"),
        ([], "ended without a result", TurnStatus.INTERRUPTED, ""),
        ([TextDelta("a"), "b"], "yielded str, which is not an event", TurnStatus.INTERRUPTED, "a"),
    ],
)
def test_a_provider_that_breaks_its_contract_gets_a_clear_error_and_its_turn_is_ended(
    store: SQLStore, does: Any, why: str, status: TurnStatus, text: str
) -> None:
    """The answer is on the error and in the store, a result that came counts, and the next turn succeeds."""
    sessions = manager(store, does)
    with pytest.raises(ProviderError, match=why) as caught:
        sessions.send("k", "hello")
    assert caught.value.key == "k"
    assert "secret" not in str(caught.value)
    assert (caught.value.reply.status, caught.value.reply.text) == (status, text)
    (turn,) = sessions.conversations.turns("k")
    assert turn.status is status
    assert "".join(message.text for message in sessions.conversations.messages("k")[1:]) == text
    assert sessions.send("k", "again").status is TurnStatus.SUCCEEDED


@pytest.mark.parametrize("more", [TextDelta("b"), Result(), RuntimeError()])
def test_what_a_provider_would_do_after_its_result_changes_nothing(store: SQLStore, more: Any) -> None:
    """The answer is stored and handed out; nobody reads on. The kit's `check_provider` tells its author."""
    sessions = manager(store, [*ANSWER, more])
    with sessions.stream("k", "hello") as turn:
        assert list(turn) == ANSWER
    assert (turn.reply.status, turn.reply.text) == (TurnStatus.SUCCEEDED, "one two")
    assert sessions.send("k", "again").status is TurnStatus.SUCCEEDED


def test_a_providers_own_error_comes_through_with_the_conversation_named(store: SQLStore) -> None:
    with pytest.raises(ProviderError, match="conversation 'k': no such program") as caught:
        manager(store, ProviderError("no such program")).send("k", "hello")
    assert caught.value.reply.status is TurnStatus.INTERRUPTED


def test_a_provider_that_fails_to_close_does_no_harm(store: SQLStore, caplog: pytest.LogCaptureFixture) -> None:
    class Stuck(DemoProvider):
        def stream(self, request: Request) -> Iterator[Any]:
            try:
                yield TextDelta("a")
            finally:
                raise RuntimeError

    with SessionManager(store, Stuck()).stream("k", "hello") as turn:
        next(iter(turn))
    assert turn.reply.text == "a"
    assert "provider.close_failed" in caplog.messages


def test_a_provider_may_be_any_iterable(store: SQLStore, caplog: pytest.LogCaptureFixture) -> None:
    class Plain:
        name = "plain"

        def stream(self, request: Request) -> list[Any]:
            return ANSWER

    with SessionManager(store, Plain()).stream("k", "hello") as turn:
        next(iter(turn))
    assert turn.reply.status is TurnStatus.INTERRUPTED
    assert "provider.close_failed" not in caplog.messages


def test_a_busy_conversation_says_so_and_the_others_go_on(store: SQLStore) -> None:
    sessions = manager(store, ANSWER, ANSWER)
    with sessions.stream("k", "hello") as turn:
        with pytest.raises(ConversationBusy, match="'k': turn 1 is running"):
            sessions.send("k", "me too")
        assert sessions.send("other", "hello").status is TurnStatus.SUCCEEDED
        list(turn)
    assert [message.text for message in sessions.conversations.messages("k")] == ["hello", "one two"]


def test_waiting_ends_with_its_timeout(store: SQLStore) -> None:
    sessions = manager(store, ANSWER, on_busy="wait", busy_timeout=0.05)
    with sessions.stream("k", "first"), pytest.raises(ConversationBusy):
        sessions.send("k", "second")


def test_a_lease_is_extended_while_a_turn_streams(store: SQLStore) -> None:
    clock = Clock()
    sessions = manager(store, [TextDelta("a")] * 4 + [Result()], lease=60, clock=clock)
    other = manager(store, lease=60, clock=clock)
    with sessions.stream("k", "hello") as turn:
        for event in turn:
            clock.advance(40)
            if isinstance(event, TextDelta):
                with pytest.raises(ConversationBusy):
                    other.send("k", "me too")
    assert turn.reply.text == "aaaa"


def test_a_worker_whose_lease_was_taken_over_finishes_nothing(store: SQLStore) -> None:
    """G10: it is told, and its text is kept with its turn."""
    clock = Clock()
    slow, quick = (manager(store, ANSWER, lease=60, clock=clock) for _ in range(2))
    with pytest.raises(TurnSuperseded) as caught, slow.stream("k", "slow") as turn:
        events = iter(turn)
        next(events)
        clock.advance(61)
        assert quick.send("k", "quick").text == "one two"
        list(events)
    assert caught.value.reply.text == "one two"
    assert [turn.status for turn in quick.conversations.turns("k")] == [TurnStatus.INTERRUPTED, TurnStatus.SUCCEEDED]
    assert [(message.turn, message.text) for message in quick.conversations.messages("k")] == [
        (1, "slow"),
        (2, "quick"),
        (2, "one two"),
        (1, "one two"),
    ]


def test_a_late_death_marks_the_id_that_was_resumed(store: SQLStore) -> None:
    """G2: the superseded worker has found out that its session is dead."""
    clock = Clock()
    first = manager(store, ANSWER, lease=60, clock=clock)
    first.send("k", "hello")
    dead = [TextDelta("one "), Result(subtype=EXPIRED, is_error=True)]
    slow, quick = (manager(store, *script, lease=60, clock=clock) for script in ([dead], []))
    with pytest.raises(TurnSuperseded), slow.stream("k", "slow") as turn:
        next(iter(turn))
        clock.advance(61)
        quick.reset("k")
        list(turn)
    assert store.dead(quick.conversations.get("k"), ["s-1"]) == {"s-1"}


def test_a_reset_ends_a_turn_whose_worker_is_gone(store: SQLStore) -> None:
    """Without force, and for the provider of the manager that resets (G15)."""
    abandoned_turn(store)
    assert manager(store).reset("k").running is None
    another = SessionManager(store, DemoProvider(name="another"))
    another.reset("k")
    assert [session.provider for session in another.conversations.sessions("k")] == ["demo", "demo", "another"]


@pytest.mark.parametrize("kind", [SessionManager, AsyncSessionManager])
def test_a_manager_behaves_as_it_was_told(store: SQLStore, kind: Any) -> None:
    clock, moves = Clock(), []
    provider = DemoProvider([ANSWER, ANSWER, ANSWER, DEAD, ANSWER])
    options: Any = {"context": ContextWindow(max_messages=2), "lease": 5.0, "clock": clock, "observers": [moves.append]}
    sessions = kind(store, provider, heal=False, **options)

    async def talk() -> list[Reply]:
        replies = [sessions.send("k", f"message {number}") for number in range(5)]
        return [reply if kind is SessionManager else await reply for reply in replies]

    replies = anyio.run(talk)
    assert [reply.healed for reply in replies] == [False] * 5
    assert [len(request.history) for request in provider.requests] == [0, 0, 0, 0, 2]
    assert [move.target for move in moves][-3:] == [State.STALE, State.FRESH, State.FRESH]
    assert store.load("k").updated_at == clock.now


@pytest.mark.parametrize("kind", [SessionManager, AsyncSessionManager])
@pytest.mark.parametrize(("told", "seconds"), [({}, 600), ({"lease": 5.0}, 5)])
def test_a_turn_lasts_ten_minutes_without_a_sign_of_life_unless_told_otherwise(
    store: SQLStore, kind: Any, told: dict[str, Any], seconds: int
) -> None:
    clock, seen = Clock(), []

    class Looking(DemoProvider):
        def stream(self, request: Request) -> Iterator[Event]:
            seen.append(store.load("k").running.until - clock.now)
            return super().stream(request)

    sending = kind(store, Looking(), clock=clock, **told).send
    anyio.run(sending, "k", "hello") if kind is AsyncSessionManager else sending("k", "hello")
    assert seen == [timedelta(seconds=seconds)]


def test_a_worker_that_comes_back_late_does_not_ask_a_session_that_died_meanwhile(store: SQLStore) -> None:
    """G2: it had begun its turn, but not asked yet; now it is superseded before anything is sent."""
    clock = Clock()
    first = manager(store, ANSWER, lease=60, clock=clock)
    first.send("k", "hello")
    provider = DemoProvider([ANSWER])
    late, quick = SessionManager(store, provider, lease=60, clock=clock), manager(store, DEAD, ANSWER, clock=clock)
    with pytest.raises(TurnSuperseded), late.stream("k", "late") as turn:
        clock.advance(61)
        assert quick.send("k", "quick").healed
        list(turn)
    assert provider.requests == []


def test_recover_ends_turns_whose_lease_is_over_and_no_others(store: SQLStore) -> None:
    """Safe at any time (G9)."""
    clock = Clock()
    dead, alive, other = (manager(store, ANSWER, ANSWER, lease=60, clock=clock) for _ in range(3))
    kept = [dead.stream("dead", "hello"), alive.stream("alive", "hello")]
    kept[0].__enter__()
    clock.advance(30)
    kept[1].__enter__()
    clock.advance(31)
    assert [conversation.key for conversation in other.recover()] == ["dead"]
    assert other.recover() == []
    assert other.conversations.turns("dead")[0].status is TurnStatus.INTERRUPTED
    assert other.conversations.get("alive").running is not None
    for stream in kept:
        stream.__exit__(None, None, None)


def test_a_turn_whose_worker_is_gone_does_not_block_its_conversation(store: SQLStore) -> None:
    abandoned_turn(store)
    assert manager(store, ANSWER).send("k", "again").turn == 2


def test_a_forced_reset_supersedes_the_running_turn(store: SQLStore) -> None:
    """G10; without force the conversation is busy."""
    sessions = manager(store, ANSWER)
    with pytest.raises(TurnSuperseded), sessions.stream("k", "hello") as turn:
        with pytest.raises(ConversationBusy):
            sessions.reset("k")
        after = sessions.reset("k", reason="the user has left", force=True)
        assert (after.state, after.session_number) == (State.FRESH, 2)
        list(turn)
    assert sessions.conversations.turns("k")[0].status is TurnStatus.SUPERSEDED
    assert sessions.conversations.sessions("k")[0].closed_reason == "the user has left"


@pytest.mark.parametrize("reason", ["", "  ", "x" * 513, "two\nlines", None])
def test_a_reset_wants_a_reason_of_one_line(store: SQLStore, reason: Any) -> None:
    with pytest.raises(InvalidInput, match="conversation 'k': a reason is a line"):
        manager(store).reset("k", reason=reason)


def test_a_reason_may_have_512_characters(store: SQLStore) -> None:
    sessions = manager(store)
    sessions.send("k", "hello")
    sessions.reset("k", reason="x" * 512)
    assert sessions.conversations.sessions("k")[0].closed_reason == "x" * 512


def test_the_same_idempotency_key_reaches_the_provider_once(store: SQLStore) -> None:
    """G13: the stored reply comes back, batch or stream, whatever became of the conversation."""
    provider = DemoProvider([ANSWER])
    sessions = SessionManager(store, provider)
    first = sessions.send("k", "hello", idempotency_key="once")
    sessions.reset("k")
    again = sessions.send("k", "hello", idempotency_key="once")
    assert again == attrs.evolve(first, replayed=True)
    with sessions.stream("k", "hello", idempotency_key="once") as turn:
        assert list(turn) == [TextDelta("one two"), again.result]
    assert turn.reply == again
    assert (turn.key, turn.number) == ("k", 1)
    assert len(provider.requests) == 1


def test_a_replayed_turn_that_said_nothing_hands_out_its_result_alone(store: SQLStore) -> None:
    """G13: no empty delta before it."""
    failed = Result(subtype="error_max_turns", is_error=True, session_id="s-1")
    sessions = manager(store, failed)
    sessions.send("k", "hello", idempotency_key="once")
    with sessions.stream("k", "hello", idempotency_key="once") as turn:
        assert list(turn) == [failed]


def test_a_stored_reply_is_the_reply_that_was_given(store: SQLStore) -> None:
    """G13: with all that the result said, but for what is not stored."""
    result = Result(
        subtype="error_max_turns",
        is_error=True,
        session_id="s-2",
        errors=("too many",),
        stop_reason="tool_use",
        usage={"tokens": 3},
        cost_usd=0.5,
        http_status=200,
    )
    call = [ToolUse("t", "look"), ToolResult("t", "seen")]
    sessions = manager(store, ANSWER, DEAD, [TextDelta("one "), *call, TextDelta("two"), result])
    sessions.send("k", "hello")
    first = sessions.send("k", "again", idempotency_key="once")
    assert (first.healed, first.text, first.result) == (True, "one two", result)
    assert sessions.send("k", "again", idempotency_key="once") == attrs.evolve(first, replayed=True)


def test_an_idempotency_key_belongs_to_one_message(store: SQLStore) -> None:
    sessions = manager(store, ANSWER)
    sessions.send("k", "hello", idempotency_key="once")
    with pytest.raises(InvalidInput, match=r"conversation 'k': .* was used for another message"):
        sessions.send("k", "something else", idempotency_key="once")
    assert sessions.send("other", "something else", idempotency_key="once").status is TurnStatus.SUCCEEDED


def test_an_idempotency_key_whose_turn_still_runs_is_busy_until_it_ends(store: SQLStore) -> None:
    clock = Clock()
    sessions = manager(store, ANSWER, clock=clock)
    other = manager(store, clock=clock)
    hanging = sessions.stream("k", "hello", idempotency_key="once")
    hanging.__enter__()
    with pytest.raises(
        ConversationBusy, match="conversation 'k': turn 1 with the same idempotency key is still running"
    ):
        other.send("k", "hello", idempotency_key="once")
    clock.advance(601)
    reply = other.send("k", "hello", idempotency_key="once")
    assert (reply.status, reply.result, reply.replayed) == (TurnStatus.INTERRUPTED, None, True)
    hanging.__exit__(None, None, None)


def test_a_provider_that_wants_the_transcript_gets_it_with_what_the_session_was_opened_with(store: SQLStore) -> None:
    raw = ({"type": "thinking", "thinking": "…", "signature": "s"}, {"type": "text", "text": "raw"})

    class Forgetful(DemoProvider):
        wants_transcript = True

    script = [ANSWER, DEAD, [Result(session_id="s-2", content=raw, provider_data={"c": 1})], [Result(session_id="s-2")]]
    provider = Forgetful(script)
    sessions = SessionManager(store, provider)
    for text in ("first", "second", "third"):
        sessions.send("k", text)
    opening, resumed = provider.requests[-2:]
    assert [message.text for message in opening.history] == ["first", "one two"]
    assert [message.text for message in resumed.history] == ["first", "one two", "second", "raw"]
    assert (resumed.history[-1].content, resumed.history[-1].provider_data) == (raw, {"c": 1})


def test_a_call_that_opened_the_session_answered_stays_in_its_transcript(store: SQLStore) -> None:
    """As the session was told of it when it was opened; later messages change nothing about that."""

    class Forgetful(DemoProvider):
        wants_transcript = True

    named = [Result(session_id="s-2")]
    provider = Forgetful([[ToolUse("t-1", "look", {}), Result(session_id="s-1")], named, named, named])
    sessions = SessionManager(store, provider)
    sessions.send("k", "what is there?")
    sessions.reset("k")
    sessions.send("k", [{"type": "tool_result", "tool_use_id": "t-1", "content": "seen"}])
    sessions.send("k", "and now?")
    sessions.send("k", "and then?")
    told = [[message.text for message in request.history] for request in provider.requests[1:]]
    past = ["what is there?", "[called the tool look with {}]"]
    assert told[0] == past
    assert [history[:2] for history in told[1:]] == [past, past]


def test_a_session_in_which_nothing_has_succeeded_yet_has_an_empty_transcript(store: SQLStore) -> None:
    class Forgetful(DemoProvider):
        wants_transcript = True

    provider = Forgetful([Result(is_error=True, session_id="s-1"), ANSWER])
    sessions = SessionManager(store, provider)
    sessions.send("k", "hello")
    assert sessions.send("k", "again").status is TurnStatus.SUCCEEDED
    assert (provider.requests[-1].session_id, provider.requests[-1].history) == ("s-1", ())


def test_the_window_is_filled_to_its_brim(store: SQLStore) -> None:
    """G3: as many messages as it may hold, and of one more nothing."""
    for most, told in ((4, ["b", "one two", "c", "one two"]), (5, ["b", "one two", "c", "one two"])):
        provider = DemoProvider([ANSWER] * 4)
        sessions = SessionManager(store, provider, context=ContextWindow(max_messages=most))
        key = f"k{most}"
        for text in ("a", "b", "c"):
            sessions.send(key, text)
        sessions.reset(key)
        sessions.send(key, "d")
        assert [message.text for message in provider.requests[-1].history] == told


def test_the_provider_is_told_which_turn_of_which_conversation_it_answers(store: SQLStore) -> None:
    provider = DemoProvider()
    sessions = SessionManager(store, provider)
    sessions.send("k", "hello", metadata={"tier": "gold"})
    sessions.reset("k")
    sessions.send("k", "again")
    asked = provider.requests[-1]
    assert (asked.key, asked.turn, asked.session_number, asked.session_id) == ("k", 2, 2, None)
    assert asked.metadata == {"tier": "gold"}


def test_a_provider_that_does_not_ask_gets_no_transcript(store: SQLStore) -> None:
    provider = DemoProvider()
    sessions = SessionManager(store, provider)
    sessions.send("k", "first", metadata={"user": 7})
    sessions.send("k", "second")
    assert (provider.requests[-1].history, provider.requests[-1].metadata) == ((), {"user": 7})


def test_what_the_provider_cannot_take_is_refused_before_the_turn_begins(store: SQLStore) -> None:
    """The provider says what it takes; nothing is written or sent."""

    class TextOnly(DemoProvider):
        def check_content(self, content: tuple[Block, ...]) -> None:
            if any(block["type"] != "text" for block in content):
                raise InvalidContent("block 1 is an image; describe it in words")

    provider = TextOnly()
    sessions = SessionManager(store, provider)
    image = {"type": "image", "source": {"type": "url", "url": "https://example.org/cat.png"}}
    with pytest.raises(InvalidContent, match="conversation 'k': block 1 is an image"):
        sessions.send("k", [{"type": "text", "text": "look"}, image])
    assert store.load("k") is None
    assert provider.requests == []
    assert sessions.send("k", "a cat").status is TurnStatus.SUCCEEDED


def test_observers_hear_of_each_move_after_it_was_committed_and_can_do_no_harm(
    store: SQLStore, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[tuple[Transition, State]] = []

    def broken(_: Transition) -> None:
        raise ZeroDivisionError

    sessions = manager(
        store, ANSWER, observers=[broken, lambda move: heard.append((move, sessions.conversations.get(move.key).state))]
    )
    assert sessions.send("k", "hello").text == "one two"
    assert heard == [(sessions.conversations.transitions("k")[0], State.ACTIVE)]
    assert "observer.call_failed" in caplog.messages


def test_clearing_a_session_is_logged_with_what_there_is_to_know_and_no_text(
    store: SQLStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "fsm")
    dead = Result(subtype=EXPIRED, is_error=True, session_id="s-9", errors=["gone"], stop_reason="ended")
    sessions = manager(store, ANSWER, dead)
    sessions.send("k", "a secret message")
    sessions.send("k", "a secret message")
    (cleared,) = [record for record in caplog.records if record.message == "session.clear_completed"]
    assert (cleared.stale_session_ids, cleared.errors, cleared.stop_reason) == (["s-1", "s-9"], ["gone"], "ended")
    assert (cleared.conversation, cleared.session, cleared.levelname) == ("k", 1, "WARNING")
    assert "secret" not in repr([vars(record) for record in caplog.records])
    assert {"turn.run_started", "turn.run_completed", "session.heal_started"} <= set(caplog.messages)


def test_a_rejected_turn_is_logged(store: SQLStore, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fsm")
    sessions = manager(store)
    with sessions.stream("k", "hello"), pytest.raises(ConversationBusy):
        sessions.send("k", "me too")
    (rejected,) = [record for record in caplog.records if record.message == "turn.begin_rejected"]
    assert rejected.conversation == "k"


@pytest.mark.parametrize(
    ("arguments", "error", "why"),
    [
        ({"key": ""}, InvalidKey, "key"),
        ({"key": "k" * 513}, InvalidKey, "key"),
        ({"content": ""}, InvalidContent, "'k': .*empty"),
        ({"content": 3}, InvalidContent, "'k': .*of type int"),
        ({"idempotency_key": ""}, InvalidKey, "idempotency key"),
        ({"metadata": ["no object"]}, InvalidInput, r"'k': the metadata is not a JSON object \(TypeError: list\)"),
        ({"metadata": {"a": object()}}, InvalidInput, r"'k': the metadata is not a JSON object \(TypeError: Object of"),
        ({"metadata": {"a": float("nan")}}, InvalidInput, r"'k': the metadata is not a JSON object \(ValueError: "),
    ],
)
def test_bad_input_is_refused_before_anything_is_written_or_sent(
    store: SQLStore, arguments: dict[str, Any], error: type[FSMError], why: str
) -> None:
    provider = DemoProvider()
    with pytest.raises(error, match=why):
        SessionManager(store, provider).send(**{"key": "k", "content": "hello", **arguments})
    assert store.conversations() == []
    assert provider.requests == []


@pytest.mark.parametrize("options", [{"lease": 0}, {"lease": "long"}, {"busy_timeout": -1}, {"on_busy": "panic"}])
def test_a_manager_that_could_not_work_is_refused(store: SQLStore, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        SessionManager(store, **{"provider": DemoProvider(), **options})
    with pytest.raises(InvalidInput, match=r"^on_busy is 'panic'; it must be one of raise, wait$"):
        manager(store, on_busy="panic")
    with pytest.raises(
        InvalidInput, match="provider is of type object, which is not a provider with a method 'stream'"
    ):
        SessionManager(store, object())  # type: ignore[arg-type]


@pytest.mark.parametrize("read", ["get", "messages", "turns", "sessions", "transitions", "reset"])
def test_what_does_not_exist_is_not_found(store: SQLStore, read: str) -> None:
    with pytest.raises(ConversationNotFound, match="'nobody': there is none of this key"):
        getattr(manager(store).conversations, read)("nobody")


@pytest.mark.parametrize("read", ["get", "messages", "turns", "sessions", "transitions", "reset"])
def test_what_can_be_no_key_is_refused_in_reading_too(store: SQLStore, read: str) -> None:
    with pytest.raises(InvalidKey):
        getattr(manager(store).conversations, read)("\udc80")
    with pytest.raises(InvalidKey):
        manager(store).conversations.list(after="\udc80")


def test_conversations_are_listed_in_pages_by_key(store: SQLStore) -> None:
    sessions = manager(store)
    for key in ("c", "a", "b"):
        sessions.send(key, "hello")
    assert [conversation.key for conversation in sessions.conversations.list(limit=2)] == ["a", "b"]
    assert [conversation.key for conversation in sessions.conversations.list(after="b")] == ["c"]


@pytest.mark.parametrize("read", ["messages", "turns", "sessions", "transitions"])
def test_each_table_is_read_in_pages(store: SQLStore, read: str) -> None:
    sessions = manager(store)
    for number in range(3):
        sessions.send("k", f"message {number}")
        sessions.reset("k")
    page = getattr(sessions.conversations, read)
    rows = list(page("k"))
    assert [row.number for row in rows] == list(range(1, len(rows) + 1))
    assert list(page("k", limit=2)) == rows[-2:]
    assert list(page("k", before=3)) == rows[:2]
    assert list(page("k", limit=1, before=3)) == rows[1:2]


def test_an_asynchronous_store_is_told_from_a_synchronous_one(store: SQLStore) -> None:
    from fsm._runtime.inline import run

    class Waits:
        def __await__(self) -> Iterator[None]:
            yield

    async def wait() -> None:
        await Waits()

    with pytest.raises(RuntimeError, match="asynchronous"):
        run(wait())


class Interrupting(SQLStore):
    """A store whose next commit is cut off by Ctrl-C, before or after it was written."""

    cut_off: str | None = None

    def commit(self, step: Step) -> None:
        cut_off, self.cut_off = self.cut_off, None
        if cut_off == "before":
            raise KeyboardInterrupt
        super().commit(step)
        if cut_off == "after":
            raise KeyboardInterrupt


def test_a_begin_that_was_cut_off_and_can_not_be_taken_back_does_not_block_its_manager(sqlite_url: str) -> None:
    class CutOff(SQLStore):
        left = 2

        def commit(self, step: Step) -> None:
            self.left -= 1
            if self.left == 1:
                super().commit(step)
                raise KeyboardInterrupt
            if self.left == 0:
                raise StoreError("no", step.before.key)
            super().commit(step)

    with CutOff(sqlite_url) as store:
        sessions = manager(store, ANSWER)
        with pytest.raises(KeyboardInterrupt):
            sessions.send("k", "cut off")
        assert sessions.send("k", "again").turn == 2


def test_a_begin_that_was_cut_off_and_superseded_keeps_nothing(sqlite_url: str) -> None:
    class CutOff(SQLStore):
        def commit(self, step: Step) -> None:
            super().commit(step)
            if step.before.version == 0:
                super().commit(decide.reset(step.after, reason="r", provider="demo", now=Clock().now, force=True))
                raise KeyboardInterrupt

    with CutOff(sqlite_url) as store:
        sessions = manager(store)
        with pytest.raises(KeyboardInterrupt):
            sessions.send("k", "cut off")
        conversation = sessions.conversations.get("k")
        assert (conversation.version, conversation.message_count) == (2, 1)


@pytest.mark.parametrize("cut_off", ["before", "after"])
@pytest.mark.parametrize("first", [True, False])
def test_a_begin_that_was_cut_off_leaves_no_running_turn(url: str, cut_off: str, first: bool) -> None:
    with Interrupting(url) as store:
        sessions = manager(store, ANSWER, ANSWER)
        if not first:
            sessions.send("k", "hello")
        store.cut_off = cut_off
        with pytest.raises(KeyboardInterrupt):
            sessions.send("k", "cut off")
        conversation = store.load("k")
        assert conversation is None or conversation.running is None
        assert SessionManager(store, DemoProvider()).send("k", "again").status is TurnStatus.SUCCEEDED


@pytest.mark.parametrize(("cut_off", "status"), [("before", TurnStatus.INTERRUPTED), ("after", TurnStatus.SUCCEEDED)])
def test_an_end_that_was_cut_off_is_stored_once(url: str, cut_off: str, status: TurnStatus) -> None:
    with Interrupting(url) as store:
        sessions = manager(store, ANSWER)
        with pytest.raises(KeyboardInterrupt), sessions.stream("k", "hello") as turn:
            events = iter(turn)
            next(events)
            store.cut_off = cut_off
            list(events)
        (ended,) = sessions.conversations.turns("k")
        assert (ended.status, ended.subtype) == (status, "success" if cut_off == "after" else None)
        assert [message.text for message in sessions.conversations.messages("k")] == ["hello", "one two"]


def test_a_recovery_that_finds_one_turn_ended_goes_on_with_the_others(url: str) -> None:
    clock = Clock()

    class Overtaken(SQLStore):
        def running(self, **arguments: Any) -> list[Any]:
            found = super().running(**arguments)
            if found:
                quick.commit(decide.expire_lease(found[0], now=clock()))
            return found

    with SQLStore(url) as quick, Overtaken(url) as slow:
        kept = [manager(quick, clock=clock).stream(key, "hello") for key in ("a", "b")]
        for stream in kept:
            stream.__enter__()
            clock.advance(1)  # the oldest lease comes first
        clock.advance(601)
        assert [ended.key for ended in SessionManager(slow, DemoProvider(), clock=clock).recover()] == ["b"]
        for stream in kept:
            stream.__exit__(None, None, None)


def test_recover_ends_a_turn_whose_worker_is_gone(store: SQLStore) -> None:
    """Its lease does not matter (G9)."""
    abandoned_turn(store)
    assert [ended.key for ended in manager(store).recover()] == ["k"]


def test_a_conversation_whose_owner_is_gone_is_ended_before_its_key_is_asked_again(store: SQLStore) -> None:
    """The reply to an idempotency key of a turn that was cut off: that it was cut off."""
    clock = Clock()
    hanging = manager(store, clock=clock).stream("k", "hello", idempotency_key="once")
    hanging.__enter__()
    clock.advance(601)
    assert manager(store, clock=clock).send("k", "hello", idempotency_key="once").status is TurnStatus.INTERRUPTED
    hanging.__exit__(None, None, None)


def test_two_recoveries_at_once_do_not_conflict(url: str) -> None:
    clock = Clock()

    class Slow(SQLStore):
        def running(self, **arguments: Any) -> list[Any]:
            found = super().running(**arguments)
            assert len(SessionManager(quick, DemoProvider(), clock=clock).recover()) == len(found)
            return found

    with SQLStore(url) as quick, Slow(url) as slow:
        hanging = manager(quick, clock=clock).stream("k", "hello")
        hanging.__enter__()
        clock.advance(601)
        assert SessionManager(slow, DemoProvider(), clock=clock).recover() == []
        hanging.__exit__(None, None, None)


@pytest.mark.parametrize("broken_from", [1, 2])
def test_a_store_that_always_conflicts_is_given_up(url: str, broken_from: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsm._runtime.scripts.TRIES", 3)

    class Stubborn(SQLStore):
        commits = 0

        def commit(self, step: Step) -> None:
            self.commits += 1
            if self.commits >= broken_from:
                raise Conflict("always", step.before.key)
            super().commit(step)

    with Stubborn(url) as store, pytest.raises(Conflict, match="always"):
        manager(store, ANSWER).send("k", "hello")
    assert store.commits == broken_from + 2


def test_a_refused_interrupt_is_told_with_what_caused_it(url: str) -> None:
    """The write that failed is never swallowed (G16), and neither is what came before."""

    with SQLStore(url) as store:
        refusing = Refusing(store, ends, StoreError("no"))
        with pytest.raises(StoreError) as caught:
            manager(refusing, [TextDelta("a"), RuntimeError()]).send("k", "hello")
        assert isinstance(caught.value.__cause__, ProviderError)
        assert caught.value.reply.text == "a"
        refusing.error = StoreError("no", "other")
        with pytest.raises(KeyboardInterrupt) as interrupted:
            manager(refusing, [KeyboardInterrupt()]).send("other", "hello")
        assert interrupted.value.__notes__ == ["conversation 'other': no"]


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ([TextDelta("a"), Result()], TurnStatus.SUCCEEDED),
        ([TextDelta("a"), Result(is_error=True)], TurnStatus.FAILED),
        ([TextDelta("a")], TurnStatus.INTERRUPTED),
    ],
)
def test_a_refused_end_comes_with_the_reply_as_the_provider_gave_it(
    sqlite_url: str, said: list[Any], status: TurnStatus
) -> None:
    """The caller gets both (G16)."""

    with SQLStore(sqlite_url) as store, pytest.raises(StoreError) as caught:
        manager(Refusing(store, ends, StoreError("no")), said).send("k", "hello")
    assert (caught.value.reply.status, caught.value.reply.text) == (status, "a")


def test_a_begin_that_the_store_refuses_runs_nothing(sqlite_url: str) -> None:
    with SQLStore(sqlite_url) as store:
        sessions = manager(Refusing(store, begins, StoreError("no")))
        with pytest.raises(StoreError):
            sessions.send("k", "hello")


def test_a_late_text_that_the_store_refuses_comes_with_the_reply(sqlite_url: str) -> None:
    """The caller gets both (G16)."""

    with SQLStore(sqlite_url) as store:
        sessions = manager(Refusing(store, lambda step: step.before.session_number == 2, StoreError("no")), ANSWER)
        with pytest.raises(StoreError) as caught, sessions.stream("k", "hello") as turn:
            next(iter(turn))
            sessions.reset("k", force=True)
    assert (caught.value.reply.status, caught.value.reply.text) == (TurnStatus.SUPERSEDED, "one ")


def test_a_lease_that_the_store_refuses_to_extend_ends_the_turn_for_its_caller(sqlite_url: str) -> None:
    """With what was said until then (G16)."""
    clock = Clock()
    with SQLStore(sqlite_url) as store:
        refusing = Refusing(store, extends, StoreError("no"))
        sessions = manager(refusing, [TextDelta("one "), lambda: clock.advance(40), *ANSWER[1:]], lease=60, clock=clock)
        with pytest.raises(StoreError) as caught:
            sessions.send("k", "hello")
    assert (caught.value.reply.status, caught.value.reply.text) == (TurnStatus.INTERRUPTED, "one two")
