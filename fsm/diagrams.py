"""Diagrams of the machine: mermaid, graphviz, SVG, and a markdown table.

Everything is generated from the rows of :data:`fsm._core.table.TABLE`. The words for guards and effects are the
docstrings of the methods, so a diagram always matches the machine. The same table gives the same text, byte by byte.

A drawing has one arrow for each pair of states. Its label lists the rows of that pair. Rows that differ only in their
trigger share a line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from string import Template
from typing import Literal, TypeAlias, get_args
from xml.sax.saxutils import escape

from attrs import frozen

from fsm._core.builder import Builder
from fsm._core.table import INITIAL, TABLE, Row, State
from fsm.errors import InvalidInput

__all__ = ["Theme", "to_dot", "to_markdown", "to_mermaid", "to_svg"]

Theme: TypeAlias = Literal["light", "dark"]
"""The colours of a drawing."""


def to_mermaid(table: Sequence[Row] = TABLE) -> str:
    """Return the table as a mermaid ``stateDiagram-v2``.

    >>> print(to_mermaid(TABLE[:1]))
    stateDiagram-v2
        [*] --> fresh
        fresh --> active: succeeded [names live session] / bind
    """
    lines = ["stateDiagram-v2", f"    [*] --> {INITIAL.value}"]
    for (source, target), label in _arrows(table).items():
        lines.append(f"    {source.value} --> {target.value}: {'<br/>'.join(label)}")
    return "\n".join(lines)


def to_dot(table: Sequence[Row] = TABLE) -> str:
    """Return the table as a graphviz ``digraph``.

    >>> print(to_dot(TABLE[:1]).splitlines()[-2].strip())
    fresh -> active [label="succeeded [names live session] / bind"];
    """
    lines = [
        "digraph conversation {",
        "    rankdir=LR;",
        "    node [shape=box, style=rounded];",
        '    start [shape=point, label=""];',
        *(f"    {state.value};" for state in State),
        f"    start -> {INITIAL.value};",
    ]
    for (source, target), label in _arrows(table).items():
        text = "\\n".join(label)
        lines.append(f'    {source.value} -> {target.value} [label="{text}"];')
    return "\n".join([*lines, "}"])


def to_svg(table: Sequence[Row] = TABLE, theme: Theme = "light") -> str:
    """Return the table as a drawing in SVG.

    Args:
        table: the rows.
        theme: the colours: ``light`` or ``dark``.

    Raises:
        InvalidInput: there is no such theme.
    """
    if theme not in get_args(Theme):
        raise InvalidInput(f"theme is {theme!r}; it must be one of {', '.join(get_args(Theme))}")
    arrows = _arrows(table)
    description = "; ".join(
        f"{source.value} to {target.value}: {', '.join(label)}" for (source, target), label in arrows.items()
    )
    return PICTURE.substitute(
        COLOURS[theme],
        description=escape(description),
        arrows="\n".join(f'<path d="{PLACES[pair].path}"/>' for pair in arrows),
        labels="\n".join(_label(PLACES[pair], label) for pair, label in arrows.items()),
    )


def to_markdown(table: Sequence[Row] = TABLE, builder: type = Builder) -> str:
    """Return the table as a markdown table, with guards and effects in plain words.

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


def _arrows(table: Sequence[Row]) -> Mapping[tuple[State, State], list[str]]:
    """Return the label of each arrow, as lines; rows that differ only in their trigger share a line."""
    arrows: dict[tuple[State, State], dict[str, list[str]]] = {}
    for row in table:
        guard = f" [{_spaced(row.when)}]" if row.when else f" [not {_spaced(row.unless)}]" if row.unless else ""
        effects = f" / {_spaced(', '.join(row.effects))}" if row.effects else ""
        arrows.setdefault((row.source, row.target), {}).setdefault(guard + effects, []).append(row.trigger.value)
    return {
        pair: [f"{', '.join(triggers)}{rest}" for rest, triggers in lines.items()] for pair, lines in arrows.items()
    }


