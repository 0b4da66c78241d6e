"""The auditor: reads a whole database through the store and checks every guarantee that rows can show.

:func:`audit` takes what the workers reported. It then ends what was cut off, as any worker would, checks again, and
lets each conversation take one more turn.
"""

import random
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from fsm import TABLE, Conversation, Message, Request, Result, SessionManager, State, TextDelta, Trigger, TurnStatus
from fsm.context import ContextWindow, rebuild
from fsm.states import INITIAL
from persistence import SQLStore
from tests.crash.worker import PROVIDER

EDGES = {(row.source, row.trigger, row.target) for row in TABLE}
Report = dict[str, Any]
Stories = dict[str, list[Message]]


def audit(store: SQLStore, reports: Iterable[Report], before: Stories | None = None) -> Stories:
    """Check everything.

    Args:
        store: a store on the database, which nobody else writes to at the moment.
        reports: what the workers reported: what their provider heard, and what they were told.
        before: what an earlier audit returned; all of it must still be there (G4).

    Returns:
        The messages of each conversation.
    """
    reports = list(reports)
    for conversation in store.conversations():
        check(store, conversation)
    promised(store, reports)
    recovered(store)
    promised(store, reports)
    for conversation in store.conversations():
        takes_a_turn(store, conversation)
        check(store, store.load(conversation.key))
    stories = {conversation.key: store.messages(conversation) for conversation in store.conversations()}
    for key, messages in (before or {}).items():
        assert stories[key][: len(messages)] == messages, f"G4: messages of {key!r} were changed or removed"
    return stories


def check(store: SQLStore, conversation: Conversation | None) -> None:
    """G1, G2, G4 to G7 for one conversation."""
    assert conversation is not None
    assert (conversation.session_id is not None) == (conversation.state is State.ACTIVE), "G1"
    if conversation.session_id is not None:
        assert not store.dead(conversation, [conversation.session_id]), "G2: a dead id is held"
    check_sessions(store, conversation)
    check_turns(store, conversation)
    check_log(store, conversation)


def numbered(what: str, rows: Sequence[Any], count: int) -> None:
    """G5: without gaps, and as many as the conversation counts."""
    assert [row.number for row in rows] == list(range(1, count + 1)), f"G5: {what}"


def check_sessions(store: SQLStore, conversation: Conversation) -> None:
    """G1 and G7."""
    sessions = store.sessions(conversation)
    numbered("sessions", sessions, conversation.session)
    opened = [(session.number, session.session_id) for session in sessions if session.closed_at is None]
    stale = conversation.state is State.STALE
    assert opened == ([] if stale else [(conversation.session, conversation.session_id)]), "G7: open sessions"
    assert [session.parent for session in sessions] == [None, *range(1, len(sessions))], "G7: parents"
    assert all((session.closed_at is None) == (session.closed_reason is None) for session in sessions), "G7: reasons"


def check_turns(store: SQLStore, conversation: Conversation) -> None:
    """G5, and that the context is the succeeded turns."""
    messages, turns = store.messages(conversation), store.turns(conversation)
    numbered("messages", messages, conversation.messages)
    numbered("turns", turns, conversation.turns)
    running = [turn.number for turn in turns if turn.status is TurnStatus.RUNNING]
    assert running == ([conversation.running.turn] if conversation.running else []), "G5: one turn at most"
    by_turn = {
        number: list(rows)
        for number, rows in groupby(sorted(messages, key=lambda row: (row.turn, row.number)), key=lambda row: row.turn)
    }
    assert list(by_turn) == [turn.number for turn in turns], "G5: each message has its turn, each turn its messages"
    for turn in turns:
        said = by_turn[turn.number]
        assert (turn.first_message, turn.last_message) == (said[0].number, said[-1].number), "G5: a turn's messages"
        assert said[0].role == "user", "G5: the user speaks first"
        assert (turn.ended_at is None) == (turn.status is TurnStatus.RUNNING)
    succeeded = {turn.number for turn in turns if turn.status is TurnStatus.SUCCEEDED}
    context = store.context(conversation, first_session=1, last_session=conversation.session, limit=None)
    assert context == [message for message in messages if message.turn in succeeded], "G3: the context"


