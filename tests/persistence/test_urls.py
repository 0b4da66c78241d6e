"""Database URLs: options are read or refused by name, names may have any characters, no password is ever shown."""

import logging
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fsm import InvalidInput, StoreError
from persistence import SQLStore
from persistence.urls import file_url, parse
from tests.persistence.test_store import NEW, begin


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("sqlite:///chat.db", "chat.db"),
        ("SQLite:///chat.db", "chat.db"),
        ("sqlite:///chat.db?timeout=30", "chat.db"),
        ("sqlite:///my%20chats.db", "my chats.db"),
        ("sqlite:///sure%3F.db", "sure?.db"),
        ("sqlite:///50%25.db", "50%.db"),
        ("sqlite:///%23.db", "#.db"),
        ("sqlite:///caf%C3%A9.db", "café.db"),
        ("sqlite:///café.db", "café.db"),
        ("sqlite:///~/chat.db", "chat.db"),
        ("sqlite:///%7Echat.db", "~chat.db"),
        ("sqlite:///./file:shared", "file:shared"),
    ],
)
def test_a_url_names_the_file_that_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    with SQLStore(url):
        found = {file.name for file in tmp_path.iterdir()}
    assert found == {name, f"{name}-wal", f"{name}-shm"}


@pytest.mark.parametrize("name", ["chat.db", "a?b#c%20d.db", "50% sure?.db", "file:x", "~", ":memory:", "é\udcff.db"])
def test_the_url_of_a_path_names_that_file(tmp_path: Path, name: str) -> None:
    with SQLStore(file_url(str(tmp_path / name))) as store:
        store.commit(begin(NEW))
        assert (tmp_path / name).exists()


def test_a_timeout_in_the_url_goes_before_the_argument(sqlite_url: str) -> None:
    with SQLStore(f"{sqlite_url}?timeout=0.25", timeout=30) as store:
        assert store.dialect.database.pragma("busy_timeout") == 250
    with SQLStore("sqlite://?timeout=1") as store:
        assert store.load("k") is None


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("sqlite:///file:shared?mode=memory&cache=shared", "a file: URI is not understood; write the path itself"),
        ("file:chat.db", "a file: URI is not understood; write the path itself: sqlite:///chat.db"),
        ("file:///chat.db", "unknown database scheme 'file'; write sqlite:///chat.db"),
        ("sqlite:///shared?mode=memory", "write sqlite:///:memory: for a database in memory"),
        ("sqlite:///chat.db?cache=shared", "SQLite has no option 'cache' here; the only one is timeout"),
        ("sqlite:///chat.db?timeout=soon", "timeout=soon in the URL is not a number of seconds"),
        ("sqlite:///chat.db?timeout=-1", "is not a number of seconds"),
        ("sqlite:///chat.db?timeout=nan", "is not a number of seconds"),
        ("sqlite:///chat.db?timeout=1&timeout=2", "stands in the URL twice"),
        ("sqlite:///chat.db?really", "a ? in a name is written %3F"),
        ("sqlite:///chat.db#1", "write a # in the name of a file as %23"),
        ("sqlite:///50%.db", "is written as %25 in a URL"),
        ("sqlite://localhost/chat.db", "an SQLite URL names no host"),
        ("sqlite:///%20", "the SQLite URL has a blank path"),
        ("sqlite:///chat.db\n", "begins or ends with a blank"),
        ("", "this is not a database URL"),
        ("sqlite+aiosqlite:///chat.db", "names a driver, and this library has its own; write sqlite://"),
        ("postgresql+psycopg://u:Pa55@h/d", "names a driver, and this library has its own; write postgresql://"),
        ("postgresql+asyncpg://u:Pa55@h/d", "names a driver, and this library has its own; write postgresql://"),
        ("postgresql://h/d?sslmod=require", "has option 'sslmod', which libpq does not know"),
        ("postgresql://h/d?prepare_threshold=some", "must be a whole number of uses, or none"),
        ("postgresql://h/d?client_encoding=latin1", "client_encoding in the URL must be UTF8"),
        ("postgresql://h/d?sslmode", "is not of the form name=value"),
        ("postgresql://h:port/d", "the host of the URL can't be read"),
        ("postgresql://h/d#x", "# is %23"),
        ("jdbc:postgresql://h/d", "this is not a database URL"),
    ],
)
def test_what_is_not_understood_is_refused_with_what_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError) as caught:
        SQLStore(url)
    assert why in str(caught.value)
    assert "Pa55" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", [None, 1, b"sqlite:///chat.db", Path("chat.db")])
