"""The report of a run: a table for the terminal, JSON for programs, and a curve."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import attrs

from tests.benchmarks.measuring import Row

__all__ = ["as_json", "as_svg", "as_table", "line", "machine"]


def machine() -> str:
    """Return the machine of the run, in a line."""
    cpu = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    return (
        f"{os.cpu_count()} × {cpu}, {platform.system()} {platform.machine()}, Python {platform.python_version()}, "
        f"SQLite {sqlite3.sqlite_version}"
    )


def line(row: Row) -> str:
    """One row, for the terminal."""
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}×"
    mark = {True: "reached", False: "not reached", None: ""}[row.is_reached]
    reach = "" if row.reach is None else f"{'≤' if row.reach > 0 else '≥'} {abs(row.reach):g} {mark}"
    return f"  {row.name:<64} {row.value:>10,.1f} {row.unit:<8} {ratio:>7}  {reach}"


def as_table(rows: Sequence[Row]) -> str:
    """All rows, for a page."""
    lines = ["| | | median | ratio | reach |", "|---|---|---|---|---|"]
    group = None
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}×"
        reach = "" if row.reach is None else f"{'≤' if row.reach > 0 else '≥'} {abs(row.reach):g}"
        shown = "" if row.group == group else row.group
        lines.append(f"| {shown} | {row.name} | {row.value:,.1f} {row.unit} | {ratio} | {reach} |")
        group = row.group
    return "\n".join(lines)


def as_json(rows: Sequence[Row]) -> str:
    """All rows, and the machine."""
    return json.dumps({"machine": machine(), "rows": [attrs.asdict(row) for row in rows]}, ensure_ascii=False, indent=1)


def as_svg(rows: Sequence[Row]) -> str:
    """The growth curves: what a turn costs, relative to the smallest, over a logarithmic axis."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.group.startswith("A turn by"):
            groups.setdefault(row.group, []).append(row)
    width, height, left, top = 640, 320, 56, 24
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            'font-family="sans-serif" font-size="12">'
        ),
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]

    def place(power: float, ratio: float) -> tuple[float, float]:
        return left + power / 6 * (width - left - 24), height - 48 - ratio / 2 * (height - 72 - top)

    for ratio in (0.0, 0.5, 1.0, 1.2, 1.5, 2.0):
        _, y = place(0, ratio)
        dash = ' stroke-dasharray="4 4"' if ratio == 1.2 else ""
        parts.append(f'<line x1="{left}" x2="{width - 24}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ccc"{dash}/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{ratio:g}×</text>')
    for power in range(7):
        x, _ = place(power, 0)
        parts.append(f'<text x="{x:.1f}" y="{height - 28}" text-anchor="middle">{10**power:,}</text>')
    for (group, found), colour in zip(groups.items(), ("#1f77b4", "#d62728"), strict=False):
        sizes = [int(row.name.split()[0].replace(",", "")) for row in found]
        points = [place(len(str(size)) - 1, row.ratio or 1.0) for size, row in zip(sizes, found, strict=True)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>' for x, y in points]
        x, y = points[-1]
        parts.append(f'<text x="{x - 8:.1f}" y="{y - 10:.1f}" text-anchor="end" fill="{colour}">{group}</text>')
    parts.append(f'<text x="{left}" y="{height - 8}">messages, or conversations</text></svg>')
    return "\n".join(parts) + "\n"
