"""``chat``: talk to an AI, at a terminal or through a pipe.

At a terminal it asks for one message after the other; from a pipe every line is one, and blank lines are skipped. The
answers go to stdout and everything else to stderr, so that a program can read what was said.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING

import click

from fsm.cli import documents, options
from fsm.cli.errors import EXIT_CODES, TURN_FAILED, USAGE, Failure, exit_code, report
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
    """Talk to an AI; the conversation goes on where it stopped, whatever became of its provider session.

    From a pipe each line is a message; the answers are written one after the other. With --json each is an object on a
    line of its own.
    """
    given: Provider | None = ctx.obj
    made: AbstractContextManager[Provider]
    if name == "agents":
        made = _managed(agent, environment, model)
    elif agent or environment:
        raise Failure("--agent and --environment are for --provider agents; name that too", USAGE)
    elif name == "claude":
        made = nullcontext(given or _claude(model))
    else:
        made = _provider(name, model)
    with nullcontext(given) if given else made as provider, options.opened(url, provider) as manager:
        _recover(manager)
        speaker = _Speaker(manager, key, batch=batch, as_json=as_json)
        if is_terminal(sys.stdin, sys.stdout):
            _note(f"conversation {key!r}, {provider.name} provider; Ctrl-D ends")
            code = _converse(speaker)
        else:
            code = max((speaker.say(line) for line in _piped()), default=0)
    ctx.exit(code)


def _converse(speaker: _Speaker) -> int:
    """Talk with a person, who may try again after an error."""
    code = 0
    for line in _typed():
        try:
            code = speaker.say(line) or code
        except FSMError as error:
            report(error)
            code = exit_code(error)
    return code


@contextmanager
def _provider(name: str | None, model: str | None) -> Iterator[Provider]:
    """The provider that is asked for, or that there is a key for; closed afterwards."""
    has_key = any(os.environ.get(variable) for variable in KEYS)
    if name == "anthropic" and not has_key:
        raise Failure(f"--provider anthropic needs a key; set {KEYS[0]}, or use --provider demo", USAGE)
    if name == "demo" or not has_key:
        if model is not None:
            raise Failure(f"--model is for the anthropic provider, which needs {KEYS[0]}", USAGE)
        if name is None:
            _note(f"no {KEYS[0]} is set, so the demo provider answers")
        yield DemoProvider()
        return
    with _client() as client:
        yield AnthropicMessages(model=model or MODEL, max_tokens=MAX_TOKENS, client=client)


@contextmanager
def _managed(agent: str | None, environment: str | None, model: str | None) -> Iterator[Provider]:
    """The Managed Agent that is asked for; closed afterwards."""
    if not agent or not environment:
        raise Failure("--provider agents needs --agent and --environment; name the ids that the API gave them", USAGE)
    if model is not None:
        raise Failure("--model is for the anthropic provider; an agent has a model of its own", USAGE)
    if not any(os.environ.get(variable) for variable in KEYS):
        raise Failure(f"--provider agents needs a key; set {KEYS[0]}", USAGE)
    with _client() as client:
        yield AnthropicAgents(agent=agent, environment=environment, client=client)


def _claude(model: str | None) -> Provider:
    """Claude over the Claude Agent SDK, in the working directory; raises ProviderError if the extra is missing."""
    provider = ClaudeAgent()
    if model is None:
        return provider
    from claude_agent_sdk import ClaudeAgentOptions

    return ClaudeAgent(ClaudeAgentOptions(model=model))


def _client() -> Anthropic:
    from anthropic import Anthropic

    try:
        return Anthropic()
    except Exception as error:  # the SDK's errors and those of its HTTP client have no base of their own
        raise Failure(
            f"the Anthropic client can't be made ({type(error).__name__}); check the variables ANTHROPIC_…", USAGE
        ) from error


def _recover(manager: SessionManager) -> None:
    try:
        ended = manager.recover()
    except CorruptRecord as error:
        # A damaged conversation must not keep the others from being talked to.
        _note(str(error))
    else:
        for conversation in ended:
            _note(f"turn {conversation.turn_count} of {conversation.key!r} had been cut off; it is ended")


def _typed() -> Iterator[str]:
    """The lines that a person types."""
    with suppress(ImportError):
        import readline  # noqa: F401  # input() edits lines with it
    while True:
        try:
            line = input("you: ")
        except EOFError:
            click.echo()
            return
        except UnicodeDecodeError:
            _note("that was no UTF-8; nothing was sent")
            continue
        if line.strip():
            yield line


def _piped() -> Iterator[str]:
    """The lines of stdin."""
    for number, raw in enumerate(sys.stdin.buffer if sys.stdin else (), start=1):
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise Failure(f"line {number} of the input is no UTF-8; it was not sent", USAGE) from None
        if line.strip():
            yield line


def _note(text: str) -> None:
    """Say something beside the conversation."""
    click.echo(f"({one_line(text)})", err=True)


class _Speaker:
    """Sends messages and shows the answers.

    Args:
        manager: sends them.
        key: the conversation.
        batch: whether to wait for the whole answer.
        as_json: whether to write the answers as JSON.
    """

    def __init__(self, manager: SessionManager, key: str, *, batch: bool, as_json: bool) -> None:
        self._manager = manager
        self._key = key
        self._batch = batch or as_json
        self._as_json = as_json
        self._told = False

    def say(self, line: str) -> int:
        """Send a message and show its answer; the exit code that it stands for.

        Raises:
            FSMError: see :meth:`fsm.SessionManager.send`; what was answered before has been shown (G16).
        """
        self._told = False
        try:
            reply = self._send(line) if self._batch else self._stream(line)
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
                    spinner.stop()
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
        """Show what has not been shown of a reply."""
        if self._as_json:
            write_json(documents.reply(reply), indent=None)
            return
        if reply.healed:
            _note("the session had died; it was renewed, the history rebuilt")
        if reply.text and not self._told:
            self._tell(reply.text)
            click.echo()
