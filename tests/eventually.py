"""Waiting for what happens in the background."""

import time
from collections.abc import Callable


def eventually(condition: Callable[[], object], seconds: float = 30.0) -> bool:
    """Whether a condition comes true before so many seconds are over."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True
