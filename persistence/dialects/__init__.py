"""The kinds of databases: SQLite and PostgreSQL."""

from __future__ import annotations

from importlib.util import find_spec

from fsm.errors import StoreError
from persistence.dialects.base import CommitCutOff, Dialect, Pooling, Refusal, cause_of
from persistence.urls import FileURL, parse

__all__ = ["CommitCutOff", "Dialect", "Pooling", "Refusal", "cause_of", "connect"]


def connect(url: str, *, timeout: float, pool: Pooling) -> Dialect:
    """Return the dialect for a URL, not yet connected.

    Args:
        url: the database; see :func:`persistence.urls.parse`.
        timeout: seconds to wait for another writer, unless the URL gives them.
        pool: how connections to a server are kept.

    Raises:
        InvalidInput: the URL is not text.
        StoreError: the URL names no database that is supported, or its driver is missing.
    """
    place = parse(url)
    if isinstance(place, FileURL):
        from persistence.dialects.sqlite import SQLite

        return SQLite(place.path, timeout=timeout if place.timeout is None else place.timeout)
    if find_spec("psycopg") is None:
        raise StoreError('PostgreSQL needs psycopg 3; install it with: pip install "conversation-fsm[postgres]"')
    from persistence.dialects.postgresql import PostgreSQL

    return PostgreSQL(place, timeout=timeout, pool=pool)
