"""Every statement of the store, compiled once from a peewee query.

peewee's query builder costs about 100 µs a query, a hundred times what SQLite needs for a row. So each query is built
once for a database, with named places where values go. From then on only its SQL runs. There is one definition for all
databases: the dialect is whatever peewee writes for the database at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any, TypeAlias

from attrs import field, frozen
from peewee import SQL, Database, Field, Model, Query, Tuple, Value, fn

from fsm.store import (
    AddMessage,
    BindSession,
    CloseSession,
    EndTurn,
    ExtendTurn,
    LogTransition,
    MarkSessionDead,
    OpenSession,
    StartTurn,
    Step,
)
from persistence.mapping import Row, effect_row, step_row
from persistence.schema import Conversation, DeadId, Message, Session, Transition, Turn

__all__ = ["COLUMNS", "Statement", "Statements", "Write"]

PAGED: Mapping[str, type[Model]] = {"messages": Message, "turns": Turn, "sessions": Session, "transitions": Transition}


@frozen
class _Place:
    """Stands in a query for a value."""

    name: str


@frozen(kw_only=True)
class Statement:
    """SQL, and the names of its values in their order.

    Attributes:
        sql: the text.
        names: the names of its values.
        expect_one_row: roll the transaction back unless the statement changes exactly one row.
        bind: returns the values in order, from a mapping.

    >>> Statement(sql="UPDATE t SET a = ? WHERE b = ?", names=("a", "b")).bind({"b": 2, "a": 1})
    (1, 2)
    """

    sql: str
    names: tuple[str, ...] = ()
    expect_one_row: bool = False
    bind: Callable[[Mapping[str, Any]], tuple[Any, ...]] = field(init=False, repr=False, eq=False)

    @bind.default
    def _binder(self) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
        if len(self.names) > 1:
            return itemgetter(*self.names)
        return lambda values: tuple(values[name] for name in self.names)


Write: TypeAlias = tuple[Statement, Row]
"""A statement that writes, and its values in order."""


def _place(name: str) -> Value:
    return Value(_Place(name), converter=False)


def _fields(model: type[Model]) -> list[Field]:
    return list(model._meta.fields.values())


COLUMNS: Mapping[str, tuple[str, ...]] = {
    model._meta.table_name: tuple(field.name for field in _fields(model))
    for model in (Conversation, Session, Turn, Message, Transition)
}
"""The names of the columns of each table, in their order."""


def _insert(model: type[Model]) -> Query:
    return model.insert({field: _place(field.name) for field in _fields(model)})


def _update(model: type[Model], *names: str, kept: str = "") -> Query:
    """Return a change of these columns; the column ``kept`` stays as it is when it is given NULL."""
    fields = model._meta.fields
    return model.update(
        {fields[name]: fn.COALESCE(_place(name), fields[name]) if name == kept else _place(name) for name in names}
    )


def _row(model: type[Model], number: str = "number") -> Any:
    fields = model._meta.fields
    return (fields["conversation"] == _place("conversation")) & (fields["number"] == _place(number))


def _page(model: type[Model]) -> Query:
    number = model._meta.fields["number"]
    return (
        model.select(*_fields(model))
        .where(model._meta.fields["conversation"] == _place("conversation"), number < _place("before"))
        .order_by(number.desc())
        .limit(_place("limit"))
    )


def _messages_of_turns(on: Any, *conditions: Any) -> Query:
    """Return a query for the newest messages of some turns of some sessions."""
    return (
        Message.select(*_fields(Message))
        .join(Turn, on=(Turn.conversation == Message.conversation) & on)
        .where(
            Turn.conversation == _place("conversation"),
            Turn.session_number.between(_place("first_session"), _place("last_session")),
            *conditions,
        )
        .limit(_place("limit"))
    )


def _of_turn(name: str) -> Query:
    """Return a query for a column of a turn as it stands."""
    return Turn.select(Turn._meta.fields[name]).where(_row(Turn, "turn"))


GUARD = (
    Conversation.id == _place("id"),
    Conversation.version == _place("expected"),
    Conversation.updated_at == _place("seen"),
)
"""The row of a conversation, if it is still the step's snapshot."""

INSERTS: Mapping[type, type[Model]] = {
    StartTurn: Turn,
    AddMessage: Message,
    OpenSession: Session,
    LogTransition: Transition,
    MarkSessionDead: DeadId,
}
"""The table into which an effect inserts a row."""


