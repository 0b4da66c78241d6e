"""The check of the stored turns of a conversation: their ends and their messages (G2, G5, G6, G11)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from attrs import define, field

from fsm._core.table import Trigger
from fsm.events import EXPIRED, INTERRUPTED, Result
from fsm.records import Conversation, Message, Transition, Turn, TurnStatus
from fsm.store import Store
from fsm.testing.lineage import rows
from fsm.testing.moves import Place

__all__ = ["check_messages", "check_turns"]


def check_turns(store: Store, conversation: Conversation) -> None:
    """Check the turns against the moves."""
    moves = _Moves(iter(rows("transition", store.transitions, conversation, conversation.transition_count)))
    before: Turn | None = None
    for turn in rows("turn", store.turns, conversation, conversation.turn_count):
        _check_turn(conversation, before, turn)
        _check_outcome(conversation.key, turn, moves.of(turn.number))
        if turn.subtype == EXPIRED and turn.session_id and not store.dead(conversation, {turn.session_id}):
            Place(conversation.key, "turn", turn.number).fails(
                "G2", f"it reported {turn.session_id!r} dead, but that is not remembered"
            )
        before = turn
    if moves.rest:
        Place(conversation.key, "transition", moves.rest[0].number).fails("G6", "it belongs to no stored turn")


@define
class _Moves:
    """The moves, by their turns; those that belong to none are passed over."""

    moves: Iterator[Transition]
    rest: list[Transition] = field(factory=list)

    def of(self, turn: int) -> list[Transition]:
        """Return the moves of this turn; of the next one, the first is kept."""
        mine: list[Transition] = []
        ahead, self.rest = self.rest, []
        for move in chain(ahead, self.moves):
            if move.turn is not None and move.turn != turn:
                self.rest = [move]
                break
            if move.turn == turn:
                mine.append(move)
        return mine


def _check_turn(conversation: Conversation, before: Turn | None, turn: Turn) -> None:
    fails = Place(conversation.key, "turn", turn.number).fails
    runs = conversation.running is not None and conversation.running.turn == turn.number
    if (turn.status is TurnStatus.RUNNING) != runs:
        fails("G5", f"it is {turn.status}, but the conversation says that it {'runs' if runs else 'does not run'}")
    if (turn.ended_at is None, turn.state is None) != (runs, runs):
        fails("G5", f"it is {turn.status}, but ended at {turn.ended_at} in state {turn.state}")
    if not (before.session_number if before else 1) <= turn.session_number <= conversation.session_number:
        fails("G7", f"it stands in session {turn.session_number}, out of order")
    first = before.first_message + 1 if before else 1
    if not first <= turn.first_message <= turn.last_message <= conversation.message_count:
        fails("G5", f"its messages are {turn.first_message} to {turn.last_message}, out of order")


def _check_outcome(key: str, turn: Turn, moves: list[Transition]) -> None:
    """Check the moves of a turn: it may renew its session when it begins, heal once, and move by its result."""
    fails = Place(key, "turn", turn.number).fails
    triggers = [move.trigger for move in moves]
    if triggers[:1] == [Trigger.RESET]:
        del triggers[0]
    healed = triggers[:2] == [Trigger.EXPIRED, Trigger.RESET]
    del triggers[: 2 * healed]
    result = None
    if turn.subtype is not None:
        result = Result(subtype=turn.subtype, is_error=turn.is_error)
    if triggers != ([] if result is None else [result.trigger]):
        said = "no result" if result is None else f"the result {turn.subtype}"
        fails("G6", f"it has {said}, but {', '.join(triggers) or 'no move'} in the log")
    if turn.healed and not healed:
        fails("G11", "it was healed, but the log has no reset after its session expired")
    if turn.status not in _statuses(result):
        fails("G6", f"it is {turn.status}, with {'no result' if result is None else f'the result {turn.subtype}'}")
    if moves and turn.state is not None and moves[-1].target is not turn.state:
        fails("G6", f"it ended {turn.state}, but its last move led to {moves[-1].target}")


def _statuses(result: Result | None) -> set[TurnStatus]:
    if result is None:
        return {TurnStatus.RUNNING, TurnStatus.INTERRUPTED, TurnStatus.SUPERSEDED}
    if result.subtype == INTERRUPTED:
        return {TurnStatus.INTERRUPTED}
    return {TurnStatus.SUCCEEDED if result.trigger is Trigger.SUCCEEDED else TurnStatus.FAILED}


# Messages


def check_messages(store: Store, conversation: Conversation) -> None:
    """Check the messages of each turn: the user message first, then the others, or late ones."""
    turns = rows("turn", store.turns, conversation, conversation.turn_count)
    turn: Turn | None = None
    seen = 0
    for message in rows("message", store.messages, conversation, conversation.message_count):
        newest = turn.number if turn else 0
        if message.turn == newest + 1 <= conversation.turn_count:
            _check_last(store, conversation, turn, seen)
            turn = next(turns)
            _check_first(conversation.key, turn, message)
            seen = message.number
        elif not 1 <= message.turn <= newest:
            _fails_at(conversation, message, f"turn {newest} or the next was due, not turn {message.turn}")
        elif turn and message.turn == newest and message.number <= turn.last_message:
            seen = message.number
        else:
            _check_late(store, conversation, message)
    _check_last(store, conversation, turn, seen)
    for unsaid in turns:
        Place(conversation.key, "turn", unsaid.number).fails("G5", "it has no message")


def _fails_at(conversation: Conversation, message: Message, reason: str) -> None:
    Place(conversation.key, "message", message.number).fails("G5", reason)


def _check_first(key: str, turn: Turn, message: Message) -> None:
    fails = Place(key, "message", message.number).fails
    if message.role != "user":
        fails("G5", f"turn {turn.number} begins with a message of the {message.role}")
    if turn.first_message != message.number:
        fails("G5", f"turn {turn.number} begins with it, but says that it begins with {turn.first_message}")


def _check_last(store: Store, conversation: Conversation, turn: Turn | None, seen: int) -> None:
    """Check the number of a turn's last message: the last one in a row, or a late one."""
    if turn is None or turn.last_message == seen:
        return
    last = store.messages(conversation, limit=1, before=turn.last_message + 1)
    if turn.last_message < seen or not last or last[0].turn != turn.number:
        Place(conversation.key, "turn", turn.number).fails("G5", f"message {turn.last_message} is not its last")


def _check_late(store: Store, conversation: Conversation, message: Message) -> None:
    owner = store.turns(conversation, limit=1, before=message.turn + 1)
    if not owner or owner[0].last_message < message.number:
        _fails_at(conversation, message, f"it comes after the last message of its turn {message.turn}")
    elif owner[0].status not in {TurnStatus.INTERRUPTED, TurnStatus.SUPERSEDED}:
        _fails_at(conversation, message, f"it came late, but its turn {message.turn} is {owner[0].status} (G10)")
