"""The story that the library exists for, with Managed Agents: a session dies, and the conversation goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from attrs import frozen

from fsm import AsyncSessionManager, Reply, SessionManager, State
from fsm.events import EXPIRED, Event, Result, TextDelta
from fsm.providers import AnthropicAgents
from persistence import SQLStore
from tests.providers.agents_script import Act, Step, called, deleted, idle, running, said, terminated, turn
from tests.providers.agents_server import AgentsServer
from tests.providers.agents_way import NAMED, async_client, client, text_of

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(60)]

KEY = "ticket-42"


@frozen
class Talk:
    """A conversation, in one way to ask and one way to read."""

    way: str
    read: str
    server: AgentsServer
    url: str

    def say(self, *lines: str, heal: bool = True) -> list[tuple[list[Event], Reply]]:
        """Send these lines, as a process that starts and ends with them; what came for each."""
        if self.way != "sync":
            return anyio.run(self._say_async, lines, heal, backend=self.way)
        with SQLStore(self.url) as store, client(self.server) as made:
            manager = SessionManager(store, AnthropicAgents(client=made, **NAMED), heal=heal)
            said = []
            for line in lines:
                if self.read == "batch":
                    said.append(([], manager.send(KEY, line)))
                    continue
                with manager.stream(KEY, line) as turn:
                    said.append((list(turn), turn.reply))
            return said

    async def _say_async(self, lines: tuple[str, ...], heal: bool) -> list[tuple[list[Event], Reply]]:
        with SQLStore(self.url) as store:
            async with async_client(self.server) as made:
                manager = AsyncSessionManager(store, AnthropicAgents(async_client=made, **NAMED), heal=heal)
                said = []
                for line in lines:
                    if self.read == "batch":
                        said.append(([], await manager.send(KEY, line)))
                        continue
                    async with manager.stream(KEY, line) as turn:
                        events = [event async for event in turn]
                    said.append((events, turn.reply))
                return said

    def one(self, line: str, *, heal: bool = True) -> tuple[list[Event], Reply]:
        """Send one line."""
        (came,) = self.say(line, heal=heal)
        return came

    def log(self) -> list[State]:
        """The states that the conversation went through."""
        with self.inside() as store:
            conversation = store.load(KEY)
            assert conversation is not None
            moves = store.transitions(conversation)
        return [moves[0].source, *(move.target for move in moves)]

    def inside(self) -> SQLStore:
        return SQLStore(self.url)


@pytest.fixture(params=["batch", "stream"])
def read(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["sync", "asyncio", "trio"])
def talk(request: pytest.FixtureRequest, read: str, agents: AgentsServer, tmp_path: Path) -> Talk:
    """A conversation of two turns, in one session."""
    talk = Talk(request.param, read, agents, f"sqlite:///{tmp_path}/chat.db")
    for _, reply in talk.say("My name is Ada.", "I live in Turin."):
        assert (reply.state, reply.healed) == (State.ACTIVE, False)
    assert agents.session().texts() == ["My name is Ada.", "I live in Turin."]
    return talk


def archive(server: AgentsServer) -> None:
    server.archive(server.session())


def terminate(server: AgentsServer) -> None:
    server.terminate(server.session())


def delete(server: AgentsServer) -> None:
    server.delete(server.session())


def terminate_in_the_middle(server: AgentsServer) -> None:
    server.will((running(), terminated()))


def delete_in_the_middle(server: AgentsServer) -> None:
    server.will((running(), Act.CUT, deleted()))


DEATHS: list[Callable[[AgentsServer], None]] = [
    archive,
    terminate,
    delete,
    terminate_in_the_middle,
    delete_in_the_middle,
]


def told_once(server: AgentsServer) -> None:
    """The new session was told the first two turns once each, delimited, and what is new after that."""
    (told,) = server.session(1).texts()
    for line in ("My name is Ada.", "You said: My name is Ada.", "I live in Turin.", "You said: I live in Turin."):
        assert sum(line == heard for heard in told.splitlines()) == 1, told
    before, _, new = told.rpartition("</conversation-history boundary=")
    assert "<conversation-history boundary=" in before
    assert new.endswith('">\nWhere do I live?')


@pytest.mark.parametrize("die", DEATHS)
def test_a_session_that_dies_is_replaced_and_the_caller_sees_one_good_reply(
    talk: Talk, die: Callable[[AgentsServer], None]
) -> None:
    die(talk.server)
    events, reply = talk.one("Where do I live?")
    assert (reply.text, reply.state, reply.healed) == ("You said: Where do I live?", State.ACTIVE, True)
    assert reply.result is not None
    assert reply.result.session_id == "sesn_2"
    if talk.read == "stream":
        assert events == [TextDelta("You said: Where do I live?"), reply.result]
    told_once(talk.server)
    assert talk.log() == [State.FRESH, State.ACTIVE, State.ACTIVE, State.STALE, State.FRESH, State.ACTIVE]
    assert talk.server.session(1).created["metadata"] == {"conversation_key": KEY, "session_number": "2"}
    assert talk.one("Thanks.")[1].text == "You said: Thanks."
    assert talk.server.session(1).texts()[1:] == ["Thanks."]


@pytest.mark.parametrize("die", DEATHS)
def test_without_healing_the_turn_fails_and_the_next_is_fine(talk: Talk, die: Callable[[AgentsServer], None]) -> None:
    die(talk.server)
    _, reply = talk.one("Hello?", heal=False)
    assert (reply.state, reply.healed, reply.text) == (State.STALE, False, "")
    assert reply.result is not None
    assert reply.result.subtype == EXPIRED
    _, reply = talk.one("Where do I live?", heal=False)
    assert (reply.state, reply.text) == (State.ACTIVE, "You said: Where do I live?")
    told_once(talk.server)
    assert talk.log() == [State.FRESH, State.ACTIVE, State.ACTIVE, State.STALE, State.FRESH, State.ACTIVE]


def test_a_session_that_dies_after_it_has_spoken_costs_this_turn_and_no_other(talk: Talk) -> None:
    talk.server.will((running(), said("Well,"), terminated()))
    _, reply = talk.one("Hello?")
    assert (reply.state, reply.healed, reply.text) == (State.STALE, False, "Well,")
    assert talk.one("Where do I live?")[1].text == "You said: Where do I live?"
    told_once(talk.server)


LATE: tuple[Step, ...] = (running(), said("Well,"), Act.HOLD, said("too late"), idle())


def test_a_turn_that_is_left_early_is_interrupted_and_the_session_goes_on(agents: AgentsServer, tmp_path: Path) -> None:
    with SQLStore(f"sqlite:///{tmp_path}/chat.db") as store, client(agents) as made:
        manager = SessionManager(store, AnthropicAgents(client=made, **NAMED))
        manager.send(KEY, "hello")
        agents.will(LATE)
        with manager.stream(KEY, "Tell me all.") as turn_:
            assert next(turn_) == TextDelta("Well,")
        assert (turn_.reply.status, turn_.reply.text) == ("interrupted", "Well,")
        assert agents.session().status == "idle"
        assert manager.send(KEY, "Where do I live?").text == "You said: Where do I live?"
    assert len(agents.sessions) == 1


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_cancelled_turn_is_interrupted_and_the_session_goes_on(
    agents: AgentsServer, tmp_path: Path, backend: str
) -> None:
    async def cancelled() -> tuple[Reply, Reply]:
        with SQLStore(f"sqlite:///{tmp_path}/chat.db") as store:
            async with async_client(agents) as made:
                manager = AsyncSessionManager(store, AnthropicAgents(async_client=made, **NAMED))
                await manager.send(KEY, "hello")
                agents.will(LATE)
                with anyio.CancelScope() as scope:
                    async with manager.stream(KEY, "Tell me all.") as turn_:
                        async for _ in turn_:
                            scope.cancel()
                assert agents.session().status == "idle"
                return turn_.reply, await manager.send(KEY, "Where do I live?")

    left, reply = anyio.run(cancelled, backend=backend)
    assert (left.status, left.text, left.state) == ("interrupted", "Well,", State.ACTIVE)
    assert (reply.text, reply.healed) == ("You said: Where do I live?", False)
    assert len(agents.sessions) == 1


def test_a_tool_is_called_answered_and_remembered_by_the_next_session(agents: AgentsServer, tmp_path: Path) -> None:
    with SQLStore(f"sqlite:///{tmp_path}/chat.db") as store, client(agents) as made:
        manager = SessionManager(store, AnthropicAgents(client=made, **NAMED))
        agents.will(turn(called("c1"), stop="requires_action", waits=("c1",)), turn(said("It is 3.")))
        assert manager.send(KEY, "1+2?").result.stop_reason == "requires_action"  # type: ignore[union-attr]
        manager.send(KEY, [{"type": "tool_result", "tool_use_id": "c1", "content": "3"}])
        agents.delete(agents.session())
        reply = manager.send(KEY, "Sure?")
        assert reply.healed
    (told,) = agents.session().texts()
    for line in ('[called the tool add with {"a": 1}]', "[the tool answered: 3]", "It is 3."):
        assert told.count(line) == 1


def test_another_agent_begins_a_session_of_its_own(agents: AgentsServer, tmp_path: Path) -> None:
    with SQLStore(f"sqlite:///{tmp_path}/chat.db") as store, client(agents) as made:
        SessionManager(store, AnthropicAgents(client=made, **NAMED)).send(KEY, "My name is Ada.")
        other = AnthropicAgents(client=made, agent="agent_2", environment="env_1")
        reply = SessionManager(store, other).send(KEY, "Who am I?")
        assert isinstance(reply.result, Result)
        assert (reply.result.session_id, reply.healed) == ("sesn_2", False)
    assert agents.session().texts()[0].count("My name is Ada.") == 2, "said, and repeated by the agent"


def test_text_streams_through_the_manager(agents: AgentsServer, tmp_path: Path) -> None:
    with SQLStore(f"sqlite:///{tmp_path}/chat.db") as store, client(agents) as made:
        manager = SessionManager(store, AnthropicAgents(client=made, **NAMED))
        with manager.stream(KEY, "hello") as turn_:
            assert text_of(list(turn_)) == turn_.reply.text == "You said: hello"
