"""``chat`` with the agents provider, against a Managed Agents API on loopback."""

from collections.abc import Iterator

import pytest

from tests.cli.conftest import Process, Run, complains, manager
from tests.providers.agents_script import idle, running
from tests.providers.agents_server import AgentsServer, Refusal

AGENT = ("--provider", "agents", "--agent", "agent_1", "--environment", "env_1")
CHAT = ("chat", "--db", "a.db", "--key", "k", *AGENT)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[AgentsServer]:
    """Serve the API, and set a key for it in the environment."""
    with AgentsServer() as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "key")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server
    assert server.broken == []


@pytest.mark.parametrize("args", [(), ("--batch",)])
def test_an_agent_answers(run: Run, api: AgentsServer, args: tuple[str, ...]) -> None:
    result = run(*CHAT, *args, stdin="hello\n")
    assert (result.exit_code, result.output) == (0, "You said: hello\n")
    assert api.session().created["agent"] == "agent_1"
    assert api.session().created["environment_id"] == "env_1"


def test_a_session_outlives_the_process_and_is_healed_when_it_is_gone(process: Process, api: AgentsServer) -> None:
    for line in ("first\n", "second\n"):
        assert process(*CHAT, stdin=line).stderr == ""
    assert api.session().texts() == ["first", "second"]
    api.delete(api.session())
    done = process(*CHAT, stdin="third\n")
    assert (done.returncode, done.stdout) == (0, "You said: third\n")
    assert done.stderr.startswith("(the session had died")
    with manager() as inside:
        assert [session.session_id for session in inside.conversations.sessions("k")] == ["sesn_1", "sesn_2"]


def test_a_key_that_the_api_refuses_is_told_in_a_sentence(run: Run, api: AgentsServer) -> None:
    api.refuses("create", Refusal(401, "authentication_error"))
    result = run(*CHAT, stdin="hello\n")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "(The AI service is not logged in; the operator of this application must renew its key.)\n"


def test_a_budget_that_is_used_up_is_told_in_a_sentence(run: Run, api: AgentsServer) -> None:
    api.will((running(), idle("budget_reached")))
    result = run(*CHAT, stdin="hello\n")
    assert (result.exit_code, result.stderr) == (1, "(The AI reached its spending limit for one answer.)\n")


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("--provider", "agents"), "--provider agents needs --agent and --environment"),
        (("--provider", "agents", "--agent", "a"), "--provider agents needs --agent and --environment"),
        (("--agent", "a"), "--agent and --environment are for --provider agents"),
        (("--provider", "demo", "--environment", "e"), "--agent and --environment are for --provider agents"),
        ((*AGENT, "--model", "m"), "--model is for --provider anthropic or claude"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(
    run: Run, api: AgentsServer, args: tuple[str, ...], told: str
) -> None:
    assert told in complains(run("chat", *args, stdin="hello\n"), 2)


def test_without_a_key_it_is_one_line(run: Run) -> None:
    assert "set ANTHROPIC_API_KEY" in complains(run(*CHAT, stdin="hello\n"), 2)


def test_a_malformed_environment_is_one_line(run: Run, api: AgentsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "::nonsense")
    complains(run(*CHAT, stdin="hello\n"), 2)