def test_what_is_not_text_is_refused(url: Any) -> None:
    with pytest.raises(InvalidInput, match="a database URL is text"):
        SQLStore(url)


@pytest.mark.parametrize(
    "options", [{"pool_size": 0}, {"pool_size": 1.5}, {"pool_idle": -1}, {"pool_idle": float("nan")}, {"timeout": "3"}]
)
def test_arguments_that_make_no_sense_are_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(options))):
        SQLStore("sqlite://", **options)


# Passwords

PASSWORDS = [f"s3cret{character}Pa55" for character in "/#@%:? &=+!$,;'\"[]{}|\\^`~*"]
PASSWORDS += ["s3cret%zzPa55", "s3/a?b=Pa55", "s3?a=Pa55", "s3cret%2FPa55", "s3cret%40Pa55", "1234/Pa55", "é/Pa55"]
URLS = [
    *(f"postgresql://app:{password}@127.0.0.1:1/chat" for password in PASSWORDS),
    *(f"postgresql://app:{password}@localhost.invalid/chat" for password in PASSWORDS),
    *(f"POSTGRES://{password}@127.0.0.1:1/chat" for password in PASSWORDS),
    "postgresql://127.0.0.1:1/chat?user=app&password=s3cret%20Pa55",
    "postgresql://127.0.0.1:1/chat?user=app&password=s3cret Pa55",
    "postgresql://127.0.0.1:1/chat?user=app&pasword=s3cretPa55",
    "postgresql://127.0.0.1:1/chat?passfile=/s3cret/Pa55",
    "postgresql://127.0.0.1:1/chat?options=-cmy.password%3Ds3cretPa55",
    "postgresql://127.0.0.1:1/chat?sslmode=s3cretPa55&sslpassword=Pa55",
    "postgresql://127.0.0.1:1/chat?connect_timeout=Pa55&password=Pa55",
    "postgresql://app:s3cretPa55",
    "postgresql://app:Pa55@127.0.0.1:Pa55/chat",
    "app:s3cretPa55@127.0.0.1/chat",
    "host=127.0.0.1 port=1 user=app password=s3cretPa55",
    "mysql://app:s3cretPa55@127.0.0.1/chat",
    "sqlite://app:s3cretPa55@chat.db",
    "postgresql+psycopg2://app:s3cretPa55@127.0.0.1/chat",
]


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and all that stands behind it, whether Python would print it or not."""
    if error is not None:
        yield error
        yield from chain(error.__cause__)
        yield from chain(error.__context__)


@pytest.mark.parametrize("url", URLS)
def test_no_part_of_a_password_is_in_an_error_or_what_it_came_from(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(StoreError) as caught:
        SQLStore(url, timeout=0.02)
    told = "".join(traceback.format_exception(caught.value, chain=True)).partition("StoreError: ")[2]
    shown = [f"{error} {error!r} {error.args}" for error in chain(caught.value)]
    for text in (*shown, told, caplog.text):
        assert "Pa55" not in text
        assert "s3cret" not in text


def test_the_repr_of_a_store_names_its_database_without_the_password(sqlite_url: str) -> None:
    with SQLStore(sqlite_url) as store:
        assert repr(store) == f"<SQLStore {sqlite_url.removeprefix('sqlite:///')}>"
    place = parse("postgresql://app:s3cretPa55@host:5432/chat?password=other&options=-cx%3Dy")
    assert repr(place) == "ServerURL(shown='postgresql://app@host:5432/chat', may_name_options=True)"
