"""The end of a command: exit codes, and errors in one line.

Every error of the library is written to stderr as ``error: …``, without a traceback. So is a failure of input or
output. Ctrl-C ends with 130, and a reader that closes the output with 141, as if the signal had ended the command.
"""

from __future__ import annotations

import io
import logging
import sys
from typing import Any

import click

from fsm.cli.rendering import one_line
from fsm.errors import (
    Conflict,
    ConversationBusy,
    ConversationNotFound,
    FSMError,
    InvalidInput,
    ProviderError,
    StoreError,
)

__all__ = ["EXIT_CODES", "TURN_FAILED", "Application", "Failure", "exit_code", "report"]

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

_CODES: tuple[tuple[type[FSMError], int], ...] = (
    (ConversationNotFound, NOT_FOUND),
    (ConversationBusy, BUSY),
    (Conflict, BUSY),
    (StoreError, STORE),
    (ProviderError, PROVIDER),
    (InvalidInput, USAGE),
)


class Failure(Exception):
    """An error of the command line itself, written in one line.

    Args:
        message: the problem and its remedy.
        code: the exit code.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Application(click.Group):
    """A group that turns errors of its commands into a line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; end with a line and an exit code after an error."""
        _prepare()
        try:
            return super().invoke(ctx)
        except FSMError as error:
            report(error)
            ctx.exit(exit_code(error))
        except Failure as error:
            report(error)
            ctx.exit(error.code)
        except KeyboardInterrupt:
            click.echo(err=True)
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:
            ctx.exit(UNREAD)
        except OSError as error:
            report(Failure(f"input or output failed: {error.strerror or error}", USAGE))
            ctx.exit(USAGE)


def exit_code(error: FSMError) -> int:
    """Return the exit code for an error of the library."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), TURN_FAILED)


def report(error: FSMError | Failure) -> None:
    """Write an error in one line to stderr."""
    click.echo(f"error: {one_line(str(error))}", err=True)


def _prepare() -> None:
    """Escape characters that the encoding of the output lacks, and keep the log of errors quiet."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if not LOGGER.handlers:
        LOGGER.addHandler(logging.NullHandler())