def check_log(store: SQLStore, conversation: Conversation) -> None:
    """G6, and that no id is adopted again after it was reported dead (G2)."""
    moves = store.transitions(conversation)
    numbered("transitions", moves, conversation.transitions)
    state, session, session_id, version = INITIAL, min(1, conversation.session), None, 0
    dead: set[str | None] = set()
    for move in moves:
        assert (move.source, move.trigger, move.target) in EDGES, "G6: no move of the table"
        assert move.source is state, "G6: no path"
        assert move.session == session + (move.trigger is Trigger.RESET), "G6: sessions"
        assert version <= move.version <= conversation.version, "G6: versions"
        if move.trigger is Trigger.EXPIRED:
            dead.add(session_id)
        state, session, session_id, version = move.target, move.session, move.session_id, move.version
        assert session_id is None or session_id not in dead, "G2: a dead id was adopted"
    assert (state, session, session_id) == (conversation.state, conversation.session, conversation.session_id), "G6"


def promised(store: SQLStore, reports: Iterable[Report]) -> None:
    """G8 and G9: what a provider heard is stored, and what was acknowledged is there to the last letter, once."""
    stored = {
        (conversation.key, turn.number): (turn, [])
        for conversation in store.conversations()
        for turn in store.turns(conversation)
    }
    texts: set[str] = set()
    for conversation in store.conversations():
        for message in store.messages(conversation):
            stored[conversation.key, message.turn][1].append(message)
            if message.role == "user" and not message.text.startswith("And now"):
                assert message.text not in texts, f"{message.text!r} is stored twice"
                texts.add(message.text)
    for report in reports:
        if report["kind"] not in {"heard", "acked"}:
            continue
        where = report["key"], report["turn"]
        assert where in stored, f"G8: {report} is missing"
        turn, (asked, *answers) = stored[where]
        assert asked.text == report["text"], f"G8: {report} is missing; there is {asked.text!r}"
        if report["kind"] == "acked":
            assert turn.status == report["status"], f"G8: {report} is stored as {turn.status}"
            assert "".join(answer.text for answer in answers) == report["answer"], f"G8: {report}"


def recovered(store: SQLStore) -> None:
    """G9: what was cut off is visible as interrupted, and nothing runs any more."""
    cut_off = {conversation.key: conversation.turns for conversation in store.running()}
    ended = SessionManager(store, Curious()).recover()
    assert {conversation.key: conversation.turns for conversation in ended} == cut_off, "G9: not all was recovered"
    for conversation in ended:
        assert store.turns(conversation, limit=1)[0].status is TurnStatus.INTERRUPTED, "G9"
    assert not store.running(), "G9: something is running"


def takes_a_turn(store: SQLStore, conversation: Conversation) -> None:
    """G9, and G3: if it resumes nothing, it is told what was said."""
    provider = Curious()
    limit = ContextWindow().max_messages + 1
    known = store.context(conversation, first_session=1, last_session=conversation.session, limit=limit)
    reply = SessionManager(store, provider).send(conversation.key, f"And now? {random.random()}")
    assert reply.status is TurnStatus.SUCCEEDED, f"G9: {reply}"
    (request,) = provider.requests
    assert request.session_id == conversation.session_id, "G2"
    if request.session_id is None:
        assert request.history == rebuild(known, ContextWindow(), request.content), "G3"


class Curious:
    """A provider that resumes whatever it is asked to, and keeps the requests."""

    name = PROVIDER

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def stream(self, request: Request) -> Any:
        """Answer in two words."""
        self.requests.append(request)
        yield TextDelta("as ever")
        yield Result(session_id=request.session_id or f"c-{random.random()}")
