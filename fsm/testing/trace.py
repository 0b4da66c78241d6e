"""Trace checking: recorded rows must be a behaviour of the machine.

:func:`check_log` reads a log of moves, such as an observer wrote it. :func:`check_database` reads all that a store
holds, of any number of conversations, page by page. Both promise to name the exact place and the reason of the first
deviation, and to change nothing. They know only the
table (:data:`fsm.TABLE`) and the guarantees G1 to G7, G11 and G15, and don't use the code that made the rows.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs
from attrs import define

from fsm.records import Conversation, Transition
from fsm.store import Store
from fsm.testing.lineage import PAGE, check_dead, check_row, check_sessions
from fsm.testing.moves import Replay, TraceError
from fsm.testing.turns import check_messages, check_turns

__all__ = ["Checked", "TraceError", "check_conversation", "check_database", "check_log"]

TRIES = 100
"""How often a conversation that is written meanwhile is read again."""


@define(kw_only=True)
class Checked:
    """The numbers of rows of each kind that were checked.

    >>> print(Checked(conversations=1, sessions=1, turns=2, messages=4, transitions=2))
    1 conversations, 1 sessions, 2 turns, 4 messages, 2 transitions
    """

    conversations: int = 0
    sessions: int = 0
    turns: int = 0
    messages: int = 0
    transitions: int = 0

    def __str__(self) -> str:
        return (
            f"{self.conversations} conversations, {self.sessions} sessions, {self.turns} turns, "
            f"{self.messages} messages, {self.transitions} transitions"
        )


def check_log(transitions: Iterable[Transition]) -> Checked:
    """Check a log of moves.

    Args:
        transitions: the whole log of one conversation, or of many in any interleaving; each conversation's own moves
            in their order.

    Returns:
        How much was read; only conversations and transitions are counted.

    Raises:
        TraceError: the first move that the machine can't have made.

    >>> from fsm import SessionManager
    >>> from fsm.providers import DemoProvider
    >>> from fsm.testing import ReferenceStore
    >>> log = []
    >>> manager = SessionManager(ReferenceStore(), DemoProvider(), observers=[log.append])
    >>> reply = manager.send("ticket-42", "hello")
    >>> check_log(log).transitions
    1
    >>> check_log(log + log)
    Traceback (most recent call last):
    ...
    fsm.testing.moves.TraceError: conversation 'ticket-42': transition 1 breaks G5: number 2 was due
    """
    replays: dict[str, Replay] = {}
    checked = Checked()
    for move in transitions:
        replays.setdefault(move.key, Replay(move.key)).take(move)
        checked.transitions += 1
    checked.conversations = len(replays)
    return checked


def check_database(store: Store) -> Checked:
    """Check all conversations of a store, in constant memory; it may be in use meanwhile.

    Args:
        store: the store; it is only read.

    Returns:
        How much was read.

    Raises:
        TraceError: the first row that can't be part of a behaviour of the machine.
        StoreError: the store could not be read; :class:`~fsm.errors.CorruptRecord` is a row that is none.

    >>> from fsm import SessionManager
    >>> from fsm.providers import DemoProvider
    >>> from fsm.testing import ReferenceStore
    >>> store = ReferenceStore()
    >>> reply = SessionManager(store, DemoProvider()).send("ticket-42", "hello")
    >>> print(check_database(store))
    1 conversations, 1 sessions, 1 turns, 2 messages, 1 transitions
    """
    checked, after = Checked(), None
    while page := store.conversations(limit=PAGE, after=after):
        for conversation in page:
            checked_one = _until_quiet(store, conversation)
            for name in attrs.asdict(checked):
                setattr(checked, name, getattr(checked, name) + getattr(checked_one, name))
        after = page[-1].key
    return checked


def _until_quiet(store: Store, conversation: Conversation) -> Checked:
    """Check a conversation; if it was written meanwhile, what was read does not fit together: once more, then."""
    for _ in range(TRIES):
        try:
            return check_conversation(store, conversation)
        except TraceError as error:
            again = store.load(conversation.key)
            if again == conversation:
                raise
            deviation = error
        if again is None:
            return Checked()
        conversation = again
    raise deviation


def check_conversation(store: Store, conversation: Conversation) -> Checked:
    """Check one conversation.

    Args:
        store: where it is kept; it is only read.
        conversation: its snapshot; what is read after it was written again is a deviation too.

    Returns:
        How much was read.

    Raises:
        TraceError: the first row that can't be part of a behaviour of the machine.
    """
    check_row(conversation)
    replay = check_sessions(store, conversation)
    check_dead(store, conversation, replay)
    check_turns(store, conversation)
    check_messages(store, conversation)
    return Checked(
        conversations=1,
        sessions=conversation.session_number,
        turns=conversation.turn_count,
        messages=conversation.message_count,
        transitions=conversation.transition_count,
    )
