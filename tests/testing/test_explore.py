"""The exploration reaches everything, finds nothing in the library, and finds each seeded bug by a short script."""

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from fsm import InvalidTransition, Result, State, Trigger
from fsm._core import decisions as core
from fsm._core.effects import CloseSession, MarkSessionDead, Step
from fsm.testing import Exploration, ReferenceStore, Violation, explore, replay
from fsm.testing.explore_decisions import Decisions
from fsm.testing.explore_play import perform
from fsm.testing.explore_state import canonical
from fsm.testing.explore_world import EVENTS, Act, Worker, World
from persistence import SQLStore

TURN = ("begin", "answer", "finish")


@pytest.fixture(scope="module")
def explored() -> Exploration:
    return explore(depth=8)


def test_two_workers_and_crashes_to_depth_8(explored: Exploration) -> None:
    """G1, G2, G4, G5, G6, G7, G9, G10 and G11 hold in every state, and nothing holds only because it never happens."""
    print(explored)
    assert explored.unreached == ()
    assert explored.depth == 8
    assert explored.states > 4000
    assert explored.edges > 16000


def test_the_report_tells_numbers_and_witnesses(explored: Exploration) -> None:
    text = str(explored)
    assert f"{explored.states:,} states (more lie deeper), {explored.edges:,} edges, depth 8, no violation" in text
    assert "sometimes a turn is superseded: 1 begin, 2 force\n" in text
    assert "never a turn fails" in str(explore(depth=1))


def test_every_witness_can_be_replayed(explored: Exploration) -> None:
    for script in explored.witnesses.values():
        assert [str(act) for act in replay(script).path] == script.splitlines()


def test_one_worker_is_explored_to_the_end() -> None:
    explored = explore(depth=100, workers=1)
    assert explored.complete
    assert set(explored.unreached) == {
        "a turn is superseded",
        "late text is kept",
        "somebody else was first",
        "a conversation is busy",
    }


def test_without_crashes_and_heals_less_is_reached() -> None:
    whole, calm = explore(depth=5), explore(depth=5, crashes=False)
    assert calm.states < whole.states
    no_heals = explore(depth=8, workers=1, events=[event for event in EVENTS if event != "heal"])
    assert "a turn heals and is answered" in no_heals.unreached


def test_on_a_real_store_the_same_states_are_reached(url: str) -> None:
    """G12: replayed on a store, every path leads to the state that the core means."""
    depth = 4 if url.startswith("sqlite") else 3
    with SQLStore(url, durability="relaxed") as store:
        there = explore(depth=depth, make_store=lambda: store, eventually={})
    assert there == explore(depth=depth, eventually={})


def test_on_a_reference_store_of_ones_own_too() -> None:
    assert explore(depth=4, make_store=ReferenceStore, eventually={}) == explore(depth=4, eventually={})


# Worlds of one form


def test_worlds_of_one_form_have_the_same_future() -> None:
    """Merged worlds have the same future."""
    futures: dict[object, set[frozenset[object]]] = {}
    worlds = [World(ReferenceStore(), "conversation", (Worker(), Worker()))]
    for _ in range(4):
        following = []
        for world in worlds:
            children = [replayed(world, act) for act in world.acts()]
            futures.setdefault(canonical(world), set()).add(frozenset(map(canonical, children)))
            following += children
        worlds = following
    assert len(worlds) > 2000
    assert all(len(ways) == 1 for ways in futures.values())


def replayed(world: World, act: Act) -> World:
    again = World(ReferenceStore(), "conversation", (Worker(), Worker()))
    for earlier in (*world.path, act):
        again = perform(again, earlier, again.store)
    return again


# Seeded bugs


def stores_the_id_from_the_error(conversation: Any, **brought: Any) -> Step:
    result = brought["result"]
    if result.trigger is Trigger.EXPIRED and result.session_id:
        brought["result"] = Result(session_id=result.session_id)
    return core.finish(conversation, **brought)


def adopts_dead_ids(conversation: Any, **brought: Any) -> Step:
    return core.finish(conversation, **{**brought, "dead": frozenset()})


def does_not_fence(decision: Callable[..., Step]) -> Callable[..., Step]:
    """A late result ends whatever runs, or moves a conversation in which nothing runs."""

    def decide(conversation: Any, **brought: Any) -> Step:
        running = conversation.running
        if running is not None:
            return decision(conversation, **{**brought, "turn": running.turn, "owner": running.owner})
        step = decision(
            attrs.evolve(conversation, running=core.Running(brought["turn"], brought["owner"], brought["now"])),
            **brought,
        )
        return attrs.evolve(step, effects=tuple(one for one in step.effects if not hasattr(one, "healed")))

    return decide


def without(kind: type, decision: Callable[..., Step]) -> Callable[..., Step]:
    def decide(conversation: Any, **brought: Any) -> Step:
        step = decision(conversation, **brought)
        return attrs.evolve(step, effects=tuple(one for one in step.effects if not isinstance(one, kind)))

    return decide


def takes_over_what_runs(conversation: Any, **brought: Any) -> Step:
    return core.begin(conversation, **{**brought, "abandoned": True})


def rests_for_ever(conversation: Any, **brought: Any) -> Step:
    if conversation.state is State.STALE:
        raise InvalidTransition("there is no way out", conversation.key)
    return core.begin(conversation, **brought)


