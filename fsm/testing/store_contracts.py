"""What every store must do: the contracts behind :func:`fsm.testing.check_store`.

Most compare the store with :class:`~fsm.testing.ReferenceStore` after each step of scripts that the real decisions
make; the others try what scripts can't: steps that must be refused, two writers at once, a killed process.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
from attrs import define, field
from hypothesis import strategies as st

from fsm import conversation as decide
from fsm import effects as fx
from fsm.content import text_block
from fsm.errors import Conflict, InvalidInput, StoreError
from fsm.records import Conversation, Message, TurnStatus
from fsm.results import Result
from fsm.store import Store
from fsm.testing import race
from fsm.testing import store_scripts as s
from fsm.testing.reference import ReferenceStore
from fsm.testing.report import Broken, Contract, NotApplicable
from fsm.turn import Answer

__all__ = ["CONTRACTS", "Bench", "Opener"]

Opener = Callable[[], Store]
"""Opens the same conversations once more."""

PAGED = ("sessions", "turns", "messages", "transitions")
WORKERS = ("one", "two")


@define
class Bench:
    """What a contract works with: stores that are fresh and empty, and are closed again."""

    make_store: Callable[[], Any]
    reopen: Callable[[Any], Opener] | None = None
    examples: int = 25
    writes: int = 15
    _made: list[Any] = field(factory=list)

    @contextmanager
    def store(self) -> Iterator[Any]:
        """A fresh, empty store."""
        store = self.make_store()
        try:
            yield store
        finally:
            close(store)

    def opener(self, store: Any) -> Opener:
        """How to open the same conversations once more."""
        if self.reopen is not None:
            return self.reopen(store)
        if callable(getattr(store, "reopened", None)):
            opener: Opener = store.reopened
            return opener
        raise NotApplicable("it was not told how to open a store a second time; pass reopen=")

    def opener_elsewhere(self, store: Any) -> Opener:
        """The same, for another process."""
        opener = self.opener(store)
        try:
            pickle.dumps(opener)
        except Exception as error:  # noqa: BLE001  # pickle raises whatever the objects raise
            raise NotApplicable(
                f"what opens it again can't be sent to another process ({type(error).__name__}); "
                "let reopen= return something that can be pickled, such as functools.partial(MyStore, url)"
            ) from None
        return opener


def close(store: Any) -> None:
    """Close a store that can be closed."""
    if callable(getattr(store, "close", None)):
        store.close()


# Scripts, compared with the reference after each step


def compared(name: str, promise: str, look: s.Look, *, share: int = 1, tour: s.Script = s.TOUR) -> Contract[Bench]:
    """A contract that plays scripts and looks after each step.

    Args:
        name: of the contract.
        promise: of the contract.
        look: what is compared.
        share: one of so many of the bench's examples is tried.
        tour: the script to begin with.
    """

    def try_it(bench: Bench) -> None:
        with bench.store() as store:
            script = s.search(store, look, bench.examples // share, tour=tour)
        if script is not None:
            raise _smallest(bench, script, look)

    return Contract(name, promise, try_it)


def _smallest(bench: Bench, script: s.Script, look: s.Look) -> Broken:
    """The smallest script that shows the same in a fresh store."""

    def broken(script: s.Script) -> Broken | None:
        with bench.store() as store:
            return s.deviation(s.Play(store), script, look)

    if broken(script) is None:
        raise Broken("it deviates only in a store that holds other conversations; they are not kept apart")
    found = broken(s.smallest(script, lambda shorter: broken(shorter) is not None))
    return found or Broken("it deviates from one time to the next; is there a clock or chance in it?")


def look_at_rows(play: s.Play) -> None:
    for conversation in play.conversations():
        play.same("load", conversation.key)
        for rows in PAGED:
            play.same(rows, conversation)
        for turn in play.reference.turns(conversation):
            play.same("turn_messages", conversation, turn)


def look_at_order(play: s.Play) -> None:
    for conversation in play.conversations():
        for rows in PAGED:
            numbers = [row.number for row in play.attempt(rows, getattr(play.store, rows), conversation)]
            count = conversation.session if rows == "sessions" else getattr(conversation, rows)
            play.compare(f"the numbers of {rows}({conversation.key!r})", list(range(1, count + 1)), numbers)


def look_at_pages(play: s.Play) -> None:
    for conversation in play.conversations():
        for rows in PAGED:
            count = len(getattr(play.reference, rows)(conversation))
            for limit in (None, 0, 1, 2, count + 1):
                for before in {None, 0, 1, 2, count, count + 1}:
                    play.same(rows, conversation, limit=limit, before=before)


def look_at_context(play: s.Play) -> None:
    for conversation in play.conversations():
        newest = conversation.session
        for first, last in {(1, newest), (newest, newest), (1, newest - 1)}:
            for limit in (None, 0, 1, 3):
                play.same("context", conversation, first_session=first, last_session=last, limit=limit)


def look_at_dead_ids(play: s.Play) -> None:
    for conversation in play.conversations():
        for count in (0, 2):
            play.same("dead", conversation, list(s.IDS[:count]))
        play.same("dead", conversation, list(s.IDS[2:]))


def look_at_idempotency(play: s.Play) -> None:
    for conversation in play.conversations():
        for name in ("i-1", "i-2", "I-1"):
            play.same("turn_by_idempotency_key", conversation, name)


def look_at_the_others(play: s.Play) -> None:
    """What is read of a conversation changes only with a step of its own."""
    for conversation in play.conversations():
        key = conversation.key
        seen = play.attempt("a read", _everything, play.store, conversation)
        if key != play.acted:
            for what, was in play.noted[key].items():
                play.compare(f"{what} of {key!r}", was, seen[what])
        play.noted[key] = seen


def _everything(store: Store, conversation: Conversation) -> dict[str, Any]:
    rows = {name: list(getattr(store, name)(conversation)) for name in PAGED}
    sessions = {"first_session": 1, "last_session": conversation.session}
    return {
        "load": store.load(conversation.key),
        **rows,
        "context": list(store.context(conversation, limit=None, **sessions)),
        "dead": store.dead(conversation, list(s.IDS[:2])),
        "turn_by_idempotency_key": store.turn_by_idempotency_key(conversation, "i-1"),
    }


OTHERS_TOUR: s.Script = [
    s.Begin("a"),
    s.End("a"),
    s.Begin("b", idempotency_key="i-1"),
    s.End("b", session_id="s-2"),
    s.Begin("b"),
    s.End("b", "expired", "s-1"),
    s.Reset("b"),
    *s.TOUR,
]


def look_at_lists(play: s.Play) -> None:
    """For a store that has seen nothing but this play."""
    for after in (None, *(conversation.key for conversation in play.conversations())):
        for limit in (None, 0, 1, 9):
            play.same("conversations", limit=limit, after=after)
    for until in (None, play.now, play.now + s.LEASE):
        for limit in (1, 100):
            play.same("running", until=until, limit=limit)


def lists(bench: Bench) -> None:
    """Lists show all conversations, so each script gets a store of its own."""
    tour = [s.Begin("b"), s.Begin("c"), s.Begin("a"), s.Extend("b"), s.End("c"), s.Clock(), *s.TOUR]
    for script in (tour, s.TOUR):
        with bench.store() as store:
            broken = s.deviation(s.Play(store), script, look_at_lists)
        if broken is not None:
            raise _smallest(bench, script, look_at_lists)


ODD_KEYS = (
    "slack:C042",
    "A",
    "a",
    "a ",
    " a",
    "%",
    "_",
    "a'b\"c",
    "a\\b/c",
    "../a",
    "a\nb",
    "a\tb",
    "null",
    "0",
    "00",
    "é",
    "e\u0301",
    "ﬀ",
    "ß",
    "ss",
    "\U0001f600",
    "\uffff",
    "k" * 511,
    "k" * 512,
    "\U0001f600" * 512,
)
"""Keys that a store may confuse with one another, or be unable to write."""

KEYS_TOUR: s.Script = [*(s.Begin(key, text=f"I am {n}") for n, key in enumerate(ODD_KEYS)), *map(s.End, ODD_KEYS)]


def look_at_keys(play: s.Play) -> None:
    for conversation in play.conversations():
        play.same("load", conversation.key)
        if conversation.key == play.acted:
            play.same("messages", conversation)


# Contents

CONTENTS: tuple[Any, ...] = (
    "",
    " ",
    "\0",
    "a\0b",
    "\\u0000",
    "\r\n\t\x1b",
    "'; DROP TABLE message; --",
    "\U0001f600 é e\u0301 \u202e \ufeff \uffff",
    "x" * 100_000,
    None,
    True,
    0,
    -(2**63),
    2**53 + 1,
    0.1,
    1e300,
    [],
    {},
    [[], {}, [None]],
    {"": {"": []}, "b": 1, "a": [1, 1.5, "1", None, False]},
    [[[[[[[[[[[[]]]]]]]]]]]],
)

LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
JSON: st.SearchStrategy[Any] = st.recursive(
    LEAVES | st.text(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


def contents(bench: Bench) -> None:
    """Whatever JSON can say comes back equal, wherever it is stored."""
    with bench.store() as store:
        for number, value in enumerate((*CONTENTS, *s.some(JSON, bench.examples))):
            _say(s.Play(store), value, number)


def _say(play: s.Play, value: Any, number: int) -> None:
    told = json.dumps(value)
    told = told if len(told) <= 60 else told[:59] + "…"
    begin = decide.begin(
        Conversation(f"k-{number}", number + 1, s.EPOCH, s.EPOCH),
        content=({"type": "document", "source": value},),
        provider="p",
        owner=s.OWNER,
        now=s.EPOCH.replace(microsecond=123456),
        lease=s.LEASE,
        metadata={"value": value},
    )
    result = Result(
        session_id="s-ß'\"",
        stop_reason="end_turn",
        errors=(str(value),),
        usage={"value": value},
        cost_usd=0.1,
        http_status=200,
    )
    answer = Answer((("assistant", ({"type": "text", "text": str(value)},), {"value": value}),), result)
    end = decide.finish(begin.after, turn=1, owner=s.OWNER, result=result, answer=answer, now=s.EPOCH)
    for step, what in ((begin, "turn 1 begins, with {} in its message and metadata"), (end, "it ends, with {} in it")):
        play.story.append(what.format(told))
        play.commit(step)
        look_at_rows(play)


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


def atomicity(bench: Bench) -> None:
    """For each place in a step, and each kind of effect that can't be written."""
    actions = (s.Begin(), s.End(), s.Begin(text="second"))
    for name, make_bad in BAD_EFFECTS.items():
        for position in range(4):
            with bench.store() as store:
                play = s.Play(store)
                for action in actions:
                    play.do(action)
                before = play.conversation("a")
                good = s.End("a", "expired", "s-2").decide(play)
                assert good is not None  # noqa: S101  # a turn is running
                effects = (*good.effects[:position], make_bad(before), *good.effects[position:])
                step = attrs.evolve(good, effects=effects)
                told = f"turn 2 ends, expired, in a step whose effect {position + 1} of {len(effects)} is {name}"
                refused(play, step, told, StoreError, Conflict)


