"""``chat`` with the anthropic provider, against a Messages API on loopback."""

from collections.abc import Iterator

import pytest

from fsm.cli.chat import MODEL
from tests.cli.conftest import Run, complains, manager
from tests.providers.messages_server import MessagesServer, error, message, text

CHAT = ("chat", "--db", "a.db", "--key", "k")


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[MessagesServer]:
    """Serve the API, and set a key for it in the environment."""
    with MessagesServer() as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "key")
        yield server


@pytest.mark.parametrize("args", [(), ("--provider", "anthropic"), ("--batch",)])
def test_with_a_key_the_anthropic_provider_answers(run: Run, api: MessagesServer, args: tuple[str, ...]) -> None:
    api.will(message(text("Hello, you.")))
    result = run(*CHAT, *args, stdin="hello\n")
    assert (result.exit_code, result.output) == (0, "Hello, you.\n")
    assert api.received[0]["model"] == MODEL


def test_the_model_can_be_chosen(run: Run, api: MessagesServer) -> None:
    api.will(message(text("Hello.")))
    run(*CHAT, "--model", "m", stdin="hello\n")
    assert api.received[0]["model"] == "m"


def test_a_session_outlives_the_process_and_is_healed_when_the_api_refuses_it(run: Run, api: MessagesServer) -> None:
    api.will(message(text("One."), id="msg_1"), message(text("Two."), id="msg_2"))
    for line in ("first\n", "second\n"):
        assert run(*CHAT, stdin=line).stderr == ""
    refused = error(400, "invalid_request_error", "messages.1: `tool_use` ids were found without `tool_result` blocks")
    api.will(refused, message(text("Three."), id="msg_3"))
    result = run(*CHAT, stdin="third\n")
    assert (result.exit_code, result.stdout) == (0, "Three.\n")
    assert result.stderr.startswith("(the session had died")
    with manager() as inside:
        assert [session.session_id for session in inside.conversations.sessions("k")] == ["msg_1", "msg_3"]


def test_a_key_that_the_api_refuses_is_told_in_a_sentence(run: Run, api: MessagesServer) -> None:
    api.will(error(401, "authentication_error"))
    result = run(*CHAT, stdin="hello\n")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "(The AI service is not logged in; the operator of this application must renew its key.)\n"


def test_a_malformed_environment_is_one_line(run: Run, api: MessagesServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "::nonsense")
    complains(run(*CHAT, stdin="hello\n"), 2)
