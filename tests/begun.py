"""Turns that were begun and never ended: their worker is gone."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from functools import cache

from fsm import Conversation, Store
from fsm._core import decisions as decide
from fsm.content import text_block

LEASE = timedelta(minutes=10)


@cache
def dead_owner() -> str:
    """Return the name of a worker whose process has ended."""
    code = "from fsm._runtime.owner import name_owner; print(name_owner())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


def abandoned_turn(store: Store, key: str = "k", now: datetime | None = None) -> Conversation:
    """Begin a turn in the name of a worker that is gone; its lease is far from over."""
    now = now or datetime.now(UTC)
    before = store.load(key) or Conversation(key=key, id=abs(hash(key)) % 2**62, created_at=now, updated_at=now)
    step = decide.begin(
        before, content=(text_block("hello"),), provider="demo", owner=dead_owner(), now=now, lease=LEASE
    )
    store.commit(step)
    return step.after
