"""Properties: some must hold in every world, some in at least one, and some in the end.

A property is a function of a :class:`~fsm.testing.explore_world.World`, under a name that says what it claims. Those of
:data:`ALWAYS` are checked in every world that is reached, on the stored rows. Those of :data:`SOMETIMES` must be true
in at least one world, so that no property passes only because its case never happened. Those of :data:`EVENTUALLY` must
become true from every world once the faults have stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from fsm._core.effects import AddMessage
from fsm._core.table import TABLE, State, Trigger
from fsm.records import TurnStatus
from fsm.testing.explore_world import World

__all__ = ["ALWAYS", "EVENTUALLY", "SOMETIMES", "Property"]

Property: TypeAlias = Callable[[World], bool]
"""A claim about a world."""

MOVES = {(row.source, row.trigger, row.target) for row in TABLE}
UNTOUCHED = ("state", "session_number", "session_id", "provider", "turn_count", "transition_count", "running")
"""The fields of a snapshot that a late result does not change (G10)."""


def _one_id(world: World) -> bool:
    held = world.conversation and world.conversation.session_id
    bound = [session.session_id for session in world.sessions if session.closed_at is None]
    return (held is not None) == (world.state is State.ACTIVE) and bound in ([held], [])


def _no_dead_id_held(world: World) -> bool:
    return world.conversation is None or world.conversation.session_id not in world.dead


def _no_dead_id_sent(world: World) -> bool:
    return not (world.sent and world.sent[-1].was_dead)


def _dead_ids_remembered(world: World) -> bool:
    return world.conversation is None or world.store.dead(world.conversation, world.dead) == world.dead


def _append_only(world: World) -> bool:
    before = world.previous.messages if world.previous else ()
    return world.messages[: len(before)] == before


def _no_gaps(world: World) -> bool:
    conversation = world.conversation
    if conversation is None:
        return True
    counted = (
        (world.messages, conversation.message_count),
        (world.turns, conversation.turn_count),
        (world.sessions, conversation.session_number),
        (world.transitions, conversation.transition_count),
    )
    return all([row.number for row in rows] == list(range(1, count + 1)) for rows, count in counted)


def _user_first(world: World) -> bool:
    first: dict[int, str] = {}
    for message in world.messages:
        first.setdefault(message.turn, message.role)
    return all(first.get(turn.number) == "user" for turn in world.turns)


def _one_turn_runs(world: World) -> bool:
    running = world.conversation and world.conversation.running
    stored = [turn.number for turn in world.turns if turn.status is TurnStatus.RUNNING]
    return stored == ([running.turn] if running else [])


def _path_of_the_table(world: World) -> bool:
    state, version = State.FRESH, 0
    for move in world.transitions:
        if move.source != state or (state, move.trigger, move.target) not in MOVES or move.version < version:
            return False
        state, version = move.target, move.version
    return state == world.state


def _log_gives_what_is_stored(world: World) -> bool:
    conversation, log = world.conversation, world.transitions
    if conversation is None or not log:
        return conversation is None or conversation.session_id is None
    last = log[-1]
    return (last.session_number, last.session_id) == (conversation.session_number, conversation.session_id) and (
        last.version <= conversation.version
    )


def _one_open(world: World) -> bool:
    if world.conversation is None:
        return True
    still_open = [session.number for session in world.sessions if session.closed_at is None]
    return still_open == ([] if world.state is State.STALE else [world.conversation.session_number])


def _closed_for_a_reason(world: World) -> bool:
    return all(bool(session.closed_reason) == (session.closed_at is not None) for session in world.sessions)


def _parents(world: World) -> bool:
    return all(session.parent == (session.number - 1 or None) for session in world.sessions)


def _running_when_moved(world: World) -> bool:
    """Check that only the running turn moves the machine by its result."""
    if world.act is None or world.act.event not in {"heal", "finish"} or world.step is None or world.came == "kept":
        return True
    running = world.step.before.running
    return (
        world.previous is not None
        and running is not None
        and world.previous.live_owner(world.step.before) == world.act.worker - 1
    )


def _late_moves_nothing(world: World) -> bool:
    step = world.step
    if step is None or world.came != "kept":
        return True
    return all(getattr(step.before, name) == getattr(step.after, name) for name in UNTOUCHED)


def _bounded(world: World) -> bool:
    return not world.sent or world.sent[-1].allowed


ALWAYS: Mapping[str, Property] = {
    "G1: active holds exactly one id, fresh and stale hold none": _one_id,
    "G2: no dead id is held": _no_dead_id_held,
    "G2: no dead id is sent to the provider": _no_dead_id_sent,
    "G2: every id that was reported dead is remembered": _dead_ids_remembered,
    "G4: messages are only appended": _append_only,
    "G5: messages, turns, sessions and transitions are numbered without gaps": _no_gaps,
    "G5: a user's message stands before its answer": _user_first,
    "G5: one turn at most runs, the one that the conversation names": _one_turn_runs,
    "G6: the log is a path of the table": _path_of_the_table,
    "G6: replaying the log gives what is stored": _log_gives_what_is_stored,
    "G7: one session is open, none when stale": _one_open,
    "G7: each closed session names its reason": _closed_for_a_reason,
    "G7: parents reach the first session": _parents,
    "G10: only the running turn's result moves the machine": _running_when_moved,
    "G10: a late result moves nothing": _late_moves_nothing,
    "G11: a turn is retried once, after it resumed a session and said nothing": _bounded,
}
"""The guarantees that can be seen in one conversation."""


def _answered(world: World) -> bool:
    return any(turn.status is TurnStatus.SUCCEEDED for turn in world.turns)


def _healed(world: World) -> bool:
    return any(turn.healed and turn.status is TurnStatus.SUCCEEDED for turn in world.turns)


def _failed_after_heal(world: World) -> bool:
    return world.state is State.STALE and any(sent.retry for sent in world.sent[-1:])


def _with_status(status: TurnStatus) -> Property:
    return lambda world: any(turn.status is status for turn in world.turns)


def _late_text(world: World) -> bool:
    return world.came == "kept" and world.step is not None and isinstance(world.step.effects[0], AddMessage)


def _stale_rests(world: World) -> bool:
    return world.state is State.STALE and world.conversation is not None and world.conversation.running is None


def _second_session(world: World) -> bool:
    return any(turn.session_number > 1 and turn.status is TurnStatus.SUCCEEDED for turn in world.turns)


def _echo_refused(world: World) -> bool:
    act, finished = world.previous and world.previous.act, world.act and world.act.event == "finish"
    return bool(finished and act and act.outcome == "succeeded" and act.names == "dead" and world.step)


def _rebound(world: World) -> bool:
    before = world.previous and world.previous.conversation
    held = before and before.session_id
    now = world.conversation and world.conversation.session_id
    return held is not None and now is not None and held != now


def _cut_off_and_on(world: World) -> bool:
    ends = [turn.status for turn in world.turns]
    return ends[-2:] == [TurnStatus.INTERRUPTED, TurnStatus.RUNNING]


def _failed_and_kept(world: World) -> bool:
    last = world.transitions[-1:]
    return bool(last) and last[0].trigger is Trigger.FAILED and last[0].source is last[0].target is State.ACTIVE


SOMETIMES: Mapping[str, Property] = {
    "a turn is answered": _answered,
    "a turn heals and is answered": _healed,
    "a retry finds its session dead too": _failed_after_heal,
    "a turn fails": _with_status(TurnStatus.FAILED),
    "a turn is superseded": _with_status(TurnStatus.SUPERSEDED),
    "a turn is cut off, and the next one runs": _cut_off_and_on,
    "late text is kept": _late_text,
    "somebody else was first": lambda world: world.came == "conflict",
    "a conversation is busy": lambda world: world.came == "busy",
    "stale rests": _stale_rests,
    "a second session answers": _second_session,
    "the echo of a dead id is refused": _echo_refused,
    "a live session changes its id": _rebound,
    "an error leaves the session resumable": _failed_and_kept,
}
"""The cases that an exploration must have seen."""


EVENTUALLY: Mapping[str, Property] = {
    "the conversation answers once the faults have stopped": lambda world: (
        bool(turns := world.turns) and turns[-1].status is TurnStatus.SUCCEEDED
    ),
}
"""Properties that must become true from every world, if the workers go on, the provider loses its sessions at most once
more, and another message is sent."""
