"""What all tests share: how hard Hypothesis tries, and stores on real files."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from fsm import Store
from persistence import SQLStore

settings.register_profile(
    "default", max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.register_profile("ci", settings.get_profile("default"), max_examples=1000)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The URL of a database that does not exist yet."""
    return f"sqlite:///{tmp_path}/chat.db"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """A real store on a file of its own."""
    with SQLStore(url) as store:
        yield store
