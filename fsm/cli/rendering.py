"""Output: text that can't harm a terminal, tables, times, and JSON.

Text of people and AIs may hold control characters that move the cursor or rename the window, and brackets that look
like markup. They don't reach a terminal: control characters are shown as ``\\x1b``, and markup is off.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from datetime import datetime
from typing import IO, Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

__all__ = ["display", "harmless", "is_terminal", "one_line", "table", "timestamp", "waiting", "write", "write_json"]

PIPED_WIDTH = 160
"""The width of a table that is not shown on a terminal, in columns."""

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
_IN_TEXT: Mapping[int, str] = {**_CONTROLS, ord("\n"): "\n", ord("\t"): "\t", ord("\r"): ""}


def is_terminal(*streams: IO[Any] | None) -> bool:
    """Return whether each of these streams is a terminal; a closed one is None."""
    return all(stream is not None and stream.isatty() for stream in streams)


def harmless(text: str) -> str:
    r"""Return text of any number of lines, without control characters.

    >>> harmless("\x1b[31mred\r\n")
    '\\x1b[31mred\n'
    """
    return text.translate(_IN_TEXT)


def one_line(text: str) -> str:
    r"""Return text on one line, without control characters.

    >>> one_line("two\nlines\a")
    'two lines\\x07'
    """
    return " ".join(text.splitlines()).translate(_CONTROLS)


def write(text: str) -> None:
    """Write text to stdout at once: harmless on a terminal, unchanged into a pipe or a file."""
    click.echo(harmless(text) if is_terminal(sys.stdout) else text, nl=False, color=True)


def write_json(value: object, *, indent: int | None = 2) -> None:
    """Write a value to stdout as JSON, in ASCII, for any program and any terminal."""
    click.echo(json.dumps(value, indent=indent))


def timestamp(time: datetime | None) -> str:
    """Return a time for people, in UTC; the empty text for None."""
    return "" if time is None else f"{time:%Y-%m-%d %H:%M:%S}"


def table(columns: Mapping[str, str], records: Iterable[object], *, title: str = "") -> Table:
    """Return a table of records, in which no text is cut off or taken for markup.

    Args:
        columns: for each column the attribute of a record that it shows.
        records: the records.
        title: the title.
    """
    drawn = Table(title=Text(title) if title else None, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for record in records:
        drawn.add_row(*(Text(_cell(record, path)) for path in columns.values()))
    return drawn


def _cell(record: object, path: str) -> str:
    """Return an attribute, or one of an attribute's, as text."""
    value: Any = record
    for name in path.split("."):
        value = getattr(value, name, None)
    match value:
        case None | False:
            return ""
        case True:
            return "yes"
        case datetime():
            return timestamp(value)
    return one_line(str(value))


def display(*things: RenderableType) -> None:
    """Show tables and lines on stdout."""
    width = None if is_terminal(sys.stdout) or "COLUMNS" in os.environ else PIPED_WIDTH
    console = Console(markup=False, highlight=False, emoji=False, width=width)
    # Captured and written with click, so that a broken pipe is handled as for all other output.
    with console.capture() as captured:
        for thing in things:
            console.print(thing)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


def waiting() -> ExitStack:
    """Show a spinner while a person at a terminal waits, until the returned stack is closed."""
    shown = ExitStack()
    if is_terminal(sys.stdout, sys.stderr):
        shown.enter_context(Console(stderr=True).status("waiting for the AI"))
    return shown