def _updates() -> Mapping[type, Query]:
    """Return how an effect changes a row; each must change exactly one."""
    is_open = Session.closed_at.is_null()
    ended = ("session_number", "status", "last_message", "ended_at", "subtype", "is_error", "session_id", "errors")
    reported = ("stop_reason", "usage", "cost_usd", "http_status", "healed", "state")
    is_running = Turn.status == SQL("'running'")
    return {
        EndTurn: _update(Turn, *ended, *reported, kept="last_message").where(_row(Turn), is_running),
        ExtendTurn: _update(Turn, "last_message").where(_row(Turn)),
        BindSession: _update(Session, "session_id").where(_row(Session), is_open),
        CloseSession: _update(Session, "closed_at", "closed_reason").where(_row(Session), is_open),
    }


def _reads() -> Mapping[str, Query]:
    """Return the queries that read, by the names of the store's methods."""
    conversations = Conversation.select(*_fields(Conversation))
    position = Tuple(Conversation.running_until, Conversation.id)
    return {
        "load": conversations.where(Conversation.key == _place("key")),
        "dead": DeadId.select(DeadId.session_id).where(
            DeadId.conversation == _place("conversation"),
            DeadId.session_id.in_([_place("first"), _place("second")]),
        ),
        "context": _messages_of_turns(
            Turn.number == Message.turn,
            Message.conversation == _place("conversation"),
            Turn.status == SQL("'succeeded'"),
        ).order_by(Message.number.desc()),
        "unheard": _messages_of_turns(
            Turn.first_message == Message.number,
            Turn.brings_results,
            Turn.status.in_(SQL("('failed', 'interrupted', 'superseded')")),
        ).order_by(Turn.session_number.desc(), Turn.number.desc()),  # the order of the messages, and it has an index
        "turn_messages": Message.select(*_fields(Message))
        .where(
            Message.conversation == _place("conversation"),
            Message.number.between(_of_turn("first_message"), _of_turn("last_message")),
            Message.turn == _place("turn"),
        )
        .order_by(Message.number),
        "turn_by_idempotency_key": Turn.select(*_fields(Turn)).where(
            Turn.conversation == _place("conversation"), Turn.idempotency_key == _place("idempotency_key")
        ),
        "conversations": conversations.where(Conversation.key > _place("after"))
        .order_by(Conversation.key)
        .limit(_place("limit")),
        "count": Conversation.select(fn.COUNT(SQL("*"))),
        "running": conversations.where(
            Conversation.running_turn.is_null(is_null=False),
            Conversation.running_until <= _place("until"),
            position > Tuple(_place("after_until"), _place("after_id")),
        )
        .order_by(Conversation.running_until, Conversation.id)
        .limit(_place("limit")),
        **{name: _page(model) for name, model in PAGED.items()},
    }


class Statements:
    """The statements of one database.

    Args:
        database: any peewee database; it need not be connected.

    Attributes:
        create: inserts a conversation.
        move: changes a conversation, if it is still the step's snapshot.
        effects: for each kind of effect, the statement that writes it.
        reads: the statements that read, by the names of the store's methods.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        changing = [name for name in COLUMNS["conversation"] if name not in {"id", "key", "created_at"}]
        self.create = self._compiled(_insert(Conversation))
        self.move = self._compiled(_update(Conversation, *changing).where(*GUARD), expect_one_row=True)
        self.effects: Mapping[type, Statement] = {
            **{effect: self._compiled(_insert(model)) for effect, model in INSERTS.items()},
            **{effect: self._compiled(query, expect_one_row=True) for effect, query in _updates().items()},
        }
        self._create = self.create, step_row(self.create.names)
        self._move = self.move, step_row(self.move.names)
        self._effects = {
            effect: (statement, effect_row(effect, statement.names)) for effect, statement in self.effects.items()
        }
        self.reads = {name: self._compiled(query) for name, query in _reads().items()}

    def named(self) -> Mapping[str, Statement]:
        """Return all statements, by their names."""
        written = {effect.__name__: statement for effect, statement in self.effects.items()}
        return {"create": self.create, "move": self.move, **written, **self.reads}

    def writes(self, step: Step) -> list[Write]:
        """Return what a step writes, in order; the first is its guard."""
        guard, row = self._move if step.before.version else self._create
        written: list[Write] = [(guard, row(step))]
        for effect in step.effects:
            statement, row_of = self._effects[type(effect)]
            written.append((statement, row_of(effect, step.after.id)))
        return written

    def _compiled(self, query: Query, *, expect_one_row: bool = False) -> Statement:
        sql, values = self._database.get_sql_context().sql(query).query()
        names = tuple(place.name for place in values)
        return Statement(sql=sql, names=names, expect_one_row=expect_one_row)
