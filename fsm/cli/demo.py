"""``demo``: a conversation that outlives its provider session, shown and checked step by step.

Two real processes share one database. The provider sessions of the first process die with it, and the second learns
that from the provider's answer. Then results that the real Claude CLI printed are played through the machine. The
command needs no network and no key, and fails if an outcome differs from its text.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from fsm.cli import options
from fsm.cli.errors import EXIT_CODES, TURN_FAILED, fail
from fsm.cli.rendering import one_line
from fsm.conversations import Conversations
from fsm.events import Result
from fsm.manager import SessionManager
from fsm.providers import DemoProvider
from fsm.records import Transition
from persistence.urls import file_url

__all__ = ["demo"]

KEY = "parcel"
FIRST, SECOND = "Where is parcel 42?", "Has it moved since?"
RECORDED = Path(__file__).with_name("claude-cli-results.jsonl")
CHILD = "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); from fsm.__main__ import main; main()"
"""The command line in another process, importing what this process imports, wherever that was started."""
PATH = "fresh → active → stale → fresh → active"
EXPECTED = {
    "an ordinary answer": "succeeded: active → active",
    "resume of a session that no longer exists": "expired: active → stale",
    "turn limit reached": "failed: active → active",
    "the API answers 429": "failed: active → active",
    "the API answers 401": "failed: active → active",
    "a person interrupts the running turn": "failed: active → active",
}
"""The move of an active conversation on each recorded result."""


@click.command(epilog=EXIT_CODES)
def demo() -> None:
    """See a conversation survive the death of its provider session. Needs no key and no network."""
    with TemporaryDirectory(prefix="conversation-fsm-") as folder:
        _survive(Path(folder) / "demo.db")
    click.echo()
    _play_recorded()


def _survive(database: Path) -> None:
    click.echo("A process talks to the AI. The provider's sessions live in the memory of that process.")
    first = _talk(database, FIRST)
    _check(first["state"] == "active" and not first["healed"], f"the first answer came as {first}")
    click.echo(
        f"The conversation is {first['state']} and holds {first['result']['session_id']}. "
        "The process ends, its sessions too."
    )
    click.echo("A second process takes the next message and resumes that session; the provider reports it dead.")
    second = _talk(database, SECOND)
    _check(second["healed"] and second["status"] == "succeeded", f"the second answer came as {second}")
    _check(f"stored history I know that you said “{FIRST}”" in second["text"], "the history was not rebuilt")
    click.echo("The dead session was replaced within the turn, and the new one was told the stored history.")
    with options.stored(file_url(str(database))) as talks:
        _prove(talks)


def _talk(database: Path, message: str) -> dict[str, Any]:
    """Let another process send a message; return the reply that it writes as JSON."""
    click.echo(f"  you  {message}")
    command = [sys.executable, "-c", CHILD, json.dumps(sys.path), "chat", "--provider", "demo", "--json"]
    done = subprocess.run(  # noqa: S603  # this program itself
        [*command, "--db", str(database), "--key", KEY],
        input=message.encode(),
        capture_output=True,
        timeout=120,
        check=False,
    )
    errors = done.stderr.decode(errors="replace").strip()
    _check(done.returncode == 0, f"the process ended with {done.returncode}: {errors}")
    reply: dict[str, Any] = json.loads(done.stdout)
    click.echo(f"  AI   {one_line(reply['text'])}")
    return reply


def _prove(talks: Conversations) -> None:
    """Print the log of transitions; fail unless the log, the sessions and the messages are as expected."""
    moves, sessions = talks.transitions(KEY), talks.sessions(KEY)
    click.echo("  the log:")
    for move in moves:
        held = f"holds {move.session_id}" if move.session_id else "holds nothing"
        click.echo(f"    {move.number}  turn {move.turn}  {_move(move):<26}{held:<22}{move.reason}")
    way = " → ".join([moves[0].source, *(move.target for move in moves)])
    _check(way == PATH, f"the log reads {way}")
    _check([session.parent for session in sessions] == [None, 1], f"the sessions are {sessions}")
    _check(len({session.session_id for session in sessions}) == 2, "the dead session was adopted again")
    _check(len(talks.messages(KEY)) == 4, "a message is missing")
    click.echo(f"{way}; session 2 is the child of session 1, and all four messages are stored.")


def _play_recorded() -> None:
    from persistence import SQLStore

    click.echo("Results as the real Claude CLI printed them, each in an active conversation that holds their session:")
    recorded = [json.loads(line) for line in RECORDED.read_text(encoding="utf-8").splitlines()]
    _check([item["case"] for item in recorded] == list(EXPECTED), "the recorded results are not those of the story")
    results = [(item["case"], Result.from_mapping(item["result"])) for item in recorded]
    # Without healing, so that the move of each result can be seen.
    provider = DemoProvider(script=_script(results))
    with SQLStore("sqlite:///:memory:") as store, SessionManager(store, provider, heal=False) as manager:
        for case, result in results:
            manager.send(case, "hello").raise_for_error()
            reply = manager.send(case, "go on")
            did = _move(manager.conversations.transitions(case)[-1])
            click.echo(f"  {case:<42}{did:<28}{reply.summary}")
            _check(did == EXPECTED[case], f"after {case!r} the machine did {did!r}, not {EXPECTED[case]!r}")
            _check(reply.result is result, f"{case!r} was not answered with its recorded result")
    click.echo("Only the dead session was let go; every other error left it resumable.")


def _script(results: list[tuple[str, Result]]) -> Iterator[list[Result]]:
    """Yield for each recorded result an answer that binds its session, then the result."""
    for _, result in results:
        yield [Result(session_id=result.session_id)]
        yield [result]


def _move(transition: Transition) -> str:
    return f"{transition.trigger}: {transition.source} → {transition.target}"


def _check(holds: object, otherwise: str) -> None:
    """Fail unless a statement of the demo is true."""
    if not holds:
        fail(f"the demo went wrong: {otherwise}", TURN_FAILED)
