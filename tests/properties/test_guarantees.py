"""The guarantees, each as a property of whole conversations played on the real SQLite store."""

from collections.abc import Iterator
from itertools import groupby, pairwise

import attrs
import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from fsm import (
    TABLE,
    Conversation,
    ConversationBusy,
    Message,
    ProviderError,
    State,
    StoreError,
    Trigger,
    TurnStatus,
    TurnSuperseded,
)
from fsm._core.table import INITIAL
from fsm.content import text_of
from tests.properties import scripts as s
from tests.properties.world import Asked, Outcome, RefusingStore, World

SCRIPTS = s.scripts()
Script = list[s.Step]
WELL = s.Act((s.TextDelta("well"), s.Result()))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RefusingStore]:
    """One real database for all examples; each plays in another conversation."""
    with RefusingStore(f"sqlite:///{tmp_path_factory.mktemp('db')}/chat.db", durability="relaxed") as store:
        yield store


def after_each_step(world: World, script: Script) -> Iterator[Conversation]:
    """Play a script, and stop after each step at which there is a conversation to look at."""
    note(s.story(script))
    for step in script:
        world.do(step)
        if (conversation := world.conversation) is not None:
            yield conversation


@given(script=SCRIPTS)
def test_g1_active_holds_exactly_one_session_id_and_the_others_none(store: RefusingStore, script: Script) -> None:
    """G1, in the conversation, its open session and its log."""
    for conversation in after_each_step(World(store), script):
        assert (conversation.session_id is not None) == (conversation.state is State.ACTIVE)
        held = [session.session_id for session in store.sessions(conversation) if session.closed_at is None]
        assert held == ([] if conversation.state is State.STALE else [conversation.session_id])
        for move in store.transitions(conversation):
            assert (move.session_id is not None) == (move.target is State.ACTIVE)


@given(script=SCRIPTS)
def test_g2_a_dead_session_id_is_never_sent_and_never_adopted_again(store: RefusingStore, script: Script) -> None:
    """G2: the world notes what a provider reports dead before anybody else hears of it."""
    world = World(store)
    for conversation in after_each_step(world, script):
        assert conversation.session_id not in world.dead
        marked = store.dead(conversation, s.IDS[:2]) | store.dead(conversation, s.IDS[2:])
        assert marked == world.dead
    for asked in world.asked:
        assert asked.request.session_id not in asked.dead_before


@given(script=st.lists(s.WELL_FORMED_SENDS, min_size=2, max_size=10))
def test_g3_after_a_dead_session_the_next_request_resumes_nothing_and_carries_the_history(
    store: RefusingStore, script: list[s.Send]
) -> None:
    """G3: every succeeded turn, in order, whole; and nothing else."""
    world = World(store).play([attrs.evolve(send, acts=tuple(map(only_text, send.acts))) for send in script])
    said: list[tuple[str, str]] = []
    for outcome in world.outcomes:
        for asked in outcome.asked:
            if asked.request.session_id is None:
                history = asked.request.history
                assert [message.role for message in history] == ["user", "assistant"] * len(said)
                assert [message.text for message in history] == [text for pair in said for text in pair]
            else:
                assert asked.request.history == ()
        if outcome.asked and has_succeeded(outcome.asked[-1]):
            said.append((outcome.text, outcome.deltas or "(no answer in text)"))
    for before, after in pairwise(world.asked):
        if before.result is not None and before.result.trigger is Trigger.EXPIRED:
            assert after.request.session_id is None


def only_text(act: s.Act) -> s.Act:
    """An act without tools, whose answer in text is what its deltas say."""
    return s.Act(tuple(event for event in act.events if not isinstance(event, s.ToolUse | s.ToolResult)), act.raises)


def has_succeeded(asked: Asked) -> bool:
    """Whether the provider answered this request."""
    return asked.result is not None and asked.result.trigger is Trigger.SUCCEEDED


@given(script=s.scripts(s.refused_writes()))
def test_g4_no_stored_message_is_ever_changed_or_removed(store: RefusingStore, script: Script) -> None:
    """G4, whatever happens, refused writes among it."""
    before: list[Message] = []
    for conversation in after_each_step(World(store), script):
        messages = store.messages(conversation)
        assert messages[: len(before)] == before
        before = messages


