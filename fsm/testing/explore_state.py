"""The canonical form of a world, which is equal for worlds with the same future.

The future of a world does not depend on the names of ids, on times, on the number of rows written before, or on the
order of the workers. :func:`canonical` leaves these out. Worlds of one form have the same future, up to these names.
"""

from __future__ import annotations

from itertools import permutations
from typing import TypeAlias

from fsm.records import Conversation
from fsm.testing.explore_world import Worker, World

__all__ = ["canonical"]

Form: TypeAlias = tuple[object, ...]

ORDERS = {crew: tuple(permutations(range(crew))) for crew in range(1, 5)}


def canonical(world: World) -> Form:
    """Return the parts of a world that its future depends on.

    >>> from fsm.testing import ReferenceStore
    >>> one, other = Worker(phase="looked"), Worker()
    >>> first, second = World(ReferenceStore(), "a", (one, other)), World(ReferenceStore(), "b", (other, one))
    >>> canonical(first) == canonical(second)
    True
    """
    crew = len(world.workers)
    return min((_form(world, order) for order in ORDERS.get(crew) or permutations(range(crew))), key=repr)


def _form(world: World, order: tuple[int, ...]) -> Form:
    names: dict[str, int] = {}
    form: list[object] = [_snapshot(world, world.conversation, order, names)]
    form += [_worker(world, world.workers[index], order, names) for index in order]
    form.append(tuple(one in world.dead for one in names))
    form.append(not world.dead <= names.keys())
    return tuple(form)


def _snapshot(world: World, snapshot: Conversation | None, order: tuple[int, ...], names: dict[str, int]) -> Form:
    if snapshot is None:
        return ()
    owner = world.live_owner(snapshot)
    running = snapshot.running
    return (
        snapshot.state.value,
        _name(snapshot.session_id, names),
        -2 if owner is None else -1 if owner == -1 else order.index(owner),
        running is not None and running.until <= world.now,
        snapshot.session_number > 0,
    )


def _worker(world: World, worker: Worker, order: tuple[int, ...], names: dict[str, int]) -> Form:
    if worker.phase == "idle":
        return ()
    snapshot, result = worker.snapshot, worker.answer.result
    version = 0 if world.conversation is None else world.conversation.version
    form: Form = (
        worker.phase,
        snapshot is not None and snapshot.version == version,
        _snapshot(world, snapshot, order, names),
        _name(worker.resumed, names),
        worker.asks,
        worker.heals,
    )
    if result is None:
        return form
    return (*form, result.trigger.value, _name(result.session_id, names), len(worker.answer.messages))


def _name(session_id: str | None, names: dict[str, int]) -> int:
    """Return the name of an id, by the order of first use."""
    return 0 if session_id is None else names.setdefault(session_id, len(names) + 1)
