"""``list``, ``show``, ``history``, ``reset`` and ``diagram``: the stored conversations, and the machine.

All but ``reset`` only read. None of them talks to an AI.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

import click

from fsm import diagrams
from fsm.cli import options
from fsm.cli.errors import EXIT_CODES
from fsm.cli.rendering import display, one_line, table, timestamp, write, write_json
from fsm.content import plain

__all__ = ["diagram", "history", "list_", "reset", "show"]

DRAWN = {"mermaid": diagrams.to_mermaid, "dot": diagrams.to_dot, "markdown": diagrams.to_markdown}

CONVERSATIONS: Mapping[str, str] = {
    "key": "key",
    "state": "state",
    "running turn": "running.turn",
    "provider": "provider",
    "session": "session_number",
    "turns": "turn_count",
    "messages": "message_count",
    "updated (UTC)": "updated_at",
}
SESSIONS: Mapping[str, str] = {
    "number": "number",
    "parent": "parent",
    "provider": "provider",
    "session id": "session_id",
    "opened (UTC)": "opened_at",
    "because": "opened_reason",
    "closed (UTC)": "closed_at",
    "because ": "closed_reason",
}
TURNS: Mapping[str, str] = {
    "number": "number",
    "session": "session_number",
    "status": "status",
    "result": "subtype",
    "healed": "healed",
    "began (UTC)": "started_at",
    "ended (UTC)": "ended_at",
}
TRANSITIONS: Mapping[str, str] = {
    "number": "number",
    "trigger": "trigger",
    "from": "source",
    "to": "target",
    "turn": "turn",
    "session": "session_number",
    "session id": "session_id",
    "reason": "reason",
    "at (UTC)": "at",
}


@click.command("list", epilog=EXIT_CODES)
@options.db
@options.at_most("conversations")
@click.option("--after", metavar="KEY", callback=options.checked_key, help="Those whose keys come after KEY.")
@options.as_json
def list_(*, url: str, limit: int | None, after: str | None, as_json: bool) -> None:
    """List the conversations, in the order of their keys."""
    with options.stored(url) as talks:
        found = talks.list(limit=limit, after=after)
    if as_json:
        write_json([conversation.to_dict() for conversation in found])
    elif found:
        display(table(CONVERSATIONS, found))
    else:
        click.echo("no conversations", err=True)


@click.command(epilog=EXIT_CODES)
@options.key_argument
@options.db
@options.at_most("sessions, turns and transitions, the newest")
@options.as_json
def show(*, key: str, url: str, limit: int | None, as_json: bool) -> None:
    """Show a conversation: its state, the lineage of its sessions, its turns, and the log of its transitions."""
    with options.stored(url) as talks:
        conversation = talks.get(key)
        parts = {
            "sessions": talks.sessions(key, limit=limit),
            "turns": talks.turns(key, limit=limit),
            "transitions": talks.transitions(key, limit=limit),
        }
    if as_json:
        lists = {name: [record.to_dict() for record in records] for name, records in parts.items()}
        write_json({**conversation.to_dict(), **lists})
        return
    held = f"holds {conversation.session_id}" if conversation.session_id else "holds no provider session"
    click.echo(one_line(f"{key}: {conversation.state}, {held} ({conversation.provider})"))
    if conversation.running is not None:
        click.echo(f"turn {conversation.running.turn} is running, until {timestamp(conversation.running.until)} UTC")
    click.echo()
    columns = {"sessions": SESSIONS, "turns": TURNS, "transitions": TRANSITIONS}
    display(*(table(columns[name], records, title=name) for name, records in parts.items()))


@click.command(epilog=EXIT_CODES)
@options.key_argument
@options.db
@options.at_most("messages, the newest")
@click.option("--before", type=click.IntRange(min=0), metavar="NUMBER", help="Those before message NUMBER.")
@options.as_json
def history(*, key: str, url: str, limit: int | None, before: int | None, as_json: bool) -> None:
    """Write the stored messages, oldest first."""
    with options.stored(url) as talks:
        messages = talks.messages(key, limit=limit, before=before)
    if as_json:
        write_json([message.to_dict() for message in messages])
        return
    for message in messages:
        click.echo(f"[{message.number}] {message.role}, turn {message.turn}, {timestamp(message.created_at)} UTC")
        told = "\n".join(filter(None, (plain(block) for block in message.content)))
        write(f"{told}\n\n")


@click.command(epilog=EXIT_CODES)
@options.key_argument
@options.db
@click.option("--reason", default="asked for", show_default=True, help="Why, in a line; it is kept with the session.")
@click.option("--force", is_flag=True, help="End a running turn instead of refusing.")
@options.as_json
def reset(*, key: str, url: str, reason: str, force: bool, as_json: bool) -> None:
    """Start a conversation over with a new provider session; its history stays and is told to the new one."""
    with options.stored(url) as talks:
        after = talks.reset(key, reason=reason, force=force)
    if as_json:
        write_json(after.to_dict())
    else:
        click.echo(one_line(f"{key}: {after.state}, session {after.session_number} ({reason})"))


@click.command(epilog=EXIT_CODES)
@click.option("--format", "form", type=click.Choice([*DRAWN, "svg"]), default="mermaid", show_default=True)
@click.option("--theme", type=click.Choice(get_args(diagrams.Theme)), default="light", help="The colours of an SVG.")
def diagram(*, form: str, theme: diagrams.Theme) -> None:
    """Draw the machine, from its table."""
    click.echo(diagrams.to_svg(theme=theme) if form == "svg" else DRAWN[form](), nl=form != "svg")
