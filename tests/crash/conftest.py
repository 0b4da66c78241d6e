"""The fixtures of the crash tests: a zygote for each test process."""

from collections.abc import Iterator

import pytest

from tests.crash.zygote import Zygote


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """Forks workers; whatever is left of them is killed at the end."""
    with Zygote() as zygote:
        yield zygote
