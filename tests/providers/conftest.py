"""A Managed Agents API on loopback and each way to ask it; and a place where the Claude CLI runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsm.providers.anthropic_agents import exchange
from tests.providers.agents_server import AgentsServer
from tests.providers.agents_way import Way
from tests.providers.claude_way import Claude, echo, no_cli, require_sdk
from tests.providers.messages_server import MessagesServer


@pytest.fixture
def agents(monkeypatch: pytest.MonkeyPatch) -> Iterator[AgentsServer]:
    """The API; nobody waits before trying again."""
    monkeypatch.setattr(exchange, "DELAYS", (0.0,))
    with AgentsServer() as server:
        yield server
    assert server.broken == []
    assert server.is_used_up, "not all that was scripted has happened"


@pytest.fixture(params=["sync", "asyncio", "trio"])
def agent(request: pytest.FixtureRequest, agents: AgentsServer) -> Way:
    """Each way to ask."""
    return Way(request.param, agents)


@pytest.fixture
def claude(tmp_path: Path) -> Iterator[Claude]:
    """The real CLI, offline, with an empty home directory, which is removed afterwards."""
    sdk = require_sdk()
    before = set(threading.enumerate())
    with MessagesServer() as server:
        echo(server)
        yield Claude(tmp_path, server, sdk)
        assert server.answers.empty(), "not all that was scripted was asked for"
    assert no_cli()
    # Trio keeps its idle threads for some seconds, to use them again; those of the library are the process's.
    kept = ("Trio thread", "conversation-fsm")
    left = [thread for thread in set(threading.enumerate()) - before if not thread.name.startswith(kept)]
    for thread in left:
        thread.join(5)
    assert not [thread for thread in left if thread.is_alive()]
