"""The benchmarks run; how fast is not for a test to say."""

import json
from pathlib import Path

import pytest

from tests.benchmarks.__main__ import main
from tests.benchmarks.measuring import Row


def test_every_benchmark_runs_and_leaves_a_report(tmp_path: Path, postgresql: str) -> None:
    assert main(["--quick", "--output", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    groups = {row["group"] for row in rows}
    assert len(groups) == 15
    assert all(row["value"] > 0 for row in rows)
    assert (tmp_path / "growth.svg").read_text().count("<polyline") == 2


@pytest.mark.parametrize(
    ("row", "reached"),
    [
        (Row("g", "n", 1.0, "µs"), None),
        (Row("g", "n", 1.0, "µs", 1.1, 1.2), True),
        (Row("g", "n", 1.0, "µs", 1.3, 1.2), False),
        (Row("g", "n", 1.0, "/s", 2.0, -3.0), False),
        (Row("g", "n", 1.0, "/s", 3.5, -3.0), True),
        (Row("g", "n", 130.0, "ms", None, 120.0), False),
    ],
)
def test_a_reach_is_an_upper_bound_or_if_negative_a_lower_one(row: Row, reached: bool | None) -> None:
    assert row.is_reached is reached
