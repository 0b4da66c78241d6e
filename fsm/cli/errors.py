"""The end of a command: exit codes, and errors in one line.

Every error of the library is written to stderr as ``error: …``, without a traceback. So is a failure of input or
output. Ctrl-C ends with 130, and a reader that closes the output with 141, as if the signal had ended the command.
"""

from __future__ import annotations

import io
import logging
import sys
from typing import Any, NoReturn

import click

from fsm import errors
from fsm.cli.rendering import one_line

__all__ = ["EXIT_CODES", "NOT_FOUND", "TURN_FAILED", "Application", "fail", "report"]

LOGGER = logging.getLogger("fsm")

TURN_FAILED, USAGE, NOT_FOUND, BUSY, STORE, PROVIDER = range(1, 7)
INTERRUPTED, UNREAD = 130, 141

EXIT_CODES = """\b
Exit codes:
  0    success
  1    a turn failed: a reply did not succeed
  2    usage, or input that can't be used
  3    not found
  4    busy: another turn is running
  5    the store refused
  6    the provider broke its contract
  130  interrupted with Ctrl-C
  141  the reader of the output went away
"""

_CODES: tuple[tuple[type[errors.FSMError], int], ...] = (
    (errors.ConversationNotFound, NOT_FOUND),
    (errors.ConversationBusy, BUSY),
    (errors.Conflict, BUSY),
    (errors.StoreError, STORE),
    (errors.ProviderError, PROVIDER),
    (errors.InvalidInput, USAGE),
)


class Application(click.Group):
    """A group that turns errors of its commands into a line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; after an error print it in one line on stderr and exit with its code."""
        _prepare()
        try:
            return super().invoke(ctx)
        except errors.FSMError as error:
            ctx.exit(report(error))
        except KeyboardInterrupt:
            click.echo(err=True)
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:
            ctx.exit(UNREAD)
        except OSError as error:
            fail(f"input or output failed: {error.strerror or error}")


def report(error: errors.FSMError) -> int:
    """Write an error of the library in one line to stderr; return its exit code."""
    _write(str(error))
    return next((code for kind, code in _CODES if isinstance(error, kind)), TURN_FAILED)


def fail(message: str, code: int = USAGE) -> NoReturn:
    """Write an error of the command line in one line to stderr, and end the command.

    Args:
        message: the problem and its remedy.
        code: the exit code.
    """
    _write(message)
    raise click.exceptions.Exit(code)


def _write(message: str) -> None:
    click.echo(f"error: {one_line(message)}", err=True)


def _prepare() -> None:
    """Escape characters that the encoding of the output lacks, and keep the log of errors quiet."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if not LOGGER.handlers:
        LOGGER.addHandler(logging.NullHandler())