BAD_EFFECTS: dict[str, Callable[[Conversation], fx.Effect]] = {
    "a message whose number is taken": lambda c: fx.AddMessage(
        Message(c.messages, 1, "user", (text_block("again"),), s.EPOCH)
    ),
    "the end of a turn that has ended": lambda c: fx.EndTurn(1, 1, TurnStatus.FAILED, c.state, 2, s.EPOCH),
    "the end of a turn that never began": lambda c: fx.EndTurn(9, 1, TurnStatus.FAILED, c.state, 2, s.EPOCH),
}
"""Effects that no store can write after two turns, the second of them running."""


def stale_snapshots(bench: Bench) -> None:
    """Of two steps decided from one snapshot the second is refused."""
    for first, second in (
        (s.Begin(), s.Begin(text="me too")),
        (s.End(), s.End(how="failed", text="no")),
        (s.Reset(), s.End()),
        (s.Extend(), s.Reset()),
    ):
        with bench.store() as store:
            play = s.Play(store)
            if not isinstance(first, s.Begin):
                play.do(s.Begin())
            late = second.decide(play)
            assert late is not None  # noqa: S101  # possible by construction
            play.do(first)
            told = second.told(late)
            refused(play, late, f"{told} (decided from the snapshot before step {len(play.story)})", Conflict)


