"""The auditor: reads a whole database through the store and checks every guarantee that rows can show.

:func:`audit` takes what the workers reported. It then ends what was cut off, as any worker would, checks again, and
lets each conversation take one more turn.
"""

import random
from collections.abc import Iterable
from typing import Any

from fsm import Conversation, Message, Request, Result, SessionManager, TextDelta, TurnStatus
from fsm.context import ContextWindow, rebuild
from fsm.testing.trace import check_conversation
from persistence import SQLStore
from tests.crash.worker import PROVIDER

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
    """G1, G2, G4 to G7 for one conversation, as the kit checks them, and G3: its context is the succeeded turns."""
    assert conversation is not None
    check_conversation(store, conversation)
    turns, messages = store.turns(conversation), store.messages(conversation)
    succeeded = {turn.number for turn in turns if turn.status is TurnStatus.SUCCEEDED}
    context = store.context(conversation, first_session=1, last_session=conversation.session_number, limit=None)
    assert context == [message for message in messages if message.turn in succeeded], "G3: the context"


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
    cut_off = {conversation.key: conversation.turn_count for conversation in store.running()}
    ended = SessionManager(store, Curious()).recover()
    assert {conversation.key: conversation.turn_count for conversation in ended} == cut_off, "G9: not all was recovered"
    for conversation in ended:
        assert store.turns(conversation, limit=1)[0].status is TurnStatus.INTERRUPTED, "G9"
    assert not store.running(), "G9: something is running"


def takes_a_turn(store: SQLStore, conversation: Conversation) -> None:
    """G9, and G3: if it resumes nothing, it is told what was said."""
    provider = Curious()
    limit = ContextWindow().max_messages + 1
    known = store.context(conversation, first_session=1, last_session=conversation.session_number, limit=limit)
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
