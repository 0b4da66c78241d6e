"""The contracts that compare a store with the reference after each step of scripts which real decisions make."""

from __future__ import annotations

from typing import Any

from fsm.records import Conversation
from fsm.store import Store
from fsm.testing import store_scripts as s
from fsm.testing.report import Broken, Contract
from fsm.testing.store_actions import IDS, LEASE, TOUR, Begin, Clock, End, Extend, Reset, Script
from fsm.testing.subjects import StoreSubject

PAGED = ("sessions", "turns", "messages", "transitions")
WORKERS = ("one", "two")


def compared(name: str, promise: str, look: s.Look, *, share: int = 1, tour: Script = TOUR) -> Contract[StoreSubject]:
    """Return a contract that plays scripts and looks after each step.

    Args:
        name: of the contract.
        promise: of the contract.
        look: what is compared.
        share: one of so many of the subject's examples is tried.
        tour: the script to begin with.
    """

    def try_it(subject: StoreSubject) -> None:
        with subject.store() as store:
            script = s.search(store, look, subject.examples // share, tour=tour)
        if script is not None:
            raise smallest(subject, script, look)

    return Contract(name, promise, try_it)


def smallest(subject: StoreSubject, script: Script, look: s.Look) -> Broken:
    """Return the smallest script that shows the same in a fresh store."""

    def broken(script: Script) -> Broken | None:
        with subject.store() as store:
            return s.deviation(s.Play(store), script, look)

    if broken(script) is None:
        raise Broken("it deviates only in a store that holds other conversations; they are not kept apart")
    found = broken(s.smallest(script, lambda shorter: broken(shorter) is not None))
    return found or Broken("it deviates from one time to the next; is there a clock or chance in it?")


def look_at_rows(play: s.Play) -> None:
    for conversation in play.conversations():
        play.same("load", conversation.key)
        for rows in PAGED:
            play.same(rows, conversation)
        for turn in play.reference.turns(conversation):
            play.same("turn_messages", conversation, turn)


def look_at_order(play: s.Play) -> None:
    for conversation in play.conversations():
        for rows in PAGED:
            numbers = [row.number for row in play.attempt(rows, getattr(play.store, rows), conversation)]
            count = conversation.session_number if rows == "sessions" else getattr(conversation, f"{rows[:-1]}_count")
            play.compare(f"the numbers of {rows}({conversation.key!r})", list(range(1, count + 1)), numbers)


def look_at_pages(play: s.Play) -> None:
    for conversation in play.conversations():
        for rows in PAGED:
            count = len(getattr(play.reference, rows)(conversation))
            for limit in (None, 0, 1, 2, count + 1):
                for before in {None, 0, 1, 2, count, count + 1}:
                    play.same(rows, conversation, limit=limit, before=before)


def look_at_context(play: s.Play) -> None:
    for conversation in play.conversations():
        newest = conversation.session_number
        for first, last in {(1, newest), (newest, newest), (1, newest - 1)}:
            for limit in (None, 0, 1, 3):
                for read in ("context", "unheard"):
                    play.same(read, conversation, first_session=first, last_session=last, limit=limit)


def look_at_dead_ids(play: s.Play) -> None:
    for conversation in play.conversations():
        for count in (0, 2):
            play.same("dead", conversation, list(IDS[:count]))
        play.same("dead", conversation, list(IDS[2:]))


def look_at_idempotency(play: s.Play) -> None:
    for conversation in play.conversations():
        for name in ("i-1", "i-2", "I-1"):
            play.same("turn_by_idempotency_key", conversation, name)


def look_at_the_others(play: s.Play) -> None:
    """Check that the rows of a conversation change only with its own steps."""
    for conversation in play.conversations():
        key = conversation.key
        seen = play.attempt("a read", _everything, play.store, conversation)
        if key != play.acted:
            for what, was in play.noted[key].items():
                play.compare(f"{what} of {key!r}", was, seen[what])
        play.noted[key] = seen


def _everything(store: Store, conversation: Conversation) -> dict[str, Any]:
    rows = {name: list(getattr(store, name)(conversation)) for name in PAGED}
    sessions = {"first_session": 1, "last_session": conversation.session_number}
    return {
        "load": store.load(conversation.key),
        **rows,
        "context": list(store.context(conversation, limit=None, **sessions)),
        "dead": store.dead(conversation, list(IDS[:2])),
        "turn_by_idempotency_key": store.turn_by_idempotency_key(conversation, "i-1"),
    }


OTHERS_TOUR: Script = [
    Begin("a"),
    End("a"),
    Begin("b", idempotency_key="i-1"),
    End("b", session_id="s-2"),
    Begin("b"),
    End("b", "expired", "s-1"),
    Reset("b"),
    *TOUR,
]


def look_at_lists(play: s.Play) -> None:
    """Compare the lists of a store that holds only the conversations of this script."""
    for after in (None, *(conversation.key for conversation in play.conversations())):
        for limit in (None, 0, 1, 9):
            play.same("conversations", limit=limit, after=after)
    for until in (None, play.now, play.now + LEASE):
        for limit in (1, 100):
            play.same("running", until=until, limit=limit)
        for conversation in play.conversations():
            if conversation.running is not None:
                play.same("running", until=until, after=conversation)


def lists(subject: StoreSubject) -> None:
    """Check the lists; each script gets a new store, since lists show all conversations."""
    tour = [
        Begin("b"),
        Begin("c"),
        Begin("a"),
        Extend("b"),
        End("c"),
        Clock(),
        *TOUR,
    ]
    for script in (tour, TOUR):
        with subject.store() as store:
            broken = s.deviation(s.Play(store), script, look_at_lists)
        if broken is not None:
            raise smallest(subject, script, look_at_lists)


ODD_KEYS = (
    "slack:C042",
    "A",
    "a",
    "a ",
    " a",
    "%",
    "_",
    "a'b\"c",
    "a\\b/c",
    "../a",
    "a\nb",
    "a\tb",
    "null",
    "0",
    "00",
    "é",
    "e\u0301",
    "ﬀ",
    "ß",
    "ss",
    "\U0001f600",
    "\uffff",
    "k" * 511,
    "k" * 512,
    "\U0001f600" * 512,
)
"""Keys that a store may confuse with one another, or be unable to write."""

KEYS_TOUR: Script = [
    *(Begin(key, text=f"I am {n}") for n, key in enumerate(ODD_KEYS)),
    *map(End, ODD_KEYS),
]


def look_at_keys(play: s.Play) -> None:
    for conversation in play.conversations():
        play.same("load", conversation.key)
        if conversation.key == play.acted:
            play.same("messages", conversation)
