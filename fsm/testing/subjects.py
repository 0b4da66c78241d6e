"""The subjects of the contracts for stores: new, empty stores, which can be opened again and are closed."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from attrs import define, field

from fsm.store import Store
from fsm.testing.report import NotApplicable

__all__ = ["Opener", "StoreSubject", "close"]

Opener = Callable[[], Store]
"""Opens the same conversations again."""


@define
class StoreSubject:
    """Makes new, empty stores for a contract, and closes them."""

    make_store: Callable[[], Any]
    reopen: Callable[[Any], Opener] | None = None
    examples: int = 25
    writes: int = 15
    _made: list[Any] = field(factory=list)

    @contextmanager
    def store(self) -> Iterator[Any]:
        """Make a new, empty store, and close it at the end of the block."""
        store = self.make_store()
        try:
            yield store
        finally:
            close(store)

    def opener(self, store: Any) -> Opener:
        """Return a function that opens the same conversations again."""
        if self.reopen is not None:
            return self.reopen(store)
        if callable(getattr(store, "reopened", None)):
            opener: Opener = store.reopened
            return opener
        raise NotApplicable("it was not told how to open a store a second time; pass reopen=")

    def opener_elsewhere(self, store: Any) -> Opener:
        """Return a function that opens the same conversations in another process."""
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
