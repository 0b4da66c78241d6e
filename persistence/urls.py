"""Database URLs: the database that a URL names, its options, and the part that may be shown.

No driver is loaded and no file is touched. An error never shows a part of a URL that may be a password. A URL is
refused if a piece of the password could be read as another part of it.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from urllib.parse import quote, unquote, unquote_to_bytes

from attrs import field, frozen

from fsm.errors import InvalidInput, StoreError

__all__ = ["MEMORY", "FileURL", "ServerURL", "file_url", "parse"]

MEMORY = ":memory:"
"""The path of a database in memory."""

EXAMPLES = "write sqlite:///chat.db or postgresql://host/name"
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*", re.IGNORECASE)
SERVERS = frozenset({"postgresql", "postgres"})
HOST = re.compile(r"(\[[^\[\]@]*\]|[^:\[\]@]*)(:\d*)?")
BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
SHORTEST = 3
"""The shortest part of a password, in characters, that is looked for in an error. The whole password always is."""

SECRET = frozenset(
    {"password", "sslpassword", "passfile", "options", "scram_client_key", "scram_server_key", "oauth_client_secret"}
)
"""Options whose values may be, or contain, a password."""


@frozen
class FileURL:
    """A database of SQLite.

    Attributes:
        path: the file, or ``:memory:``.
        timeout: the seconds to wait for another writer, or None if the URL does not say.
    """

    path: str
    timeout: float | None = None


@frozen(kw_only=True)
class ServerURL:
    """A database of PostgreSQL.

    Attributes:
        shown: the URL without password and options.
        address: the URL without options, for libpq.
        options: the options by their names, decoded.
        secrets: the password, and its parts.
        may_name_options: whether an error may show the name of an unknown option: it can't be a part of a password.
    """

    shown: str
    address: str = field(repr=False)
    options: Mapping[str, str] = field(repr=False)
    secrets: frozenset[str] = field(repr=False)
    may_name_options: bool

    def has_secret(self, text: str) -> bool:
        """Return whether a text contains a part of the password."""
        return any(secret in text for secret in self.secrets)


def file_url(path: str) -> str:
    """Return the URL of a database file, whatever characters its name has.

    >>> file_url("50% sure?.db")
    'sqlite:///50%25%20sure%3F.db'
    """
    if path == MEMORY:
        return f"sqlite:///{path}"
    return f"sqlite:///{'./' if path.startswith('~/') else ''}{quote(os.fsencode(path))}"


def parse(url: object) -> FileURL | ServerURL:
    """Return the database that a URL names.

    Args:
        url: ``sqlite:///…`` or ``postgresql://…``; the scheme may have capitals.

    Raises:
        InvalidInput: it is not text.
        StoreError: it names no database that is known here; the message says what to write.

    >>> parse("sqlite:///my%20chats.db?timeout=30")
    FileURL(path='my chats.db', timeout=30.0)
    >>> parse("postgresql://app:secret@host/chat").shown
    'postgresql://app@host/chat'
    """
    if not isinstance(url, str):
        raise InvalidInput(f"a database URL is text, not {type(url).__name__}; {EXAMPLES}")
    if url != url.strip():
        raise StoreError("the database URL begins or ends with a blank; a space in a name is written %20")
    scheme, separator, rest = url.partition("://")
    if not separator or not SCHEME.fullmatch(scheme):
        raise StoreError(_not_a_url(url))
    name, _, driver = scheme.lower().partition("+")
    if driver and name in {"sqlite", *SERVERS}:
        raise StoreError(f"the scheme {scheme!r} names a driver, and this library has its own; write {name}://…")
    if name == "sqlite":
        return _file(rest)
    if name in SERVERS:
        return _server(rest)
    raise StoreError(f"unknown database scheme {scheme!r}; {EXAMPLES}")


def _not_a_url(url: str) -> str:
    if url.lower().startswith("file:"):
        return "a file: URI is not understood; write the path itself: sqlite:///chat.db"
    if re.fullmatch(r"[\w./\\~-]{1,100}", url):
        return f"{url!r} is not a database URL; write sqlite:///{url} for a file, or postgresql://host/name"
    return f"this is not a database URL; {EXAMPLES}"


# SQLite


def _file(rest: str) -> FileURL:
    if "#" in rest:
        raise StoreError("a database URL has no fragment; write a # in the name of a file as %23")
    location, _, query = rest.partition("?")
    path = MEMORY if location in {"", "/", MEMORY} else _path(location)
    options = _options(query, "an option of the URL is not of the form name=value; a ? in a name is written %3F")
    if location.lower().startswith("/file:"):
        raise StoreError(
            "a file: URI is not understood; write the path itself: sqlite:///chat.db or sqlite:///:memory:"
        )
    if options.get("mode") == "memory":
        raise StoreError("mode=memory is not understood; write sqlite:///:memory: for a database in memory")
    timeout = _timeout(options.pop("timeout")) if "timeout" in options else None
    if options:
        raise StoreError(f"SQLite has no option {min(options)!r} here; the only one is timeout, in seconds")
    return FileURL(path, timeout)


def _path(location: str) -> str:
    if not location.startswith("/"):
        host = location.partition("/")[0]
        if "/" in location or not re.fullmatch(r"[\w.-]+", host):
            raise StoreError("an SQLite URL names no host; a file takes three slashes: sqlite:///chat.db")
        raise StoreError(f"the SQLite URL has two slashes; a file takes three: sqlite:///{host}")
    raw = location[1:]
    if BAD_ESCAPE.search(raw):
        raise StoreError("a % in the name of a file is written as %25 in a URL")
    path = os.fsdecode(unquote_to_bytes(raw))
    if not path.strip():
        raise StoreError("the SQLite URL has a blank path; write sqlite:///chat.db or sqlite:///:memory:")
    return os.path.expanduser(path) if raw.startswith("~/") else path


def _timeout(text: str) -> float:
    try:
        timeout = float(text)
    except ValueError:
        timeout = math.nan
    if not 0 <= timeout < math.inf:
        raise StoreError(f"timeout={text[:20]} in the URL is not a number of seconds; write timeout=30")
    return timeout


# PostgreSQL


def _server(rest: str) -> ServerURL:
    location, _, query = rest.partition("?")
    authority, _, name = location.partition("/")
    user, hosts = _userinfo(authority, rest)
    if "@" in name or "/" in name or "#" in name or BAD_ESCAPE.search(name) or re.search(r"\s", name):
        raise StoreError(_escaped("the name of the database, or the password before it,"))
    options = _options(query, _escaped("an option is not of the form name=value, or it, or the password before it,"))
    account, _, password = user.partition(":")
    known = [unquote(password), *(value for option, value in options.items() if option in SECRET)]
    return ServerURL(
        shown=f"postgresql://{account + '@' if account else ''}{hosts}/{name}",
        address=f"postgresql://{authority}/{name}",
        options=options,
        secrets=frozenset(part for whole in (password, *known) for part in _parts(whole)),
        may_name_options="@" not in query,
    )


def _userinfo(authority: str, rest: str) -> tuple[str, str]:
    """Return the user with the password, and the hosts; refuse a URL if the end of the password is not certain."""
    user, at, hosts = authority.rpartition("@")
    cut_off = "@" in rest and authority and not at
    if "@" in user or cut_off or BAD_ESCAPE.search(authority) or re.search(r"\s", authority):
        raise StoreError(_escaped("the user or the password"))
    if not all(HOST.fullmatch(host) for host in hosts.split(",")):
        raise StoreError("the host of the URL can't be read; write postgresql://user:password@host:5432/name")
    return user, hosts


def _escaped(where: str) -> str:
    return (
        f"{where} has a character that must be percent-encoded in a URL: "
        "% is written %25, / is %2F, # is %23, ? is %3F, @ is %40, & is %26, = is %3D, and a space is %20"
    )


def _options(query: str, refusal: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for pair in query.split("&") if query else ():
        name, separator, value = pair.partition("=")
        if not name or not separator or "=" in value or "#" in pair or BAD_ESCAPE.search(pair):
            raise StoreError(refusal)
        if name in options:
            raise StoreError("an option stands in the URL twice; keep one of them")
        options[unquote(name)] = unquote(value)
    return options


def _parts(secret: str) -> set[str]:
    """Return the texts that must not be shown: the secret, and its parts between delimiters of a URL."""
    parts = {part for part in re.split(r"[/#@%:?&=+,\s]+", secret) if len(part) >= SHORTEST}
    return {secret, *parts} - {""}