def fails_what_succeeded_in_a_second_session(conversation: Any, **brought: Any) -> Step:
    if conversation.session_number > 1:
        brought["result"] = attrs.evolve(brought["result"], is_error=True)
    return core.finish(conversation, **brought)


BUGS: dict[str, tuple[Decisions, str]] = {
    "stores the id from the error": (Decisions(finish=stores_the_id_from_the_error), "G2: no dead id is held"),
    "adopts dead ids": (Decisions(finish=adopts_dead_ids), "G2: no dead id is held"),
    "forgets the dead": (Decisions(finish=without(MarkSessionDead, core.finish)), "G2: every id"),
    "does not fence": (Decisions(finish=does_not_fence(core.finish)), "G10: only the running turn"),
    "heals whatever is dead": (
        Decisions(should_heal=lambda turn: turn.result is not None and turn.result.trigger is Trigger.EXPIRED),
        "G11: a turn is retried once",
    ),
    "heals twice": (
        Decisions(
            should_heal=lambda turn: (
                turn.should_heal or (turn.healed and turn.result is not None and turn.result.trigger is Trigger.EXPIRED)
            )
        ),
        "G11: a turn is retried once",
    ),
    "forgets to close": (Decisions(finish=without(CloseSession, core.finish)), "G7: one session is open"),
    "answers only in the first session": (
        Decisions(finish=fails_what_succeeded_in_a_second_session),
        "the conversation answers once the faults have stopped",
    ),
    "rests for ever": (Decisions(begin=rests_for_ever), "no decision and no store refuses"),
}


NOT_ALWAYS = {"answers only in the first session"}
"""The deviation shows only in the end, which a script alone does not check."""


@pytest.mark.parametrize("bug", BUGS)
def test_a_seeded_bug_is_found_by_a_script_of_eight_steps_at_most(bug: str) -> None:
    decide, claim = BUGS[bug]
    with pytest.raises(Violation) as found:
        explore(depth=8, decide=decide)
    violation = found.value
    assert violation.claim.startswith(claim)
    assert 1 <= len(violation.script.splitlines()) <= 8, violation.script
    assert violation.script.replace("\n", "\n    ").strip() in str(violation)


@pytest.mark.parametrize("bug", [bug for bug in BUGS if bug not in NOT_ALWAYS])
def test_the_script_of_a_violation_plays_it_again(bug: str) -> None:
    decide, _ = BUGS[bug]
    with pytest.raises(Violation) as found:
        explore(depth=8, decide=decide)
    with pytest.raises(Violation) as again:
        replay(found.value.script, decide=decide)
    assert again.value.claim == found.value.claim
    assert again.value.path == found.value.path


def test_the_script_of_a_bug_passes_once_it_is_mended() -> None:
    with pytest.raises(Violation) as found:
        explore(depth=8, decide=Decisions(finish=adopts_dead_ids))
    assert replay(found.value.script).state is State.FRESH


def test_taking_over_a_turn_that_runs_is_safe_since_it_is_fenced() -> None:
    """G10: a wrong guess that an owner is dead costs the turn and nothing else."""
    assert explore(depth=6, decide=Decisions(begin=takes_over_what_runs)).states > 1000


# Properties of one's own


def test_a_property_of_ones_own_must_hold_always() -> None:
    with pytest.raises(Violation, match=r"^it is never stale\n") as found:
        explore(always={"it is never stale": lambda world: world.state is not State.STALE})
    assert found.value.path[-1] == Act("finish", 1)
    assert len(found.value.path) == 3


def test_a_property_of_ones_own_is_seen_sometimes() -> None:
    claims = {"two answers": lambda world: len(world.messages) == 4, "pigs fly": lambda world: False}
    explored = explore(depth=6, workers=1, sometimes=claims)
    assert explored.unreached == ("pigs fly",)
    assert len(explored.witnesses["two answers"].splitlines()) == 6


def test_a_property_of_ones_own_must_come_about() -> None:
    with pytest.raises(Violation, match=r"^a third session opens\n"):
        explore(depth=1, eventually={"a third session opens": lambda world: len(world.sessions) == 3})


# Scripts


@pytest.mark.parametrize("line", ["begin", "1", "1 begin now", "x begin", "1 answer", "1 answer expired", "1 sing"])
def test_what_is_no_act_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="is no act"):
        replay(line)


def test_what_can_not_happen_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'1 finish' can't happen after '1 begin'; what can: .*1 crash"):
        replay("1 begin\n1 finish")


def test_a_script_runs_on_a_store_of_ones_own() -> None:
    made = []

    def make_store() -> SQLStore:
        made.append(SQLStore("sqlite:///:memory:"))
        return made[-1]

    world = replay("1 begin\n1 answer succeeded new\n1 finish", make_store=make_store)
    assert [conversation.key for conversation in made[0].conversations()][-1] == world.key
    assert world.conversation is not None
    made[0].close()


@pytest.mark.parametrize("wrong", [{"depth": -1}, {"workers": 0}, {"events": ("begin", "sing")}])
def test_what_can_not_be_explored_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="depth must be"):
        explore(**wrong)


def test_progress_is_shown_to_a_person_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    explore(depth=2, events=TURN)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    explore(depth=2, events=TURN)
    assert "depth 2: 0 of" in capsys.readouterr().err
