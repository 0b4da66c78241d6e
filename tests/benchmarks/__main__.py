"""``make bench``: run all, print a table, and leave a report behind."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.benchmarks.growth import context_window, long_conversations, many_conversations
from tests.benchmarks.measuring import Row
from tests.benchmarks.report import as_json, as_svg, as_table, line, machine
from tests.benchmarks.small import imports, transitions
from tests.benchmarks.throughput import throughput
from tests.benchmarks.turns import postgresql_turns, sqlite_turns

OUTPUT = Path("build/benchmarks")


def benchmarks(folder: Path, *, quick: bool) -> list[Callable[[], Iterator[Row]]]:
    """All of them; quick ones say nothing about speed, only that they run."""
    if quick:
        return [
            lambda: sqlite_turns(folder, turns=3, rounds=1),
            lambda: postgresql_turns(turns=3, rounds=1),
            lambda: long_conversations(folder, (10, 100), turns=3, rounds=1),
            lambda: many_conversations(folder, (1, 10), turns=3, rounds=1),
            lambda: context_window(folder, 200, rounds=1),
            lambda: throughput(folder, (1, 4), turns=8),
            lambda: transitions(count=10, rounds=1),
            lambda: imports(rounds=1),
        ]
    return [
        lambda: sqlite_turns(folder),
        postgresql_turns,
        lambda: long_conversations(folder),
        lambda: many_conversations(folder),
        lambda: context_window(folder),
        lambda: throughput(folder),
        transitions,
        imports,
    ]


def main(arguments: list[str] | None = None) -> int:
    """Run all."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that everything runs")
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"where the report goes ({OUTPUT})")
    given = parser.parse_args(arguments)
    print(machine(), flush=True)
    rows: list[Row] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for run in benchmarks(Path(folder), quick=given.quick):
            for row in run():
                if not rows or rows[-1].group != row.group:
                    print(f"{row.group}", flush=True)
                print(line(row), flush=True)
                rows.append(row)
    given.output.mkdir(parents=True, exist_ok=True)
    for name, text in (("results.json", as_json(rows)), ("results.md", as_table(rows)), ("growth.svg", as_svg(rows))):
        (given.output / name).write_text(text, encoding="utf-8")
    print(f"{time.monotonic() - began:.0f} s; the report is in {given.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
