"""Connecting to a PostgreSQL server: the options of a URL, and the check of the database."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg
from psycopg.pq import Conninfo

from fsm.errors import StoreError
from persistence.urls import ServerURL

__all__ = ["connected", "parameters_of"]

THRESHOLD = "prepare_threshold"
OFF = frozenset({"none", "off", "never"})
UTF8 = "UTF8"


def parameters_of(url: ServerURL) -> dict[str, Any]:
    """Return the parameters of a URL for ``psycopg.connect``.

    Raises:
        StoreError: an option is not known or can't work; the message names it, unless it may be a part of the password.
    """
    try:
        parameters: dict[str, Any] = _libpq(url.address)
    except psycopg.Error:
        parameters = {}
    if not parameters and url.address not in {"postgresql:///", "postgresql://"}:
        raise StoreError("the URL of the server can't be read; write postgresql://user:password@host:5432/name")
    known = {option.keyword.decode() for option in Conninfo.get_defaults()} | {THRESHOLD}
    for name, value in url.options.items():
        if name not in known:
            named = f"option {name[:40]!r}" if url.may_name_options else "an option"
            raise StoreError(f"the URL of the server has {named}, which libpq does not know; take it out")
        parameters[name] = value
    if THRESHOLD in parameters:
        parameters[THRESHOLD] = _threshold(parameters[THRESHOLD])
    if parameters.setdefault("client_encoding", UTF8).replace("-", "").upper() != UTF8:
        raise StoreError("client_encoding in the URL must be UTF8; take it out")
    return parameters


def _libpq(address: str) -> dict[str, Any]:
    options = Conninfo.parse(address.encode())
    return {option.keyword.decode(): option.val.decode() for option in options if option.val is not None}


def _threshold(text: str) -> int | None:
    if text.lower() in OFF:
        return None
    if not text.isdecimal() or not text.isascii():
        raise StoreError(f"{THRESHOLD} in the URL must be a whole number of uses, or none to prepare no statement")
    return int(text)


def connected(parameters: dict[str, Any]) -> psycopg.Connection[Any]:
    """Return a new connection.

    Raises:
        StoreError: the database can't hold every text.
    """
    connection = psycopg.connect(autocommit=True, **parameters)
    _name_statements(connection)
    encoding = connection.info.parameter_status("server_encoding")
    if encoding not in {UTF8, None}:
        connection.close()
        raise StoreError(
            f"the database has the encoding {encoding}, which can't hold every text; create one with: "
            "CREATE DATABASE name ENCODING 'UTF8' TEMPLATE template0"
        )
    return connection


def _name_statements(connection: psycopg.Connection[Any]) -> None:
    """Give the prepared statements of a connection names that no other connection uses.

    A pooler hands one connection of the server to many clients, with the statements that others prepared there. psycopg
    numbers statements from 0 on each connection. So a name might mean a statement of another client.
    """
    prepared: Any = getattr(connection, "_prepared", None)
    if hasattr(prepared, "_prepared_idx"):
        prepared._prepared_idx = uuid.uuid4().int
    else:  # another version of psycopg, which keeps its numbers elsewhere
        connection.prepare_threshold = None