@given(script=SCRIPTS)
def test_g5_everything_is_numbered_without_gaps_and_one_turn_runs_at_most(store: RefusingStore, script: Script) -> None:
    """G5: by the store, with each user message before its answer; the clock goes backwards meanwhile."""
    world = World(store)
    for step in script:
        world.now -= 2 * (world.now - world.epoch) // 3
        world.do(step)
    conversation = world.conversation
    if conversation is None:
        return
    messages, turns = store.messages(conversation), store.turns(conversation)
    for rows, count in (
        (messages, conversation.message_count),
        (turns, conversation.turn_count),
        (store.sessions(conversation), conversation.session_number),
        (store.transitions(conversation), conversation.transition_count),
    ):
        assert [row.number for row in rows] == list(range(1, count + 1))
    running = [turn.number for turn in turns if turn.status is TurnStatus.RUNNING]
    assert running == ([conversation.running.turn] if conversation.running else [])
    for _, of_turn in groupby(sorted(messages, key=lambda row: (row.turn, row.number)), key=lambda row: row.turn):
        assert next(of_turn).role == "user"
    assert [turn.first_message for turn in turns] == sorted(turn.first_message for turn in turns)


@given(script=s.scripts(s.refused_writes()))
def test_g6_the_log_is_a_path_of_the_table_and_replays_to_what_is_stored(store: RefusingStore, script: Script) -> None:
    """G6: state, session, session id; and each move stands at the version of its commit."""
    edges = {(row.source, row.trigger, row.target) for row in TABLE}
    for conversation in after_each_step(World(store), script):
        state, session, session_id, version = INITIAL, 1, None, 0
        for move in store.transitions(conversation):
            assert (move.source, move.trigger, move.target) in edges
            assert move.source is state
            assert move.session_number == session + (move.trigger is Trigger.RESET)
            assert move.version >= version
            state, session, session_id, version = move.target, move.session_number, move.session_id, move.version
        assert (state, session, session_id) == (
            conversation.state,
            conversation.session_number,
            conversation.session_id,
        )
        assert version <= conversation.version


@given(script=SCRIPTS)
def test_g7_one_session_is_open_unless_stale_and_the_closed_ones_lead_to_the_root(
    store: RefusingStore, script: Script
) -> None:
    """G7, and what is closed stays as it is."""
    closed: dict[int, object] = {}
    for conversation in after_each_step(World(store), script):
        sessions = store.sessions(conversation)
        still_open = [session.number for session in sessions if session.closed_at is None]
        assert still_open == ([] if conversation.state is State.STALE else [conversation.session_number])
        assert [session.parent for session in sessions] == [None, *range(1, len(sessions))]
        for session in sessions:
            if session.closed_at is not None:
                assert session.closed_reason
                assert closed.setdefault(session.number, session) == session


@given(script=s.scripts(st.builds(s.Hang, s.TWO_ACTS, take=st.just(0)), st.just(s.Reset(force=True))))
def test_g10_a_late_result_moves_nothing_and_its_text_is_kept_outside_the_context(
    store: RefusingStore, script: Script
) -> None:
    """G10, for turns that a forced reset or the next worker ended before their result came."""
    world = World(store)
    for step in script:
        before, heads = world.conversation, len(world.ghosts)
        world.do(step)
        if not isinstance(step, s.Wake) or not heads:
            continue
        late = next(outcome for outcome in reversed(world.outcomes) if outcome.woken and not outcome.seen)
        late.seen = True
        if not isinstance(late.error, TurnSuperseded):
            continue
        after = world.conversation
        assert before is not None
        assert after is not None
        same = ("state", "session_number", "session_id", "turn_count", "transition_count", "running", "provider")
        assert [getattr(after, name) for name in same] == [getattr(before, name) for name in same]
        turn = store.turns(after)[late.turn - 1]
        assert turn.status in {TurnStatus.SUPERSEDED, TurnStatus.INTERRUPTED}
        kept = [row for row in store.messages(after) if row.turn == late.turn and row.role == "assistant"]
        assert text_of(block for row in kept for block in row.content) == "".join(
            event.text for asked in late.asked for event in asked.said if isinstance(event, s.TextDelta)
        )
        context = store.context(after, first_session=1, last_session=after.session_number, limit=None)
        assert all(message.turn != late.turn for message in context)


@given(script=SCRIPTS)
def test_g11_a_turn_is_healed_at_most_once_and_only_before_it_said_anything(
    store: RefusingStore, script: Script
) -> None:
    """G11: and a dead id costs no more than the turn that found it dead."""
    world = World(store).play(script)
    for outcome in world.outcomes:
        first, *more = outcome.asked or [None]
        assert len(more) <= 1
        heals = isinstance(outcome.step, s.Hang) or outcome.step.heal
        for second in more:
            assert heals
            assert first.request.session_id is not None
            assert first.result is not None
            assert first.result.trigger is Trigger.EXPIRED
            assert not first.content_first
            assert second.request.session_id is None
        if outcome.reply is not None:
            assert outcome.reply.healed == bool(more)
        if first is not None and not more and outcome.reply and heals and not outcome.woken:
            died = first.result is not None and first.result.trigger is Trigger.EXPIRED
            assert not (died and first.request.session_id is not None and not first.content_first)


