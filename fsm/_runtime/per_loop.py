"""One value for each event loop, since objects that tasks wait for can't be shared by two loops."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from anyio.lowlevel import current_token

from fsm.fork import renew_in_child

__all__ = ["PerLoop"]

T = TypeVar("T")


class PerLoop(Generic[T]):
    """One value for each event loop, made at the first use there, and forgotten with the loop.

    Any thread may use it; a value is only ever handed out on its own loop.

    Args:
        make: makes the value; called on the loop.

    >>> import anyio
    >>> numbers = PerLoop(iter([1, 2]).__next__)
    >>> async def twice():
    ...     return numbers.get(), numbers.get()
    >>> anyio.run(twice), anyio.run(twice, backend="trio")
    ((1, 1), (2, 2))
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self.renew()
        renew_in_child(self)

    def renew(self) -> None:
        """Forget the values of all loops, as in a forked child: the loops of the parent do not run there."""
        self._lock = threading.Lock()
        self._values: WeakKeyDictionary[object, T] = WeakKeyDictionary()

    def get(self) -> T:
        """Return the value of the loop that runs in this thread."""
        loop = current_token().native_token
        with self._lock:
            if loop not in self._values:
                self._values[loop] = self._make()
            return self._values[loop]
