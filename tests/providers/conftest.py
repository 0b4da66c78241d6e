"""A Managed Agents API on loopback, and each way to ask it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fsm.providers import agents_exchange
from tests.providers.agents_server import AgentsServer
from tests.providers.agents_way import Way


@pytest.fixture
def agents(monkeypatch: pytest.MonkeyPatch) -> Iterator[AgentsServer]:
    """The API; nobody waits before trying again."""
    monkeypatch.setattr(agents_exchange, "DELAYS", (0.0,))
    with AgentsServer() as server:
        yield server
    assert server.broken == []
    assert server.is_used_up, "not all that was scripted has happened"


@pytest.fixture(params=["sync", "asyncio", "trio"])
def agent(request: pytest.FixtureRequest, agents: AgentsServer) -> Way:
    """Each way to ask."""
    return Way(request.param, agents)
