"""``chat``: talk to an AI, at a terminal or through a pipe.

At a terminal it asks for one message after the other. From a pipe every line is a message; blank lines are skipped. The
answers go to stdout and everything else to stderr, so that a program can read the answers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import click
from attrs import define, field

from fsm.cli import options
from fsm.cli.errors import EXIT_CODES, TURN_FAILED, fail, report
from fsm.cli.rendering import is_terminal, one_line, waiting, write, write_json
from fsm.errors import CorruptRecord, FSMError
from fsm.events import Result, TextDelta
from fsm.manager import SessionManager
from fsm.provider import Provider
from fsm.providers import AnthropicAgents, AnthropicMessages, ClaudeAgent, DemoProvider
from fsm.records import TurnStatus
from fsm.reply import Reply

if TYPE_CHECKING:
    from anthropic import Anthropic

__all__ = ["chat"]

MODEL = "claude-sonnet-5-5"
MAX_TOKENS = 8192
KEYS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")


@click.command(epilog=EXIT_CODES)
@options.db
@options.key_option
@click.option(
    "--provider",
    "name",
    type=click.Choice(["demo", "anthropic", "agents", "claude"]),
    help="The AI.  [default: anthropic if ANTHROPIC_API_KEY or ANTHROPIC_AUTH_TOKEN is set, else demo]",
)
@click.option("--model", help=f"The model of --provider anthropic or claude.  [default: {MODEL}, or the CLI's own]")
@options.agent
@options.environment
@click.option("--batch", is_flag=True, help="Write an answer when it is complete, not as it comes.")
@options.as_json
@click.pass_context
def chat(
    ctx: click.Context,
    *,
    url: str,
    key: str,
    name: str | None,
    model: str | None,
    agent: str | None,
    environment: str | None,
    batch: bool,
    as_json: bool,
) -> None:
    """Talk to an AI; the conversation goes on where it stopped, also if its provider session has died.

    From a pipe each line is a message, and the answers are written one after the other. With --json each answer is an
    object on one line.
    """
    from persistence import SQLStore

    if name != "agents" and (agent or environment):
        fail("--agent and --environment are for --provider agents; name that too")
    with ExitStack() as stack:
        provider: Provider = ctx.obj or _provider(stack, name, model, agent, environment)
        manager = SessionManager(stack.enter_context(SQLStore(url)), provider)
        _recover(manager)
        speaker = _Speaker(manager, key, batch=batch, as_json=as_json)
        if is_terminal(sys.stdin, sys.stdout):
            _note(f"conversation {key!r}, {provider.name} provider; Ctrl-D ends")
            code = _converse(speaker)
        else:
            code = max((speaker.say(line) for line in _piped()), default=0)
    ctx.exit(code)


def _provider(
    stack: ExitStack, name: str | None, model: str | None, agent: str | None, environment: str | None
) -> Provider:
    """Return the provider that is asked for, or the one that there is a key for; the stack closes its client."""
    has_key = any(os.environ.get(variable) for variable in KEYS)
    if name in {"agents", "anthropic"} and not has_key:
        fail(f"--provider {name} needs a key; set {KEYS[0]}, or use --provider demo")
    if name == "agents":
        return _managed(stack, agent, environment, model)
    if name == "claude":
        return _claude(model)
    if name != "demo" and has_key:
        return AnthropicMessages(model=model or MODEL, max_tokens=MAX_TOKENS, client=_client(stack))
    if model is not None:
        fail(f"--model is for --provider claude, or for anthropic, which needs a key; set {KEYS[0]}")
    if name is None:
        _note(f"no {KEYS[0]} is set, so the demo provider answers")
    return DemoProvider()


def _managed(stack: ExitStack, agent: str | None, environment: str | None, model: str | None) -> Provider:
    """Return the Managed Agent that is asked for."""
    if not agent or not environment:
        fail("--provider agents needs --agent and --environment; name the ids that the API gave them")
    if model is not None:
        fail("--model is for --provider anthropic or claude; an agent has its own model")
    return AnthropicAgents(agent=agent, environment=environment, client=_client(stack))


def _converse(speaker: _Speaker) -> int:
    """Talk with a person, who may try again after an error; return the newest exit code that is not 0."""
    code = 0
    for line in _typed():
        try:
            code = speaker.say(line) or code
        except FSMError as error:
            code = report(error)
    return code


def _claude(model: str | None) -> Provider:
    """Return Claude over the Claude Agent SDK, in the working directory.

    Raises:
        ProviderError: the extra ``claude-agent`` is not installed.
    """
    provider = ClaudeAgent()  # before the import below, because it says in one line which extra is missing
    if model is None:
        return provider
    from claude_agent_sdk import ClaudeAgentOptions

    return ClaudeAgent(ClaudeAgentOptions(model=model))


def _client(stack: ExitStack) -> Anthropic:
    from anthropic import Anthropic

    try:
        return stack.enter_context(Anthropic())
    except Exception as error:  # noqa: BLE001  # the errors of the SDK and of its HTTP client have no common base
        fail(f"the Anthropic client can't be made ({type(error).__name__}); check the variables ANTHROPIC_…")


def _recover(manager: SessionManager) -> None:
    try:
        ended = manager.recover()
    except CorruptRecord as error:
        # A damaged conversation must not block the others.
        _note(str(error))
    else:
        for conversation in ended:
            _note(f"turn {conversation.turn_count} of {conversation.key!r} had been cut off; it is ended")


def _typed() -> Iterator[str]:
    """Yield the lines that a person types."""
    with suppress(ImportError):
        import readline  # noqa: F401  # gives input() line editing
    while True:
        try:
            line = input("you: ")
        except EOFError:
            click.echo()
            return
        except UnicodeDecodeError:
            _note("that was not UTF-8; nothing was sent")
            continue
        if line.strip():
            yield line


def _piped() -> Iterator[str]:
    """Yield the lines of stdin."""
    for number, raw in enumerate(sys.stdin.buffer if sys.stdin else (), start=1):
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            fail(f"line {number} of the input is not UTF-8; it was not sent")
        if line.strip():
            yield line


def _note(text: str) -> None:
    """Write a note to stderr."""
    click.echo(f"({one_line(text)})", err=True)


@define
class _Speaker:
    """A sender of messages that shows the answers.

    Args:
        manager: the manager that sends them.
        key: the conversation.
        batch: whether to wait for the whole answer.
        as_json: whether to write the answers as JSON, which waits too.
    """

    _manager: SessionManager
    _key: str
    _batch: bool
    _as_json: bool
    _told: bool = field(default=False, init=False)

    def say(self, line: str) -> int:
        """Send a message and show its answer; return its exit code.

        Raises:
            FSMError: see :meth:`fsm.SessionManager.send`; an answer before the error has been shown (G16).
        """
        self._told = False
        try:
            reply = self._send(line) if self._batch or self._as_json else self._stream(line)
        except FSMError as error:
            if error.reply is not None:
                self._show(error.reply)
            raise
        self._show(reply)
        if reply.summary != Result().summary:
            _note(reply.summary)
        return 0 if reply.status is TurnStatus.SUCCEEDED else TURN_FAILED

    def _send(self, line: str) -> Reply:
        with waiting():
            return self._manager.send(self._key, line)

    def _stream(self, line: str) -> Reply:
        with self._manager.stream(self._key, line) as turn, waiting() as spinner:
            try:
                for event in turn:
                    spinner.close()
                    if isinstance(event, TextDelta):
                        self._tell(event.text)
            finally:
                if self._told:
                    click.echo()
        return turn.reply

    def _tell(self, text: str) -> None:
        self._told = True
        write(text)

    def _show(self, reply: Reply) -> None:
        """Show a reply, without the text that was shown as it came."""
        if self._as_json:
            write_json(reply.to_dict(), indent=None)
            return
        if reply.healed:
            _note("the session had died; it was renewed, the history rebuilt")
        if reply.text and not self._told:
            self._tell(reply.text)
            click.echo()
