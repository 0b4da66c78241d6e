"""The stores that other processes open in the tests of the conformance checks. It is small, because each process
imports it."""

from typing import Any

from fsm import Store
from fsm.testing import race
from persistence import SQLStore


class Forgetful(SQLStore):
    """A store that acknowledges what it does not write, now and then, when it has much to do."""

    def commit(self, step: Any) -> None:
        if step.after.key != race.KEY or step.after.version % 10:
            super().commit(step)


def forgetful(url: str) -> Store:
    return Forgetful(url, durability="relaxed")


def unopenable() -> Store:
    raise OSError("not here")
