"""The options that commands share: the database, the conversation, the output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import click

from fsm.cli.errors import NOT_FOUND, fail
from fsm.conversations import Conversations
from fsm.store import check_key

__all__ = ["agent", "as_json", "at_most", "checked_key", "db", "environment", "key_argument", "key_option", "stored"]

Decorator: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]


def checked_key(_: click.Context, __: click.Parameter, key: str | None) -> str | None:
    """Return a key, checked; a callback for every option and argument that takes one."""
    return key if key is None else check_key(key)


def _url(_: click.Context, __: click.Parameter, db: str) -> str:
    """Return the URL of a database that is named by its path or by its URL."""
    if not db:
        fail("--db is empty; name a file or a URL")
    from persistence.urls import file_url

    return db if "://" in db else file_url(db)


db = click.option(
    "--db",
    "url",
    metavar="PATH|URL",
    envvar="CONVERSATION_FSM_DB",
    default="conversations.db",
    show_default=True,
    show_envvar=True,
    callback=_url,
    help="The database: a.db, sqlite:///a.db, postgresql://…",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Write JSON, for programs.")
key_argument = click.argument("key", callback=checked_key)
key_option = click.option(
    "--key", default="default", show_default=True, callback=checked_key, help="The conversation, by its key."
)
agent = click.option("--agent", metavar="ID", help="The agent of --provider agents.")
environment = click.option("--environment", metavar="ID", help="The environment of --provider agents.")


def at_most(records: str) -> Decorator:
    """Return the option ``--limit``: the greatest number of records to show."""
    return click.option("--limit", type=click.IntRange(min=0), metavar="N", help=f"At most N {records}.")


@contextmanager
def stored(url: str) -> Iterator[Conversations]:
    """Open the conversations of a database that exists, for commands that need no AI.

    Args:
        url: the database.

    Raises:
        Exit: there is no such file; the error is written.
        StoreError: the database can't be used.
    """
    from persistence import SQLStore
    from persistence.urls import MEMORY, FileURL, parse

    place = parse(url)
    if isinstance(place, FileURL) and place.path != MEMORY and not Path(place.path).exists():
        fail(f"there is no database file {place.path!r}; chat begins one, --db names another", NOT_FOUND)
    with SQLStore(url) as store:
        yield Conversations(store)
