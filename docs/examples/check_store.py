"""A store on a plain dictionary, with one bug; check_store finds it."""

# [store]
import threading

import attrs

from fsm import BaseStore, Conflict, InvalidInput, StoreError, TurnStatus
from fsm.store import (
    AddMessage,
    BindSession,
    CloseSession,
    EndTurn,
    LogTransition,
    MarkSessionDead,
    OpenSession,
    StartTurn,
)

INSERTS = {AddMessage: "message", LogTransition: "transition", OpenSession: "session", StartTurn: "turn"}
RESULT = ("subtype", "is_error", "session_id", "errors", "stop_reason", "usage", "cost_usd", "http_status")
UNHEARD = {TurnStatus.FAILED, TurnStatus.INTERRUPTED, TurnStatus.SUPERSEDED}
EMPTY = {"messages": (), "transitions": (), "sessions": (), "turns": (), "dead": frozenset()}


class DictStore(BaseStore):
    def __init__(self):
        self.rows = {}
        self.lock = threading.Lock()

    def commit(self, step):
        self.check_open(step.before.key)
        with self.lock:
            rows = self.rows.get(step.before.key, {**EMPTY, "conversation": None})
            if rows["conversation"] and seen(rows["conversation"]) != seen(step.before):
                raise Conflict("another commit took its place; load it and decide again", step.before.key)
            if not rows["conversation"] and step.before.version:
                raise Conflict("somebody else was first; load it and decide again", step.before.key)
            for effect in step.effects:
                rows = written(rows, effect)
            self.rows[step.after.key] = {**rows, "conversation": step.after}

    def of(self, conversation):
        self.check_open(conversation.key)
        return self.rows.get(conversation.key, EMPTY)

    def load(self, key):
        self.check_open(key)
        return self.rows[key]["conversation"] if key in self.rows else None

    def dead(self, conversation, session_ids):
        return self.of(conversation)["dead"] & frozenset(session_ids)

    def context(self, conversation, *, first_session, last_session, limit):
        turns = [turn for turn in self.turns(conversation) if first_session <= turn.session_number <= last_session]
        told = {turn.number for turn in turns if turn.ended_at is not None}
        return newest([message for message in self.messages(conversation) if message.turn in told], limit)

    def unheard(self, conversation, *, first_session, last_session, limit):
        turns = [turn for turn in self.turns(conversation) if first_session <= turn.session_number <= last_session]
        turns = [turn for turn in turns if turn.brings_results and turn.status in UNHEARD]
        first = {turn.first_message for turn in turns}
        return newest([message for message in self.messages(conversation) if message.number in first], limit)

    def turn_messages(self, conversation, turn):
        return [message for message in self.messages(conversation) if message.turn == turn.number]

    def turn_by_idempotency_key(self, conversation, idempotency_key):
        turns = self.turns(conversation)
        return next((turn for turn in turns if turn.idempotency_key == idempotency_key), None)

    def messages(self, conversation, *, limit=None, before=None):
        return page(self.of(conversation)["messages"], limit, before)

    def turns(self, conversation, *, limit=None, before=None):
        return page(self.of(conversation)["turns"], limit, before)

    def sessions(self, conversation, *, limit=None, before=None):
        return page(self.of(conversation)["sessions"], limit, before)

    def transitions(self, conversation, *, limit=None, before=None):
        return page(self.of(conversation)["transitions"], limit, before)

    def conversations(self, *, limit=None, after=None):
        keys = sorted(key for key in self.rows if after is None or key > after)
        return [self.load(key) for key in keys[:limit]]

    def count(self):
        return len(self.rows)

    def running(self, *, until=None, limit=100, after=None):
        if after is not None and after.running is None:
            raise InvalidInput("no turn runs in the conversation to go on after", after.key)
        running = [conversation for conversation in self.conversations() if conversation.running]
        expired = [conversation for conversation in running if until is None or conversation.running.until <= until]
        following = [one for one in expired if after is None or lease(one) > lease(after)]
        return sorted(following, key=lease)[:limit]


def seen(conversation):
    return conversation.id, conversation.version, conversation.updated_at


# [store end]


# [rows]
def written(rows, effect):
    if type(effect) in INSERTS:
        kind = INSERTS[type(effect)]
        row, table = getattr(effect, kind), kind + "s"
        if row.number != len(rows[table]) + 1:
            raise StoreError(f"{kind} {row.number} is not the next one; nothing was written")
        return {**rows, table: (*rows[table], row)}
    if isinstance(effect, MarkSessionDead):
        return {**rows, "dead": rows["dead"] | {effect.session_id}}
    if isinstance(effect, BindSession):
        return changed(rows, "sessions", effect.number, session_id=effect.session_id)
    if isinstance(effect, CloseSession):
        return changed(rows, "sessions", effect.number, closed_at=effect.at, closed_reason=effect.reason)
    changes = {"last_message": effect.last_message} if effect.last_message else {}
    if isinstance(effect, EndTurn):
        changes |= {name: getattr(effect, name) for name in ("session_number", "status", "state", "healed")}
        changes |= {name: getattr(effect.result, name) for name in RESULT if effect.result}
        changes["ended_at"] = effect.at
    return changed(rows, "turns", effect.number, **changes)


def lease(conversation):
    return conversation.running.until, conversation.id


def changed(rows, table, number, **changes):
    row = rows[table][number - 1] if number <= len(rows[table]) else None
    if row is None or (row.ended_at if "ended_at" in changes else getattr(row, "closed_at", None)):
        raise StoreError(f"row {number} of {table} is missing or closed; nothing was written")
    return {**rows, table: (*rows[table][: number - 1], attrs.evolve(row, **changes), *rows[table][number:])}


def page(rows, limit, before):
    if min(limit or 0, before or 0) < 0:
        raise InvalidInput("limit and before must not be negative")
    return newest(rows if before is None else rows[: max(0, before - 1)], limit)


def newest(rows, limit):
    return list(rows if limit is None else rows[max(0, len(rows) - limit) :])


# [rows end]

# [check]
from fsm.testing import ConformanceError, check_store

try:
    check_store(DictStore)
except ConformanceError as error:
    print(error)
# [check end]


# [fix]
class FixedStore(DictStore):
    def context(self, conversation, *, first_session, last_session, limit):
        turns = [turn for turn in self.turns(conversation) if first_session <= turn.session_number <= last_session]
        told = {turn.number for turn in turns if turn.status is TurnStatus.SUCCEEDED}
        return newest([message for message in self.messages(conversation) if message.turn in told], limit)


print(check_store(FixedStore))
# [fix end]

# [linearizable]
from fsm.testing import LinearizabilityError, check_linearizable
from fsm.testing.wrong_stores import ChecksBeforeItLocks

shared = ChecksBeforeItLocks()
try:
    for seed in range(100):
        check_linearizable(shared.reopened, seed=seed)
except LinearizabilityError as error:
    print(str(error).partition(": ")[2].partition(";")[0])
# [linearizable end]
