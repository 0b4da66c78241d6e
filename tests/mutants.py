"""The score of the mutation tests: how many mutants of the code some test has noticed, and where the others are.

`make mutants` runs mutmut and then this, which reads what mutmut has found and fails below the score that is asked for.
One that no test runs at all has not been noticed.
"""

import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

LEAST = 92.0
"""The score that is asked for, in percent."""

UNNOTICED = {"survived", "no tests", "not checked", "skipped"}
"""Anything else, a failed test, a hang or a process that died, was noticed."""

PAGE = Path(__file__).parents[1] / "docs" / "explanation" / "mutation-testing.md"
"""Says of each place where mutants survive why they do."""


def verdicts() -> dict[str, str]:
    """Return the verdict on each mutant, by its name, such as ``fsm._core.turn.xǁRunningTurnǁfeed__mutmut_3``."""
    mutmut = Path(sys.executable).with_name("mutmut")
    told = subprocess.run([mutmut, "results", "--all", "true"], check=True, capture_output=True, text=True).stdout
    return dict(line.strip().split(": ") for line in told.splitlines() if "__mutmut_" in line)


def place(mutant: str) -> str:
    """The function that was changed, as its users name it.

    >>> place("fsm._core.turn.xǁRunningTurnǁfeed__mutmut_3"), place("fsm.context.x_boundary__mutmut_2")
    ('fsm._core.turn.RunningTurn.feed', 'fsm.context.boundary')
    """
    module, _, function = mutant.partition("__mutmut_")[0].rpartition(".")
    return f"{module}.{function.removeprefix('x').removeprefix('_').strip('ǁ').replace('ǁ', '.')}"


def package(mutant: str) -> str:
    """Where a mutant is counted."""
    return "fsm.providers" if mutant.startswith("fsm.providers.") else mutant.partition(".")[0]


def main() -> int:
    """Print the score of each package and of all, and the survivors; fail if there are too many."""
    found = verdicts()
    counts: defaultdict[str, Counter[bool]] = defaultdict(Counter)
    survivors: defaultdict[str, list[str]] = defaultdict(list)
    for mutant, verdict in found.items():
        for name in (package(mutant), "all"):
            counts[name][verdict not in UNNOTICED] += 1
        if verdict in UNNOTICED:
            survivors[place(mutant)].append(f"{mutant}: {verdict}")
    explained = PAGE.read_text()
    for name, mutants in sorted(survivors.items()):
        print(f"{name}{'' if f'`{name}`' in explained else f' is not explained in {PAGE.name}'}")
        print(*[f"    {mutant}" for mutant in mutants], sep="\n")
    for name, count in sorted(counts.items(), key=lambda item: (item[0] == "all", item[0])):
        print(f"{name:14}{count.total():6} mutants {count[True]:6} noticed {100 * count[True] / count.total():6.1f} %")
    if "not checked" in found.values():
        print("Not all were tried; run it again to go on.")
        return 1
    return int(not found or 100 * counts["all"][True] / counts["all"].total() < LEAST)


if __name__ == "__main__":
    sys.exit(main())
