"""Work that a store is given by several threads or processes at once, and by a process that is going to be killed.

:func:`next_step` and :func:`race` are run in threads and, by ``python -m fsm.testing.race``, in processes; which job,
and how to open the store, comes pickled on standard input. Each acknowledged commit is one line on standard output.
"""

from __future__ import annotations

import base64
import os
import pickle
import random
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from fsm._core import decisions as decide
from fsm._core.effects import Step
from fsm._core.turn import Answer
from fsm.content import text_block
from fsm.errors import Conflict
from fsm.events import EXPIRED, Result
from fsm.records import Conversation
from fsm.store import Store

__all__ = ["EPOCH", "KEY", "next_step", "race", "run_alone", "start"]

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
KEY = "contested"
LEASE = timedelta(seconds=60)
PATIENCE = 30.0
"""How long a worker may get nowhere, in seconds."""


def new(number: int = 1) -> Conversation:
    """Return the conversation before its first turn."""
    return Conversation(key=KEY, id=number, created_at=EPOCH, updated_at=EPOCH)


def next_step(conversation: Conversation) -> Step:
    """Return the next step of a conversation, decided from its snapshot: a turn begins, or ends."""
    now = EPOCH + timedelta(seconds=conversation.version)
    if conversation.running is None:
        content = (text_block(f"message {conversation.turn_count + 1}"),)
        return decide.begin(conversation, content=content, provider="p", owner="o", now=now, lease=LEASE)
    dead = conversation.turn_count % 3 == 0
    result = (
        Result(subtype=EXPIRED, is_error=True)
        if dead
        else Result(session_id=f"s-{conversation.session_number}", text="yes")
    )
    answer = Answer((("assistant", (text_block("yes"),), None),), result)
    return decide.finish(conversation, turn=conversation.turn_count, owner="o", result=result, answer=answer, now=now)


def race(store: Store, name: str, count: int) -> None:
    """Begin ``count`` turns, each from the snapshot just loaded, loading again whenever somebody else was first."""
    done, deadline = 0, time.monotonic() + PATIENCE
    while done < count:
        before = store.load(KEY) or new()
        step = decide.begin(
            before,
            content=(text_block(f"{name} {done + 1}"),),
            provider="p",
            owner=name,
            now=EPOCH,
            lease=LEASE,
            abandoned=True,
        )
        time.sleep(random.uniform(0, 0.002))  # noqa: S311  # so that others get in between; no secret
        try:
            store.commit(step)
        except Conflict:
            if time.monotonic() > deadline:
                raise
        else:
            done, deadline = done + 1, time.monotonic() + PATIENCE


def run_alone(store: Store) -> None:
    """Commit one step after the other and say so, until this process is killed."""
    before = store.load(KEY) or new()
    while True:
        step = next_step(before)
        store.commit(step)
        _say(step.after.version)
        before = step.after


def start(job: str, opener: Callable[[], Store], *args: Any) -> subprocess.Popen[str]:
    """Start a process that opens the store and does a job: ``race`` or ``run_alone``.

    It says ``ready`` when it has opened the store, and goes on when it is told a line.

    Raises:
        Exception: the opener can't be pickled.
    """
    payload = base64.b64encode(pickle.dumps((opener, job, args))).decode()
    environment = {
        **os.environ,
        "HYPOTHESIS_NO_PLUGINS": "1",
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", "from fsm.testing.race import main; main()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    with suppress(BrokenPipeError):
        assert process.stdin is not None  # noqa: S101  # it is a pipe
        process.stdin.write(payload + "\n")
        process.stdin.flush()
    return process


def main() -> None:
    """Do the job that is told on standard input."""
    opener, job, args = pickle.loads(base64.b64decode(sys.stdin.readline()))  # noqa: S301  # from the parent
    store = opener()
    _say("ready")
    sys.stdin.readline()
    jobs: dict[str, Callable[..., None]] = {"race": race, "run_alone": run_alone}
    jobs[job](store, *args)
    _say("done")


def _say(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()
