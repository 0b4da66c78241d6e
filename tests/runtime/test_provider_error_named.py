"""A provider that raises: the error and its record in the log name the type of what it raised."""

import logging
from typing import Any

import anyio
import pytest

from fsm import AsyncSessionManager, ProviderError, SessionManager, TextDelta
from fsm.providers import DemoProvider
from fsm.testing import ReferenceStore


class Peculiar(Exception):  # an error that nobody foresaw
    """An error of a provider's own."""


SCRIPTS = {
    "at once": (Peculiar("secret"), "Peculiar"),
    "after a word": ([TextDelta("a"), Peculiar("secret")], "Peculiar"),
    "a known one": ([TextDelta("a"), ConnectionResetError("secret")], "ConnectionResetError"),
}


def names(record: logging.LogRecord, name: str) -> bool:
    """Whether a record tells the type in one of its fields."""
    fields = {key: value for key, value in vars(record).items() if key not in {"exc_info", "exc_text"}}
    return any(name in str(value) for value in fields.values())


def check(error: ProviderError, records: list[logging.LogRecord], name: str) -> None:
    """Error and record name the type, and keep what it said to themselves."""
    assert name in str(error)
    assert type(error.__cause__).__name__ == name
    assert "secret" not in str(error)
    of_turn = [record for record in records if getattr(record, "conversation", None) == "k"]
    assert any(names(record, name) for record in of_turn if record.levelno >= logging.WARNING)
    assert not any("secret" in record.getMessage() for record in of_turn)


@pytest.mark.parametrize(("script", "name"), SCRIPTS.values(), ids=SCRIPTS)
def test_a_provider_error_and_its_record_name_the_type_of_the_cause(
    caplog: pytest.LogCaptureFixture, script: Any, name: str
) -> None:
    with pytest.raises(ProviderError) as caught:
        SessionManager(ReferenceStore(), DemoProvider([script])).send("k", "hello")
    check(caught.value, caplog.records, name)


@pytest.mark.parametrize(("script", "name"), SCRIPTS.values(), ids=SCRIPTS)
def test_an_async_manager_names_the_type_of_the_cause(caplog: pytest.LogCaptureFixture, script: Any, name: str) -> None:
    with pytest.raises(ProviderError) as caught:
        anyio.run(AsyncSessionManager(ReferenceStore(), DemoProvider([script])).send, "k", "hello")
    check(caught.value, caplog.records, name)


def test_a_providers_own_error_is_recorded_with_the_type_of_its_cause(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Any) -> Any:
        raise ProviderError("the program is missing") from Peculiar("secret")

    with pytest.raises(ProviderError, match="the program is missing"):
        SessionManager(ReferenceStore(), DemoProvider([fail])).send("k", "hello")
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert any(names(record, "Peculiar") or names(record, "ProviderError") for record in warnings)
