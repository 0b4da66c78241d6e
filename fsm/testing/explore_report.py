"""The outcome of an exploration: a report, or the shortest script to a deviation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import frozen

from fsm.testing.explore_world import Act, World

__all__ = ["Exploration", "Violation", "script"]


def script(path: Iterable[Act]) -> str:
    """Return the acts, one a line.

    >>> script([Act("begin", 1), Act("crash", 1)])
    '1 begin\\n1 crash\\n'
    """
    return "".join(f"{act}\n" for act in path)


class Violation(AssertionError):
    """A property does not hold; the message shows the shortest script that leads there.

    Attributes:
        claim: the name of the property.
        path: the acts that lead there.
        world: the world in which it does not hold.
    """

    def __init__(self, claim: str, path: tuple[Act, ...], world: World, detail: str = "") -> None:
        self.claim = claim
        self.path = path
        self.world = world
        lines = "".join(f"    {line}\n" for line in self.script.splitlines())
        super().__init__(f"{claim}{detail}\n\nreplay('''\n{lines}''')\n\nleads to {world.conversation}")

    @property
    def script(self) -> str:
        """The acts, one a line, for :func:`replay`."""
        return script(self.path)


@frozen(kw_only=True)
class Exploration:
    """The states and acts that were explored.

    Attributes:
        states: how many different states were reached.
        edges: how many acts were played between them.
        depth: how many acts the longest of the shortest paths has.
        complete: whether every act leads to a state that was reached, so that the depth did not limit the exploration.
        witnesses: for each property that must be true sometimes, the shortest script to where it is.
        unreached: those of them that were true nowhere.
    """

    states: int
    edges: int
    depth: int
    complete: bool
    witnesses: Mapping[str, str]
    unreached: tuple[str, ...]

    def __str__(self) -> str:
        end = "all there are" if self.complete else "more lie deeper"
        lines = [f"{self.states:,} states ({end}), {self.edges:,} edges, depth {self.depth}, no violation"]
        lines += [
            f"  sometimes {name}: {', '.join(script.split(chr(10))[:-1])}" for name, script in self.witnesses.items()
        ]
        return "\n".join([*lines, *(f"  never {name}" for name in self.unreached)])