def _guard(row: Row, builder: type) -> str:
    if row.when is not None:
        return f"if {_words(builder, row.when)}"
    if row.unless is not None:
        return f"unless {_words(builder, row.unless)}"
    return "always"


def _words(builder: type, name: str) -> str:
    """Return the words for a guard or an effect: the first line of its docstring, without its kind and full stop."""
    doc: str | None = getattr(builder, name).__doc__
    if not doc:
        return _spaced(name)
    first = doc.strip().partition("\n")[0]
    return first.removeprefix("Guard: ").removeprefix("Effect: ").removesuffix(".")


def _spaced(name: str) -> str:
    return name.replace("_", " ")


# The drawing


@frozen
class _Place:
    """The place of an arrow.

    Attributes:
        path: the line, as the path of an SVG.
        x, y: the position of the first line of its label.
        anchor: the side of the label that is at ``x``: ``start``, ``middle`` or ``end``.
    """

    path: str
    x: int
    y: int
    anchor: str = "start"


FRESH, ACTIVE, STALE = State.FRESH, State.ACTIVE, State.STALE

PLACES: Mapping[tuple[State, State], _Place] = {
    (FRESH, FRESH): _Place("M335 60 C400 28 400 98 341 82", 402, 24),
    (FRESH, ACTIVE): _Place("M300 98 V204", 310, 142),
    (FRESH, STALE): _Place("M335 92 C650 110 650 410 343 414", 376, 330),
    (ACTIVE, FRESH): _Place("M260 210 V104", 250, 142, "end"),
    (ACTIVE, ACTIVE): _Place("M335 222 C400 190 400 270 341 246", 402, 230),
    (ACTIVE, STALE): _Place("M300 258 V384", 290, 320, "end"),
    (STALE, FRESH): _Place("M225 414 C20 395 20 95 219 78", 84, 240),
    (STALE, ACTIVE): _Place("M260 390 V264", 310, 290),
    (STALE, STALE): _Place("M335 426 C400 394 400 464 341 436", 402, 434),
}
"""The places of the arrows between each two states."""


def _label(place: _Place, label: Sequence[str]) -> str:
    """Return the label of an arrow as SVG text, in which each guard and each list of effects begins a line."""
    parts = [part for line in label for part in re.split(r" (?=\[|/ )", line)]
    spans = "".join(
        f'<tspan x="{place.x}" dy="{LINE if number else 0}">{escape(part)}</tspan>' for number, part in enumerate(parts)
    )
    return f'<text y="{place.y}" text-anchor="{place.anchor}">{spans}</text>'


LINE = 19
"""The height of a line of a label, in units of the drawing."""

COLOURS: Mapping[Theme, Mapping[str, str]] = {
    "light": {"ink": "#1f2328", "faint": "#59636e", "fill": "#f6f8fa", "bad": "#fff1f0", "good": "#eafbee"},
    "dark": {"ink": "#f0f6fc", "faint": "#9198a1", "fill": "#212830", "bad": "#3c1e22", "good": "#163620"},
}

PICTURE = Template(
    """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="64 0 540 446" role="img" aria-labelledby="title description" \
font-family="system-ui, sans-serif" font-size="16" fill="$ink">
<title id="title">The state machine of a conversation</title>
<desc id="description">$description</desc>
<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">\
<path d="M0 0 L8 4 L0 8 z" fill="$faint"/></marker></defs>
<g stroke="$ink" stroke-width="1.5">
<rect x="225" y="50" width="110" height="48" rx="12" fill="$fill"/>
<rect x="225" y="210" width="110" height="48" rx="12" fill="$good"/>
<rect x="225" y="390" width="110" height="48" rx="12" fill="$bad"/>
</g>
<g font-weight="600" text-anchor="middle" font-size="18">
<text x="280" y="80">fresh</text><text x="280" y="240">active</text><text x="280" y="420">stale</text>
</g>
<circle cx="280" cy="12" r="6"/>
<path d="M280 18 V46" stroke="$faint" stroke-width="1.5" marker-end="url(#tip)"/>
<g fill="none" stroke="$faint" stroke-width="1.5" marker-end="url(#tip)">
$arrows
</g>
$labels
</svg>
"""
)
