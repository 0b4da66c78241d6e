"""The contracts with two writers at once, with a store that is opened again, and with a process that is killed."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fsm.store import Store
from fsm.testing import race
from fsm.testing import store_scripts as s
from fsm.testing.reference import ReferenceStore
from fsm.testing.report import Broken, NotApplicable
from fsm.testing.store_actions import TOUR
from fsm.testing.store_looks import (
    WORKERS,
    look_at_context,
    look_at_dead_ids,
    look_at_idempotency,
    look_at_rows,
    smallest,
)
from fsm.testing.subjects import StoreSubject, close


def threads(subject: StoreSubject) -> None:
    """Check two threads with one store."""
    with subject.store() as store:
        _needs_threads(store)
        errors: list[BaseException] = []

        def work(name: str) -> None:
            try:
                race.race(store, name, subject.writes)
            except BaseException as error:  # noqa: BLE001  # told by the thread that waits
                errors.append(error)

        workers = [threading.Thread(target=work, args=(name,)) for name in WORKERS]
        with _switching_often():
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
        story = _race_story("threads", subject.writes)
        if errors:
            raise Broken(f"{type(errors[0]).__name__} was raised: {errors[0]}", story)
        _judge_race(store, subject.writes, story)


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


def processes(subject: StoreSubject) -> None:
    """Check two processes, each with its own store on the same conversations."""
    with subject.store() as store:
        opener = subject.opener_elsewhere(store)
        story = _race_story("processes", subject.writes)
        workers = [race.start("race", opener, name, subject.writes) for name in WORKERS]
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
        _judge_race(store, subject.writes, story)


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
    if (conversation.version, conversation.turn_count) != (total, total):
        raise Broken(
            f"{total} commits were acknowledged; the version must be {total} and is {conversation.version}", story
        )


# Durability


def reopening(subject: StoreSubject) -> None:
    """Check that a second store finds each committed step."""

    def look(play: s.Play) -> None:
        opener = subject.opener(play.store)
        again = play.attempt("opening it a second time", opener)
        try:
            _look_with(play, again)
        finally:
            close(again)

    with subject.store() as store:
        subject.opener(store)
        broken = s.deviation(s.Play(store), TOUR, look)
    if broken is not None:
        raise smallest(subject, TOUR, look)


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


def killing(subject: StoreSubject) -> None:
    """Check that commits which a process acknowledged are there after it was killed."""
    with subject.store() as store:
        opener = subject.opener_elsewhere(store)
        acknowledged = _killed(race.start("run_alone", opener), subject.writes)
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
    """Return its next line; kill it and return the empty text if none comes in time."""
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
