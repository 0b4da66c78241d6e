"""The machine as text: mermaid, graphviz, and a markdown table.

Everything is generated from the rows of :data:`fsm._core.table.TABLE`, and what guards and effects do is told in the
words
of the methods that do it, so no diagram can drift from the machine. The same table gives the same text, byte by byte.
"""

from __future__ import annotations

from collections.abc import Sequence

from fsm._core.builder import Builder
from fsm._core.table import INITIAL, TABLE, Row, State

__all__ = ["to_dot", "to_markdown", "to_mermaid"]


def to_mermaid(table: Sequence[Row] = TABLE) -> str:
    """The table as a mermaid ``stateDiagram-v2``, an arrow for each row.

    >>> print(to_mermaid(TABLE[:1]))
    stateDiagram-v2
        [*] --> fresh
        fresh --> active: succeeded [names live session] / bind
    """
    lines = ["stateDiagram-v2", f"    [*] --> {INITIAL.value}"]
    for row in table:
        effects = f" / {', '.join(row.effects)}" if row.effects else ""
        lines.append(f"    {row.source.value} --> {row.target.value}: {_event(row)}{effects}")
    return "\n".join(lines)


def to_dot(table: Sequence[Row] = TABLE) -> str:
    """The table as a graphviz ``digraph``, an arrow for each row.

    >>> print(to_dot(TABLE[:1]).splitlines()[-2].strip())
    fresh -> active [label="succeeded [names live session]\\nbind"];
    """
    lines = [
        "digraph conversation {",
        "    rankdir=LR;",
        "    node [shape=box, style=rounded];",
        '    start [shape=point, label=""];',
        *(f"    {state.value};" for state in State),
        f"    start -> {INITIAL.value};",
    ]
    for row in table:
        effects = f"\\n{', '.join(row.effects)}" if row.effects else ""
        lines.append(f'    {row.source.value} -> {row.target.value} [label="{_event(row)}{effects}"];')
    return "\n".join([*lines, "}"])


def to_markdown(table: Sequence[Row] = TABLE, builder: type = Builder) -> str:
    """The table as a markdown table that says in plain words what each row asks for and persists.

    Args:
        table: the rows.
        builder: the class whose methods the rows name; the first lines of their docstrings are the words.
    """
    lines = ["| state | trigger | guard | next | what is persisted |", "|---|---|---|---|---|"]
    for row in table:
        effects = "; ".join(_words(builder, name) for name in row.effects) or "nothing about the session"
        cells = (row.source.value, row.trigger.value, _guard(row, builder), row.target.value, effects)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines)


def _event(row: Row) -> str:
    if row.when is not None:
        return f"{row.trigger.value} [{_spaced(row.when)}]"
    if row.unless is not None:
        return f"{row.trigger.value} [not {_spaced(row.unless)}]"
    return row.trigger.value


def _guard(row: Row, builder: type) -> str:
    if row.when is not None:
        return f"if {_words(builder, row.when)}"
    if row.unless is not None:
        return f"unless {_words(builder, row.unless)}"
    return "always"


def _words(builder: type, name: str) -> str:
    """What a guard or effect does: its docstring's first line without the kind before it and the full stop."""
    doc: str | None = getattr(builder, name).__doc__
    if not doc:
        return _spaced(name)
    first = doc.strip().partition("\n")[0]
    return first.removeprefix("Guard: ").removeprefix("Effect: ").removesuffix(".")


def _spaced(name: str) -> str:
    return name.replace("_", " ")
