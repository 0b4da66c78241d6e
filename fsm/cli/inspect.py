"""``list``, ``show``, ``history``, ``reset`` and ``diagram``: what is stored, and what the machine is.

All but ``reset`` only read; none talks to an AI.
"""

from __future__ import annotations

import click

from fsm import diagrams
from fsm.cli import documents, options
from fsm.cli.errors import EXIT_CODES
from fsm.cli.rendering import display, one_line, table, timestamp, write, write_json
from fsm.content import plain
from fsm.manager import SessionManager
from fsm.providers import DemoProvider
from fsm.records import Conversation, Message

__all__ = ["diagram", "history", "list_", "reset", "show"]

DRAWN = {"mermaid": diagrams.to_mermaid, "dot": diagrams.to_dot, "markdown": diagrams.to_markdown}


@click.command("list", epilog=EXIT_CODES)
@options.db
@options.at_most("conversations")
@click.option("--after", metavar="KEY", callback=options.checked_key, help="Those whose keys come after KEY.")
@options.as_json
def list_(*, url: str, limit: int | None, after: str | None, as_json: bool) -> None:
    """List the conversations, in the order of their keys."""
    with options.opened(url) as manager:
        found = manager.conversations.list(limit=limit, after=after)
    if as_json:
        write_json([documents.conversation(conversation) for conversation in found])
    elif found:
        columns = ("key", "state", "provider", "session", "turns", "messages", "updated (UTC)")
        display(table(columns, [_listed(conversation) for conversation in found]))
    else:
        click.echo("no conversations", err=True)


def _listed(conversation: Conversation) -> tuple[object, ...]:
    return (
        conversation.key,
        f"{conversation.state}, turn running" if conversation.running else conversation.state,
        conversation.provider,
        conversation.session_number,
        conversation.turn_count,
        conversation.message_count,
        timestamp(conversation.updated_at),
    )


@click.command(epilog=EXIT_CODES)
@options.key_argument
@options.db
@options.at_most("sessions, turns and transitions, the newest")
@options.as_json
def show(*, key: str, url: str, limit: int | None, as_json: bool) -> None:
    """Show a conversation: its state, the lineage of its sessions, its turns, and the log of its transitions."""
    with options.opened(url) as manager:
        if as_json:
            write_json(documents.story(manager, key, limit))
        else:
            _show(manager, key, limit)


def _show(manager: SessionManager, key: str, limit: int | None) -> None:
    conversation = manager.conversations.get(key)
    held = f"holds {conversation.session_id}" if conversation.session_id else "holds no provider session"
    click.echo(one_line(f"{key}: {conversation.state}, {held} ({conversation.provider})"))
    if conversation.running is not None:
        click.echo(f"turn {conversation.running.turn} is running, until {timestamp(conversation.running.until)} UTC")
    click.echo()
    display(
        table(
            ("number", "parent", "provider", "session id", "opened (UTC)", "because", "closed (UTC)", "because"),
            [
                (
                    session.number,
                    session.parent,
                    session.provider,
                    session.session_id,
                    timestamp(session.opened_at),
                    session.opened_reason,
                    timestamp(session.closed_at),
                    session.closed_reason,
                )
                for session in manager.conversations.sessions(key, limit=limit)
            ],
            title="sessions",
        ),
        table(
            ("number", "session", "status", "result", "healed", "began (UTC)", "ended (UTC)"),
            [
                (
                    turn.number,
                    turn.session_number,
                    turn.status,
                    turn.subtype,
                    "yes" if turn.healed else "",
                    timestamp(turn.started_at),
                    timestamp(turn.ended_at),
                )
                for turn in manager.conversations.turns(key, limit=limit)
            ],
            title="turns",
        ),
        table(
            ("number", "trigger", "from", "to", "turn", "session", "session id", "reason", "at (UTC)"),
            [
                (
                    move.number,
                    move.trigger,
                    move.source,
                    move.target,
                    move.turn,
                    move.session_number,
                    move.session_id,
                    move.reason,
                    timestamp(move.at),
                )
                for move in manager.conversations.transitions(key, limit=limit)
            ],
            title="transitions",
        ),
    )


@click.command(epilog=EXIT_CODES)
@options.key_argument
@options.db
@options.at_most("messages, the newest")
@click.option("--before", type=click.IntRange(min=0), metavar="NUMBER", help="Those before message NUMBER.")
@options.as_json
def history(*, key: str, url: str, limit: int | None, before: int | None, as_json: bool) -> None:
    """Write the stored messages, oldest first."""
    with options.opened(url) as manager:
        messages = manager.conversations.messages(key, limit=limit, before=before)
    if as_json:
        write_json([documents.message(message) for message in messages])
        return
    for message in messages:
        click.echo(f"[{message.number}] {message.role}, turn {message.turn}, {timestamp(message.created_at)} UTC")
        write(f"{_told(message)}\n\n")


def _told(message: Message) -> str:
    return "\n".join(filter(None, (plain(block) for block in message.content)))


@click.command(epilog=EXIT_CODES)
@options.key_argument
@options.db
@click.option("--reason", default="asked for", show_default=True, help="Why, in a line; it is kept with the session.")
@click.option("--force", is_flag=True, help="End a running turn instead of refusing.")
@options.as_json
def reset(*, key: str, url: str, reason: str, force: bool, as_json: bool) -> None:
    """Start a conversation over with a new provider session; its history stays and is told to the new one."""
    with options.opened(url) as manager:
        provider = manager.conversations.get(key).provider
    # The next session is to belong to the provider that the conversation has, whichever that is.
    with options.opened(url, DemoProvider(name=provider)) as manager:
        after = manager.reset(key, reason=reason, force=force)
    if as_json:
        write_json(documents.conversation(after))
    else:
        click.echo(one_line(f"{key}: {after.state}, session {after.session_number} ({reason})"))


@click.command(epilog=EXIT_CODES)
@click.option("--format", "form", type=click.Choice(list(DRAWN)), default="mermaid", show_default=True)
def diagram(*, form: str) -> None:
    """Draw the machine, from its table."""
    click.echo(DRAWN[form]())
