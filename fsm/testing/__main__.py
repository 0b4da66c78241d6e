"""``python -m fsm.testing simulate``: a simulated world, from a terminal."""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from collections.abc import Sequence

from fsm.testing.simulation import SimulationError, simulate


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate a world, and say what happened and how fast.

    Args:
        arguments: those of the command line; None: the process's own.

    Returns:
        The exit code: 1 if a guarantee did not hold.
    """
    parser = argparse.ArgumentParser(prog="python -m fsm.testing", description="Checks that run on their own.")
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("simulate", help="conversations, workers and faults in virtual time, under a seed")
    command.add_argument("--seed", type=int, help="makes the same world again; without it, a new one")
    command.add_argument("--turns", type=int, default=10_000, help="how many turns to begin (10,000)")
    command.add_argument("--conversations", type=int, default=200, help="how many conversations there are (200)")
    command.add_argument("--workers", type=int, default=3, help="how many processes run turns at a time (3)")
    given = parser.parse_args(arguments)
    seed = secrets.randbits(32) if given.seed is None else given.seed
    began = time.perf_counter()
    try:
        done = simulate(seed, turns=given.turns, conversations=given.conversations, workers=given.workers)
    except SimulationError as error:
        sys.stdout.write(f"{error}\n")
        return 1
    took = time.perf_counter() - began
    sys.stdout.write(f"{done}\n{done.tally.turns / took * 60:,.0f} turns a minute\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
