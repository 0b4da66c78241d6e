"""How things look: text that can't harm a terminal, tables, times, and JSON.

What people and AIs wrote may hold control characters that move the cursor or rename the window, and brackets that look
like markup. Nothing of that reaches a terminal: control characters are shown as ``\\x1b``, and markup is off.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import IO, Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

__all__ = ["display", "harmless", "is_terminal", "one_line", "table", "timestamp", "waiting", "write", "write_json"]

PIPED_WIDTH = 160
"""How wide a table is that nobody looks at on a terminal, in columns."""

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
_IN_TEXT: Mapping[int, str] = {**_CONTROLS, ord("\n"): "\n", ord("\t"): "\t", ord("\r"): ""}


def is_terminal(*streams: IO[Any] | None) -> bool:
    """Whether a person sits at each of these streams; a closed one is None."""
    return all(stream is not None and stream.isatty() for stream in streams)


def harmless(text: str) -> str:
    r"""Text of any number of lines, without control characters.

    >>> harmless("\x1b[31mred\r\n")
    '\\x1b[31mred\n'
    """
    return text.translate(_IN_TEXT)


def one_line(text: str) -> str:
    r"""Text on one line, without control characters.

    >>> one_line("two\nlines\a")
    'two lines\\x07'
    """
    return " ".join(text.splitlines()).translate(_CONTROLS)


def write(text: str) -> None:
    """Write text to stdout at once: harmless on a terminal, as it is into a pipe or a file."""
    click.echo(harmless(text) if is_terminal(sys.stdout) else text, nl=False, color=True)


def write_json(value: object, *, indent: int | None = 2) -> None:
    """Write a value to stdout as JSON, in ASCII, so that any program and any terminal can take it."""
    click.echo(json.dumps(value, indent=indent, default=_plain))


def _plain(value: object) -> object:
    match value:
        case datetime():
            return value.isoformat()
        case Mapping():
            return dict(value)
    raise TypeError(f"{type(value).__name__} can't be written as JSON")


def timestamp(time: datetime | None) -> str:
    """A time for people, in UTC."""
    return "" if time is None else f"{time:%Y-%m-%d %H:%M:%S}"


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "") -> Table:
    """A table in which nothing is cut off and nothing is taken for markup; None is an empty cell."""
    drawn = Table(title=Text(title) if title else None, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text("" if cell is None else one_line(str(cell))) for cell in row))
    return drawn


def display(*things: RenderableType) -> None:
    """Show tables and lines on stdout."""
    width = None if is_terminal(sys.stdout) or "COLUMNS" in os.environ else PIPED_WIDTH
    console = Console(markup=False, highlight=False, emoji=False, width=width)
    # Captured, so that a broken pipe is met where every other output meets it.
    with console.capture() as captured:
        for thing in things:
            console.print(thing)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


@contextmanager
def waiting() -> Iterator[Spinner]:
    """A spinner for as long as a person at a terminal waits; ``stop()`` it when there is something to see."""
    spinner = Spinner(visible=is_terminal(sys.stdout, sys.stderr))
    try:
        yield spinner
    finally:
        spinner.stop()


class Spinner:
    """Turns until it is stopped.

    Args:
        visible: whether it is shown at all.
    """

    def __init__(self, *, visible: bool) -> None:
        self._status = Console(stderr=True).status("waiting for the AI") if visible else None
        if self._status is not None:
            self._status.start()

    def stop(self) -> None:
        """Take it away; once is enough, twice does no harm."""
        if self._status is not None:
            self._status.stop()
            self._status = None