@given(script=s.scripts(s.named_sends()))
def test_g13_one_idempotency_key_reaches_the_provider_once_and_returns_the_stored_reply(
    store: RefusingStore, script: Script
) -> None:
    """G13: the first reply, whatever it was, is what every later call gets."""
    world = World(store).play(script)
    for key in s.NAMES:
        named = [o for o in world.outcomes if isinstance(o.step, s.Send) and o.step.idempotency_key == key]
        reached = [outcome for outcome in named if outcome.asked]
        assert len(reached) <= 1
        replies = [outcome.reply for outcome in named if outcome.reply is not None]
        for again in replies[1:]:
            first = replies[0]
            assert again.replayed
            assert (again.turn, again.text, again.status, again.healed, again.state) == (
                first.turn,
                first.text,
                first.status,
                first.healed,
                first.state,
            )
            assert result_as_stored(again) == result_as_stored(first)


def result_as_stored(reply: s.Result | None) -> object:
    """A reply's result without what is not stored."""
    result = reply.result
    return result and attrs.evolve(result, text=None, raw=None, content=None, provider_data=None)


@given(opening=s.successes(), failing=st.lists(s.well_formed(s.failures()), min_size=1, max_size=4))
def test_g14_any_other_error_leaves_the_session_resumable(
    store: RefusingStore, opening: s.Result, failing: list[s.Act]
) -> None:
    """G14: the next request resumes what was held, or what the error named instead."""
    world = World(store)
    world.do(s.Send((s.Act((opening,)),)))
    held = opening.session_id
    for act in failing:
        world.do(s.Send((act,)))
        assert world.asked[-1].request.session_id == held
        held = act.events[-1].session_id or held
        assert world.conversation.session_id == held
        assert world.conversation.state is (State.FRESH if held is None else State.ACTIVE)


@given(script=s.scripts(st.builds(s.Send, s.TWO_ACTS, provider=st.sampled_from(["a", "b"]))))
def test_g15_a_session_of_one_provider_is_never_resumed_at_another(store: RefusingStore, script: Script) -> None:
    """G15: a resumed id was named by this provider in the present session, and a change closes with that reason."""
    world = World(store).play(script)
    for number, asked in enumerate(world.asked):
        resumed = asked.request.session_id
        if resumed is not None:
            assert any(
                earlier.provider == asked.provider and earlier.result and earlier.result.session_id == resumed
                for earlier in world.asked[:number]
                if earlier.request.session_number == asked.request.session_number
            )
    if (conversation := world.conversation) is not None:
        for before, after in pairwise(store.sessions(conversation)):
            if before.provider != after.provider and after.opened_reason != "asked for":
                assert after.opened_reason == f"provider changed from {before.provider} to {after.provider}"


@given(script=s.scripts(s.refused_writes(), st.builds(s.RefuseWrite, st.just(2))))
def test_g16_a_refused_write_is_never_swallowed_and_the_next_turn_is_safe(store: RefusingStore, script: Script) -> None:
    """G16: the caller gets the error, with the reply if the provider had answered; then the conversation goes on."""
    world = World(store)
    for step in script:
        before = world.conversation
        world.refused = None
        refusals = store.refusals
        world.do(step)
        outcome = world.outcomes[-1] if isinstance(step, s.Send | s.Hang) else None
        if store.refusals == refusals or isinstance(step, s.Wake):
            continue
        error = outcome.error if outcome else world.refused
        assert isinstance(error, StoreError)
        if outcome is not None and outcome.asked and outcome.asked[-1].result is not None:
            assert error.reply is not None
            assert error.reply.result == outcome.asked[-1].result
        if outcome is not None and outcome.turn is None:
            assert world.conversation == before
        if isinstance(step, s.Send) and not store.ghosts:
            world.do(attrs.evolve(step, acts=(WELL, WELL), take=None))
            assert world.outcomes[-1].error is None
    store.refuse_in = 0
    world.do(s.Restart())
    world.do(s.Send((WELL, WELL)))
    assert world.outcomes[-1].error is None
    assert world.outcomes[-1].reply.text == "well"


@given(script=SCRIPTS)
def test_only_errors_of_the_library_come_up_and_each_is_deserved(store: RefusingStore, script: Script) -> None:
    """A broken provider is told as such, a running turn as busy, a turn that somebody ended as superseded."""
    world = World(store).play(script)
    for outcome in world.outcomes:
        assert_deserved(outcome)


def assert_deserved(outcome: Outcome) -> None:
    """Check that an outcome's error is the right one."""
    last = outcome.asked[-1] if outcome.asked else None
    if isinstance(outcome.error, ProviderError):
        assert last is not None
        well_formed = last.result is not None and last.act.events[-1] is last.result and not last.act.raises
        assert not well_formed
    elif outcome.error is not None:
        assert isinstance(outcome.error, ConversationBusy | TurnSuperseded)
        assert isinstance(outcome.error, TurnSuperseded) == outcome.woken