def retries(bench: Bench) -> None:
    """A step that was committed is a conflict the second time, and its rows are there once."""
    superseded: list[s.Action] = [s.Begin(), s.Reset()]
    scripts: list[s.Script] = [[s.Begin()], [s.Begin(), s.End()], superseded, [*superseded, s.Late()]]
    for script in scripts:
        with bench.store() as store:
            play = s.Play(store)
            step = None
            for action in script:
                step = play.do(action)
            assert step is not None  # noqa: S101  # possible by construction
            refused(play, step, f"step {len(play.story)} is committed once more", Conflict)


def bad_input(bench: Bench) -> None:
    """A negative bound is no page."""
    with bench.store() as store:
        play = s.Play(store)
        play.do(s.Begin())
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


# Two writers


def threads(bench: Bench) -> None:
    """Two threads with one store."""
    with bench.store() as store:
        _needs_threads(store)
        errors: list[BaseException] = []

        def work(name: str) -> None:
            try:
                race.race(store, name, bench.writes)
            except BaseException as error:  # noqa: BLE001  # told by the thread that waits
                errors.append(error)

        workers = [threading.Thread(target=work, args=(name,)) for name in WORKERS]
        with _switching_often():
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
        story = _race_story("threads", bench.writes)
        if errors:
            raise Broken(f"{type(errors[0]).__name__} was raised: {errors[0]}", story)
        _judge_race(store, bench.writes, story)


