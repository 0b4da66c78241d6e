"""Acts are played: the real decisions are asked, and their steps committed, as the managers do it.

:func:`perform` plays one act of one worker, and its only way to change a conversation is a step that a decision
returned and a store committed. A world is never changed by what is played from it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import attrs

from fsm._core.effects import Step
from fsm._core.table import Trigger
from fsm._core.turn import RunningTurn
from fsm.errors import Conflict, ConversationBusy, TurnSuperseded
from fsm.events import EXPIRED, Result, TextDelta
from fsm.records import Conversation
from fsm.store import Store
from fsm.testing.explore_decisions import REAL, Decisions
from fsm.testing.explore_world import EPOCH, NOTHING, Act, Sent, Worker, World

__all__ = ["perform"]

PROVIDER = "provider"
LEASE = timedelta(minutes=10)
CONTENT = ({"type": "text", "text": "hello"},)
SAYS = TextDelta("hello yourself")
RESULTS = {
    "succeeded": Result(),
    "failed": Result(is_error=True, http_status=429),
    "expired": Result(subtype=EXPIRED, is_error=True),
    "expired-midway": Result(subtype=EXPIRED, is_error=True),
}
"""The result of each outcome, before it names a session."""


def perform(world: World, act: Act, store: Store, decide: Decisions = REAL) -> World:
    """Let one act happen.

    Args:
        world: as it is; it is not changed.
        act: what happens.
        store: a store that holds what the world's store holds, and nothing later; it is written to.
        decide: the decisions.

    Returns:
        The world as it is afterwards, on that store.

    Raises:
        FSMError: a decision or the store refused what they must not refuse.

    >>> from fsm.testing import ReferenceStore
    >>> world = World(ReferenceStore(), "ticket-42", (Worker(),))
    >>> for line in ("1 begin", "1 answer succeeded new", "1 finish"):
    ...     world = perform(world, Act.parse(line), world.store)
    >>> world.state, world.conversation.session_id
    (<State.ACTIVE: 'active'>, 'id-1')
    """
    after = World(
        store, world.key, world.workers, world.now, world.conversation, world.ids, world.dead, world.sent,
        (*world.path, act), world, world.sessions, world.turns, world.messages, world.transitions,
    )  # fmt: skip  # attrs.evolve takes three times as long
    if act.event == "expire_lease":
        after.now += 2 * LEASE
    else:
        _Performance(after, act, decide).run()
    return after


class _Performance:
    """One worker's act, while it is played."""

    def __init__(self, world: World, act: Act, decide: Decisions) -> None:
        self.world = world
        self.act = act
        self.decide = decide
        self.index = act.worker - 1
        self.worker = world.workers[self.index]

    def run(self) -> None:
        getattr(self, f"_{self.act.event}")()

    # What a worker does that runs no turn

    def _look(self) -> None:
        self._become(phase="looked", snapshot=self.world.conversation or _new(self.world.key))

    def _begin(self) -> None:
        world = self.world
        snapshot = self.worker.snapshot or world.conversation or _new(world.key)
        self._rest()
        step = self._begun(snapshot)
        if step is not None and self._commit(step):
            self._become(phase="asked", snapshot=step.after, turn=step.after.turn_count, resumed=step.after.session_id)
            self._send()

    def _begun(self, snapshot: Conversation) -> Step | None:
        try:
            return self.decide.begin(
                snapshot,
                content=CONTENT,
                provider=PROVIDER,
                owner=self.world.owner(self.index),
                now=self.world.now,
                lease=LEASE,
                abandoned=self._abandoned(snapshot),
            )
        except ConversationBusy:
            self.world.came = "busy"
            return None

    def _reset(self) -> None:
        try:
            step = self.decide.reset(
                self.world.conversation,
                reason="asked for",
                provider=PROVIDER,
                now=self.world.now,
                force=self.act.event == "force",
                abandoned=self._abandoned(self.world.conversation),
            )
        except ConversationBusy:
            self.world.came = "busy"
        else:
            self._commit(step)

    _force = _reset

    def _recover(self) -> None:
        step = self.decide.expire_lease(
            self.world.conversation, now=self.world.now, abandoned=self._abandoned(self.world.conversation)
        )
        self.world.came = "nothing"
        if step is not None:
            self._commit(step)

    def _abandoned(self, snapshot: Conversation | None) -> bool | None:
        return True if self.world.live_owner(snapshot) == -1 else None

    # What a worker does that runs one

    def _answer(self) -> None:
        world, worker, act = self.world, self.worker, self.act
        if act.names == "new":
            world.ids += 1
        dead = min((one for one in world.dead if one != worker.resumed), default=None)
        named = {"nothing": None, "held": worker.resumed, "new": f"id-{world.ids}", "dead": dead}
        turn = RunningTurn(world.key, worker.turn, resumed=worker.resumed is not None and worker.asks == 1)
        turn.healed = worker.asks > 1
        if act.outcome in {"succeeded", "expired-midway"}:
            turn.feed(SAYS)
        turn.feed(attrs.evolve(RESULTS[act.outcome], session_id=named[act.names]))
        self._become(phase="answered", heals=self.decide.should_heal(turn), answer=turn.answer())

    def _heal(self) -> None:
        step = self._step(self.decide.heal, lease=LEASE, result=self._result, dead=self._dead())
        if step is not None and self._commit(step):
            self._report()
            self._become(phase="asked", resumed=step.after.session_id, answer=NOTHING, heals=False)
            self._send()

    def _finish(self) -> None:
        step = self._step(self.decide.finish, result=self._result, answer=self.worker.answer, dead=self._dead())
        if step is not None and self._commit(step):
            self._report()
            self._rest()

    def _interrupt(self) -> None:
        step = self._step(self.decide.interrupt, answer=NOTHING)
        if step is not None and self._commit(step):
            self._rest()

    def _extend(self) -> None:
        step = self._step(self.decide.extend, lease=LEASE)
        if step is not None:
            self._commit(step)

    def _crash(self) -> None:
        self._become_new(Worker(life=self.worker.life + 1))

    def _step(self, decision: Callable[..., Step], **brought: Any) -> Step | None:
        """Return a step of the running turn, or None if another worker has ended it; then its answer is kept."""
        worker = self.worker
        owner = self.world.owner(self.index)
        try:
            return decision(worker.snapshot, turn=worker.turn, owner=owner, now=self.world.now, **brought)
        except TurnSuperseded:
            self._keep()
            return None

    def _keep(self) -> None:
        worker = self.worker
        self.world.came = "late"
        step = self.decide.record_late_result(
            worker.snapshot,
            turn=worker.turn,
            answer=worker.answer,
            now=self.world.now,
            resumed=worker.resumed,
            dead=self._dead(worker.resumed),
        )
        if step is None:
            self._rest()
        elif self._commit(step):
            self.world.came = "kept"
            self._report(step.before.session_id)
            self._rest()

    # What all of them do

    @property
    def _result(self) -> Result:
        assert self.worker.answer.result is not None  # noqa: S101  # it has answered
        return self.worker.answer.result

    def _dead(self, *others: str | None) -> frozenset[str]:
        """Return the ids, of these, that were reported dead; the id that is held is never among them."""
        conversation = self.worker.snapshot
        assert conversation is not None  # noqa: S101  # its turn runs
        result = self.worker.answer.result
        named = None if result is None else result.session_id
        unknown = {one for one in (named, *others) if one is not None and one != conversation.session_id}
        return self.world.store.dead(conversation, unknown) if unknown else frozenset()

    def _commit(self, step: Step) -> bool:
        """Commit; if another worker was first, load again for the next attempt."""
        world = self.world
        try:
            world.store.commit(step)
        except Conflict:
            world.came = "conflict"
            if self.worker.turn:
                self._become(snapshot=world.store.load(world.key))
            return False
        world.step, world.came = step, "committed"
        world.conversation = stored = world.store.load(world.key)
        if stored is not None:
            world.sessions, world.turns = tuple(world.store.sessions(stored)), tuple(world.store.turns(stored))
            world.messages = tuple(world.store.messages(stored))
            world.transitions = tuple(world.store.transitions(stored))
        if self.worker.turn:
            self._become(snapshot=step.after)
        return True

    def _send(self) -> None:
        """Record a request to the provider."""
        world, worker = self.world, self.worker
        earlier = [sent for sent in world.sent if sent.turn == worker.turn]
        last = self._before.answer.messages
        allowed = len(earlier) == 0 or (len(earlier) == 1 and earlier[0].resumed is not None and not last)
        world.sent += (Sent(worker.turn, worker.resumed, worker.resumed in world.dead, bool(earlier), allowed),)
        self._become(asks=len(earlier) + 1)

    @property
    def _before(self) -> Worker:
        assert self.world.previous is not None  # noqa: S101  # perform() has set it
        return self.world.previous.workers[self.index]

    def _report(self, held: str | None = None) -> None:
        """Record the ids that a committed result reports dead (G2, G10)."""
        result = self._before.answer.result
        if result is not None and result.trigger is Trigger.EXPIRED:
            self.world.dead |= {one for one in (self._before.resumed, result.session_id) if one not in {None, held}}

    def _rest(self) -> None:
        self._become_new(Worker(life=self.worker.life))

    def _become(self, **changes: Any) -> None:
        self._become_new(attrs.evolve(self.worker, **changes))

    def _become_new(self, worker: Worker) -> None:
        workers = self.world.workers
        self.worker = worker
        self.world.workers = (*workers[: self.index], worker, *workers[self.index + 1 :])


def _new(key: str) -> Conversation:
    """Return a conversation that is not stored yet; its name in the store is made from its key."""
    return Conversation(
        key=key, id=int(key.rpartition(" ")[2] or 0) if " " in key else 1, created_at=EPOCH, updated_at=EPOCH
    )
