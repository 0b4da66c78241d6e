"""The way in which tests talk with Claude: the real CLI that the SDK bundles, offline, with an empty home directory.

It asks a Messages API on loopback. Each way to ask is a manager: synchronous, or asynchronous on both event loops.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from attrs import frozen

from fsm import AsyncSessionManager, Reply, SessionManager, State
from fsm.errors import FSMError
from fsm.events import Event, TextDelta
from fsm.providers import ClaudeAgent
from persistence import SQLStore
from tests.providers.messages_server import MessagesServer, message, text

KEY = "ticket-42"
WAYS = ("sync", "asyncio", "trio")


def require_sdk() -> Any:
    """The SDK. Where it is missing the tests of a module are skipped, but not in CI, which installs the extra."""
    if os.environ.get("CI"):
        import claude_agent_sdk

        return claude_agent_sdk
    return pytest.importorskip("claude_agent_sdk", reason="the extra claude-agent is not installed")


def environment(home: Path, server: MessagesServer) -> dict[str, str]:
    """Where the CLI keeps its sessions and which API it asks; it asks nobody else."""
    return {
        "HOME": str(home),
        "CLAUDE_CONFIG_DIR": str(home / ".claude"),
        "ANTHROPIC_BASE_URL": server.url,
        "ANTHROPIC_API_KEY": "dummy",
        "ANTHROPIC_AUTH_TOKEN": "",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_MAX_RETRIES": "0",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


def heard(request: dict[str, Any]) -> list[str]:
    """Return the texts of a request to the model, each with its role, without the additions of the CLI."""
    told = []
    for sent in request["messages"]:
        content = sent["content"]
        for block in [text(content)] if isinstance(content, str) else content:
            said = block["text"] if block["type"] == "text" else json.dumps(block)
            if sent["role"] != "system" and not said.startswith("<system-reminder>"):
                told.append(f"{sent['role']}: {said.strip()}")
    return told


def processes() -> list[str]:
    """The commands of all processes that this one has started, and those that they did, zombies too."""
    parents, commands = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                status = (entry / "stat").read_text()
                parents[int(entry.name)] = int(status.rpartition(")")[2].split()[1])
                commands[int(entry.name)] = status.partition("(")[2].rpartition(")")[0]
    found, ahead = [], [os.getpid()]
    while ahead:
        parent = ahead.pop()
        children = [child for child, its in parents.items() if its == parent]
        found += [commands[child] for child in children]
        ahead += children
    return found


def no_cli() -> bool:
    """Whether no CLI is left running."""
    return "claude" not in processes()


def text_of(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


@frozen
class Claude:
    """A place where the CLI runs, and the conversation that is talked with it.

    Attributes:
        home: its home directory and working directory.
        server: the API that it asks.
        sdk: the SDK.
    """

    home: Path
    server: MessagesServer
    sdk: Any

    def options(self, **more: Any) -> Any:
        """The options of the SDK for this place."""
        env = environment(self.home, self.server) | more.pop("env", {})
        return self.sdk.ClaudeAgentOptions(**{"cwd": self.home, "env": env, "setting_sources": [], **more})

    def agent(self, *, timeout: float = 60.0, **more: Any) -> ClaudeAgent:
        return ClaudeAgent(self.options(**more), timeout=timeout)

    def lose_sessions(self) -> None:
        """Delete the transcripts, as the restart of a container does."""
        shutil.rmtree(self.home / ".claude" / "projects")

    def store(self) -> SQLStore:
        return SQLStore(f"sqlite:///{self.home}/chat.db")

    @contextmanager
    def manager(self, provider: ClaudeAgent | None = None, *, heal: bool = True) -> Iterator[SessionManager]:
        with self.store() as store:
            yield SessionManager(store, provider or self.agent(), heal=heal)

    def send(self, *lines: Any, provider: ClaudeAgent | None = None) -> list[Reply]:
        """Send these messages, one after the other."""
        with self.manager(provider) as manager:
            return [manager.send(KEY, line) for line in lines]

    def one(self, line: Any, **options: Any) -> Reply:
        """Send one message, with these options."""
        (reply,) = self.send(line, provider=self.agent(**options))
        return reply

    def fails(self, line: str, provider: ClaudeAgent) -> FSMError:
        """Send one message, which is going to raise; nothing is left running."""
        with self.manager(provider) as manager, pytest.raises(FSMError) as raised:
            manager.send(KEY, line)
        assert no_cli()
        return raised.value

    def log(self) -> list[State]:
        """The states that the conversation went through."""
        with self.manager() as manager:
            moves = manager.conversations.transitions(KEY)
        return [moves[0].source, *(move.target for move in moves)] if moves else [State.FRESH]

    def sessions(self) -> list[str | None]:
        """The provider session ids of the conversation's sessions."""
        with self.manager() as manager:
            return [session.session_id for session in manager.conversations.sessions(KEY)]

    def statuses(self) -> list[str]:
        """How its turns ended."""
        with self.manager() as manager:
            return [turn.status.value for turn in manager.conversations.turns(KEY)]


@frozen
class Talk:
    """A conversation with Claude in one way to ask and one way to read."""

    claude: Claude
    way: str
    read: str = "stream"

    def say(
        self, line: str, *, heal: bool = True, until: Callable[[Event], bool] | None = None, **options: Any
    ) -> tuple[list[Event], Reply]:
        """Send one line, as a process that starts and ends with it; ``until`` walks away after such an event."""
        provider = self.claude.agent(**options)
        if self.way != "sync":
            return anyio.run(self._say, line, provider, heal, until, backend=self.way)
        with self.claude.manager(provider, heal=heal) as manager:
            if self.read == "batch":
                return [], manager.send(KEY, line)
            events = []
            with manager.stream(KEY, line) as turn:
                for event in turn:
                    events.append(event)
                    if until is not None and until(event):
                        break
            return events, turn.reply

    async def _say(
        self, line: str, provider: ClaudeAgent, heal: bool, until: Callable[[Event], bool] | None
    ) -> tuple[list[Event], Reply]:
        with self.claude.store() as store:
            manager = AsyncSessionManager(store, provider, heal=heal)
            if self.read == "batch":
                return [], await manager.send(KEY, line)
            events = []
            async with manager.stream(KEY, line) as turn:
                async for event in turn:
                    events.append(event)
                    if until is not None and until(event):
                        break
            return events, turn.reply


def echo(server: MessagesServer) -> None:
    """Whatever is not scripted is answered with its number."""
    server.otherwise = lambda _: message(text(f"Answer {len(server.received)}."), id=f"msg_{len(server.received)}")