def _needs_threads(store: Store) -> None:
    errors: list[Exception] = []

    def look() -> None:
        try:
            store.load(race.KEY)
        except Exception as error:  # noqa: BLE001  # whatever it is: it can't be used there
            errors.append(error)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    if errors:
        raise NotApplicable(f"it can't be used from another thread ({type(errors[0]).__name__})")


@contextmanager
def _switching_often() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


def processes(bench: Bench) -> None:
    """Two processes, each with a store of its own on the same conversations."""
    with bench.store() as store:
        opener = bench.opener_elsewhere(store)
        story = _race_story("processes", bench.writes)
        workers = [race.start("race", opener, name, bench.writes) for name in WORKERS]
        try:
            for worker in workers:
                _is_ready(worker)
            for worker in workers:
                _go_on(worker)
            for worker in workers:
                _, told = worker.communicate(timeout=2 * race.PATIENCE)
                if worker.returncode:
                    raise Broken(f"a process has failed: {_last_line(told)}", story)
        finally:
            for worker in workers:
                _end(worker)
        _judge_race(store, bench.writes, story)


def _race_story(kind: str, count: int) -> list[str]:
    return [
        f"two {kind} begin {count} turns each in one conversation, each turn decided from the snapshot just loaded",
        "whenever commit raises Conflict, they load and decide again",
    ]


def _judge_race(store: Store, count: int, story: Sequence[str]) -> None:
    total = count * len(WORKERS)
    conversation = store.load(race.KEY)
    if conversation is None:
        raise Broken("there is no conversation afterwards", story)
    texts = [message.text for message in store.messages(conversation)]
    for name in WORKERS:
        mine = [text for text in texts if text.startswith(name)]
        if mine != [f"{name} {number}" for number in range(1, count + 1)]:
            raise Broken(f"{count} turns of {name} were acknowledged, and {len(mine)} of its messages are there", story)
    if (conversation.version, conversation.turns) != (total, total):
        raise Broken(
            f"{total} commits were acknowledged; the version must be {total} and is {conversation.version}", story
        )


# Durability


