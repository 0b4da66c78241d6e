"""The contracts of stores, for :func:`fsm.testing.check_store`.

Most compare the store with :class:`~fsm.testing.ReferenceStore` after each step of scripts that the real decisions make
(:mod:`fsm.testing.store_looks`). The others try cases that scripts can't make: any content, steps that must be refused,
two writers at once, a killed process (:mod:`fsm.testing.store_writers`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

import attrs

from fsm._core import effects as fx
from fsm.content import text_block
from fsm.errors import Conflict, InvalidInput, StoreError
from fsm.records import Conversation, Message, TurnStatus
from fsm.testing import store_scripts as s
from fsm.testing.report import Broken, Contract, NotApplicable
from fsm.testing.store_actions import EPOCH, Action, Begin, End, Extend, Late, Reset, Script
from fsm.testing.store_contents import contents
from fsm.testing.store_looks import (
    KEYS_TOUR,
    OTHERS_TOUR,
    PAGED,
    compared,
    lists,
    look_at_context,
    look_at_dead_ids,
    look_at_idempotency,
    look_at_keys,
    look_at_order,
    look_at_pages,
    look_at_rows,
    look_at_the_others,
)
from fsm.testing.store_writers import (
    killing,
    processes,
    reopening,
    threads,
)
from fsm.testing.subjects import StoreSubject

__all__ = ["CONTRACTS"]


# Steps that must be refused


def refused(play: s.Play, step: fx.Step, why: str, *kinds: type[Exception]) -> None:
    """Commit a step that must be refused, and see that nothing of it was written.

    Args:
        play: where it happens; what it holds must be what the store holds afterwards.
        step: the step.
        why: tells it, as the last step of the story.
        kinds: the errors with which it may be refused.
    """
    play.story.append(why)
    names = " or ".join(kind.__name__ for kind in kinds)
    try:
        play.store.commit(step)
    except kinds:
        pass
    except Exception as error:
        raise Broken(f"commit(step) must raise {names} and raised {type(error).__name__}", play.story) from error
    else:
        raise Broken(f"commit(step) must raise {names}, and returned", play.story)
    look_at_rows(play)
    look_at_dead_ids(play)
    look_at_idempotency(play)


def atomicity(subject: StoreSubject) -> None:
    """Check that a step is written whole or not at all, for each place in it and each kind of bad effect."""
    actions = (Begin(), End(), Begin(text="second"))
    for name, make_bad in BAD_EFFECTS.items():
        for position in range(4):
            with subject.store() as store:
                play = s.Play(store)
                for action in actions:
                    play.do(action)
                before = play.conversation("a")
                good = End("a", "expired", "s-2").decide(play)
                assert good is not None  # noqa: S101  # a turn is running
                effects = (*good.effects[:position], make_bad(before), *good.effects[position:])
                step = attrs.evolve(good, effects=effects)
                told = f"turn 2 ends, expired, in a step whose effect {position + 1} of {len(effects)} is {name}"
                refused(play, step, told, StoreError, Conflict)


BAD_EFFECTS: dict[str, Callable[[Conversation], fx.Effect]] = {
    "a message whose number is taken": lambda c: fx.AddMessage(
        Message(number=c.message_count, turn=1, role="user", content=(text_block("again"),), created_at=EPOCH)
    ),
    "the end of a turn that has ended": lambda c: fx.EndTurn(
        number=1, session_number=1, status=TurnStatus.FAILED, state=c.state, last_message=2, at=EPOCH
    ),
    "the end of a turn that never began": lambda c: fx.EndTurn(
        number=9, session_number=1, status=TurnStatus.FAILED, state=c.state, last_message=2, at=EPOCH
    ),
}
"""Effects that no store can write after two turns, the second of them running."""


def stale_snapshots(subject: StoreSubject) -> None:
    """Check that a step is refused unless its snapshot is the stored one: the version, the time and the id."""
    for first, second in (
        (Begin(), Begin(text="me too")),
        (End(), End(how="failed", text="no")),
        (Reset(), End()),
        (Extend(), Reset()),
    ):
        with subject.store() as store:
            play = s.Play(store)
            if not isinstance(first, Begin):
                play.do(Begin())
            late = second.decide(play)
            assert late is not None  # noqa: S101  # possible by construction
            play.do(first)
            told = second.told(late)
            refused(play, late, f"{told} (decided from the snapshot before step {len(play.story)})", Conflict)
    for action in (End(), Extend(), Reset()):
        for other, changes in OTHER_SNAPSHOTS.items():
            with subject.store() as store:
                play = s.Play(store)
                play.do(Begin())
                step = action.decide(play)
                assert step is not None  # noqa: S101  # possible by construction
                refused(play, changes(step), f"{action.told(step)} (decided from {other})", Conflict)


def _from_another_commit(step: fx.Step) -> fx.Step:
    return attrs.evolve(
        step, before=attrs.evolve(step.before, updated_at=step.before.updated_at + timedelta(seconds=5))
    )


def _from_another_conversation(step: fx.Step) -> fx.Step:
    before, after = (attrs.evolve(snapshot, id=snapshot.id + 1) for snapshot in (step.before, step.after))
    return attrs.evolve(step, before=before, after=after)


OTHER_SNAPSHOTS: dict[str, Callable[[fx.Step], fx.Step]] = {
    "a snapshot of the same version that another commit made": _from_another_commit,
    "a snapshot of the same key and version under another id": _from_another_conversation,
}
"""Return snapshots that a database may hold in the place of another, after it forgot a commit or a conversation."""


def retries(subject: StoreSubject) -> None:
    """Check that a committed step is a conflict the second time, and that its rows are there once."""
    superseded: list[Action] = [Begin(), Reset()]
    scripts: list[Script] = [
        [Begin()],
        [Begin(), End()],
        superseded,
        [*superseded, Late()],
    ]
    for script in scripts:
        with subject.store() as store:
            play = s.Play(store)
            step = None
            for action in script:
                step = play.do(action)
            assert step is not None  # noqa: S101  # possible by construction
            refused(play, step, f"step {len(play.story)} is committed once more", Conflict)


def together(subject: StoreSubject) -> None:
    """Check that steps that are committed at once are independent: the good ones are written, the bad ones are not."""
    with subject.store() as store:
        if not hasattr(store, "commit_many"):
            raise NotApplicable("it takes one step at a time: it has no commit_many")
        play = s.Play(store)
        for action in (Begin("a"), Begin("b"), Begin("c"), Begin("d"), End("d")):
            play.do(action)
        late, bad = End("a").decide(play), End("b").decide(play)
        play.do(Reset("a"))
        good = [Begin("e", "first").decide(play), End("c", "expired").decide(play), Begin("d", "next").decide(play)]
        assert late and bad and all(good)  # noqa: S101, PT018  # possible by construction
        bad = attrs.evolve(bad, effects=(*bad.effects, BAD_EFFECTS["the end of a turn that never began"](bad.before)))
        first, second, third = (step for step in good if step is not None)
        _hand_over(play, [(first, None), (late, Conflict), (second, None), (bad, StoreError), (third, None)])
        _hand_over(play, [(first, Conflict)])
        _hand_over(play, [])


def _hand_over(play: s.Play, steps: Sequence[tuple[fx.Step, type[Exception] | None]]) -> None:
    """Commit steps at once, and see that of each became what it says."""
    names = [kind and kind.__name__ for _, kind in steps]
    play.story.append(f"{len(steps)} steps are handed over at once; what must come of them is {names}")
    outcomes = play.attempt("commit_many(steps)", play.store.commit_many, [step for step, _ in steps])  # type: ignore[attr-defined]
    play.compare("commit_many(steps)", names, [error and type(error).__name__ for error in outcomes])
    for step, kind in steps:
        if kind is None:
            play.reference.commit(step)
    for key in {step.after.key for step, _ in steps}:
        play.acted = key
        look_at_rows(play)


def bad_input(subject: StoreSubject) -> None:
    """Check that a negative bound is refused."""
    with subject.store() as store:
        play = s.Play(store)
        play.do(Begin())
        conversation = play.conversation("a")
        play.compare("load('nobody')", None, play.attempt("load", store.load, "nobody"))
        for rows in PAGED:
            for bound in ("limit", "before"):
                _refuses_negative(play, rows, conversation, bound)


def _refuses_negative(play: s.Play, rows: str, conversation: Conversation, bound: str) -> None:
    what = f"{rows}('a', {bound}=-1)"
    try:
        found = getattr(play.store, rows)(conversation, **{bound: -1})
    except InvalidInput:
        return
    except Exception as error:
        raise Broken(f"{what} must raise InvalidInput and raised {type(error).__name__}", play.story) from error
    raise Broken(f"{what} must raise InvalidInput and returned {len(list(found))} rows", play.story)


CONTRACTS: tuple[Contract[StoreSubject], ...] = (
    compared("rows", "what was committed reads back equal (G4, G6, G7)", look_at_rows),
    compared("order", "rows come in the order of their numbers, without gaps (G5)", look_at_order),
    compared("pages", "limit and before select the newest rows, oldest first", look_at_pages, share=5),
    compared("context", "the context is the succeeded turns of the sessions asked for (G3)", look_at_context),
    compared("dead ids", "an id that was reported dead is remembered (G2)", look_at_dead_ids),
    compared("idempotency", "a turn is found by its idempotency key (G13)", look_at_idempotency),
    Contract("lists", "conversations come by key, running ones by lease", lists),
    compared("isolation", "a step of one conversation shows in no other", look_at_the_others, tour=OTHERS_TOUR),
    compared("keys", "any key of up to 512 characters names one conversation", look_at_keys, share=100, tour=KEYS_TOUR),
    Contract("contents", "any JSON and any text reads back equal", contents),
    Contract("atomicity", "a step is written whole or not at all (G16)", atomicity),
    Contract("stale snapshots", "a step decided from another snapshot is a conflict", stale_snapshots),
    Contract("retries", "a step that is committed twice is written once (G13)", retries),
    Contract("together", "of steps that are handed over at once each stands for itself (G16)", together),
    Contract("bad input", "what can be no page is refused", bad_input),
    Contract("two threads", "of two threads nobody loses a turn (G5)", threads),
    Contract("two processes", "of two processes nobody loses a turn (G5)", processes),
    Contract("reopening", "what was committed is there when it is opened again (G8)", reopening),
    Contract("kill -9", "what was acknowledged survives a killed process (G8, G9)", killing),
)
"""All of them, the quick ones first."""
