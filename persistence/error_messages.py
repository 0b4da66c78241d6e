"""Errors of a database as errors of this library, without values of rows and without the password of a URL."""

from __future__ import annotations

from collections.abc import Iterator

from peewee import DataError, IntegrityError, PeeweeException

from fsm.errors import FSMError, StoreError
from persistence.dialects.base import CommitCutOff, Dialect

__all__ = ["as_library_error"]

NOTHING = "nothing of this step was stored"
LOOK = "load the conversation to see what was stored"


def as_library_error(error: Exception, key: str | None, dialect: Dialect) -> FSMError:
    """Return an exception of a database as an error of this library.

    Raise it where no exception is being handled, so that its ``__context__`` is empty.

    Args:
        error: the exception.
        key: the conversation.
        dialect: the database.
    """
    if isinstance(error, FSMError):
        return error if error.key is not None else error.completed(key=key)
    if isinstance(error, MemoryError):  # how Python's driver tells that SQLite has none
        story = StoreError(f"the database has run out of memory; {NOTHING}", key)
    else:
        outcome = LOOK if _is_unknown(error, dialect) else NOTHING
        story = StoreError(f"the database can't be used ({_what(error, dialect)}); {outcome}", key)
    story.__cause__ = _cause(error, dialect)
    return story


def _is_unknown(error: Exception, dialect: Dialect) -> bool:
    return isinstance(error, CommitCutOff) or (isinstance(error, PeeweeException) and dialect.is_lost(error))


def _what(error: Exception, dialect: Dialect) -> str:
    name = type(error).__name__
    if isinstance(error, IntegrityError | DataError):
        return f"{name}: a row was refused"
    if not isinstance(error, PeeweeException):
        return name  # its text may quote what was to be written
    text = str(error).partition("\n")[0]
    if dialect.has_secret(text):
        return f"{name}; its text may show a part of the password, so look into the log of the server"
    return f"{name}: {text}"


def _cause(error: Exception, dialect: Dialect) -> Exception | None:
    """Return the error, unless its text, or that of its causes, may show a value of a row or the password."""
    if isinstance(error, IntegrityError | DataError):
        return type(error)("a row was refused")
    return None if any(dialect.has_secret(f"{each} {each!r}") for each in _chain(error)) else error


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, its causes and its contexts."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            yield each
            waiting += [each.__cause__, each.__context__, getattr(each, "orig", None)]