def reopening(bench: Bench) -> None:
    """What was committed is there for a second store, after each step."""

    def look(play: s.Play) -> None:
        opener = bench.opener(play.store)
        again = play.attempt("opening it a second time", opener)
        try:
            _look_with(play, again)
        finally:
            close(again)

    with bench.store() as store:
        bench.opener(store)
        broken = s.deviation(s.Play(store), s.TOUR, look)
    if broken is not None:
        raise _smallest(bench, s.TOUR, look)


def _look_with(play: s.Play, again: Store) -> None:
    """Compare what a second store reads with what the first one does."""
    told, first = play.reference, play.store
    play.reference, play.store = first, again
    play.story.append("the store is opened a second time")
    try:
        look_at_rows(play)
        look_at_dead_ids(play)
        look_at_idempotency(play)
        look_at_context(play)
        play.story.pop()
    finally:
        play.reference, play.store = told, first


def killing(bench: Bench) -> None:
    """What a process said it had committed is there after it was killed."""
    with bench.store() as store:
        opener = bench.opener_elsewhere(store)
        acknowledged = _killed(race.start("run_alone", opener), bench.writes)
        story = [
            "a process commits one step after the other, and says so after each",
            f"it is killed (SIGKILL) after it has said so {acknowledged} times",
            "the store is opened again",
        ]
        again = opener()
        try:
            _judge_killed(again, acknowledged, story)
        finally:
            close(again)


def _killed(worker: subprocess.Popen[str], count: int) -> int:
    """Kill a worker after so many lines; how many it wrote."""
    try:
        _is_ready(worker)
        _go_on(worker)
        lines = [_line(worker) for _ in range(count)]
        worker.kill()
        assert worker.stdout is not None  # noqa: S101  # it is a pipe
        lines += [line for line in worker.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        return len(lines)
    finally:
        _end(worker)


def _judge_killed(store: Store, acknowledged: int, story: Sequence[str]) -> None:
    found = store.load(race.KEY)
    version = found.version if found else 0
    if version < acknowledged:
        raise Broken(f"the version must be {acknowledged} at least and is {version}", story)
    play = s.Play(ReferenceStore())
    before = race.new()
    while before.version < version:
        step = race.next_step(before)
        play.reference.commit(step)
        before = step.after
    play.store = store
    play.story = list(story)
    look_at_rows(play)


def _is_ready(worker: subprocess.Popen[str]) -> None:
    if _line(worker).strip() != "ready":
        assert worker.stderr is not None  # noqa: S101  # it is a pipe
        raise NotApplicable(f"another process can't open it: {_last_line(worker.stderr.read())}")


def _line(worker: subprocess.Popen[str]) -> str:
    """Its next line; nothing if it says none for so long that it is killed."""
    assert worker.stdout is not None  # noqa: S101  # it is a pipe
    watchdog = threading.Timer(2 * race.PATIENCE, worker.kill)
    watchdog.start()
    try:
        return worker.stdout.readline()
    finally:
        watchdog.cancel()


def _go_on(worker: subprocess.Popen[str]) -> None:
    assert worker.stdin is not None  # noqa: S101  # it is a pipe
    worker.stdin.write("go\n")
    worker.stdin.flush()


def _last_line(told: str) -> str:
    return (told.strip().splitlines() or ["it said nothing"])[-1]


def _end(worker: subprocess.Popen[str]) -> None:
    worker.kill()
    worker.wait()
    for pipe in (worker.stdin, worker.stdout, worker.stderr):
        if pipe is not None:
            pipe.close()


CONTRACTS: tuple[Contract[Bench], ...] = (
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
    Contract("stale snapshots", "a step decided from an old version is a conflict", stale_snapshots),
    Contract("retries", "a step that is committed twice is written once (G13)", retries),
    Contract("bad input", "what can be no page is refused", bad_input),
    Contract("two threads", "of two threads nobody loses a turn (G5)", threads),
    Contract("two processes", "of two processes nobody loses a turn (G5)", processes),
    Contract("reopening", "what was committed is there when it is opened again (G8)", reopening),
    Contract("kill -9", "what was acknowledged survives a killed process (G8, G9)", killing),
)
"""All of them, the quick ones first."""
