"""Write the state diagram into the README, between its markers: ``python docs/readme.py``."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- state diagram -->", "<!-- end of state diagram -->"


def with_diagram(readme: str, diagram: str) -> str:
    """Return the README with this diagram between its markers."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the README has no lines {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n```mermaid\n{diagram.strip()}\n```\n{END}{after}"


def main() -> None:
    """Write the diagram into the README."""
    sys.path.insert(0, str(ROOT))
    from fsm.diagrams import to_mermaid

    path = ROOT / "README.md"
    path.write_text(with_diagram(path.read_text(encoding="utf-8"), to_mermaid()), encoding="utf-8")


if __name__ == "__main__":
    main()
