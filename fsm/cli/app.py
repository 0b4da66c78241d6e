"""The click group with all commands."""

from __future__ import annotations

import click

from fsm.cli.chat import chat
from fsm.cli.demo import demo
from fsm.cli.errors import EXIT_CODES, Application
from fsm.cli.inspect import diagram, history, list_, reset, show

__all__ = ["cli"]


@click.group(cls=Application, epilog=EXIT_CODES)
@click.version_option(package_name="conversation-fsm")
def cli() -> None:
    """Conversations with an AI that survive the death of their provider session."""


for command in (chat, list_, show, history, reset, diagram, demo):
    cli.add_command(command)
