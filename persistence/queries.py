"""Every statement of the hot path, compiled once from a peewee query.

peewee's query builder costs about 100 µs a query, a hundred times what SQLite needs for a row. So each query is built
once for a database, with named places where values go, and from then on only its SQL runs. There is one definition for
all databases: the dialect is whatever peewee writes for the database at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from operator import itemgetter
from typing import Any, TypeAlias

from attrs import field, frozen
from peewee import SQL, Database, Field, Model, Query, Tuple, Value, fn

from persistence.models import Conversation, DeadId, Message, Session, Transition, Turn
from persistence.rows import Row

__all__ = ["Statement", "Statements", "Write"]

PAGED: Mapping[str, type[Model]] = {"messages": Message, "turns": Turn, "sessions": Session, "transitions": Transition}


@frozen
class _Place:
    """Stands in a query where a value goes."""

    name: str


@frozen
class Statement:
    """SQL, and the names of its values in the order in which it wants them.

    Attributes:
        sql: the text.
        names: the names of its values.
        expect_one_row: whether it must touch exactly one row, or what it belongs to must not be.
        bind: the values in order, from a mapping.

    >>> Statement("UPDATE t SET a = ? WHERE b = ?", ("a", "b")).bind({"b": 2, "a": 1})
    (1, 2)
    """

    sql: str
    names: tuple[str, ...]
    expect_one_row: bool = False
    bind: Callable[[Mapping[str, Any]], tuple[Any, ...]] = field(init=False, repr=False, eq=False)

    @bind.default
    def _binder(self) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
        if len(self.names) > 1:
            return itemgetter(*self.names)  # quicker than a loop
        return lambda values: tuple(values[name] for name in self.names)


Write: TypeAlias = tuple[Statement, Row]
"""A statement that writes, and its values in order."""


def _place(name: str) -> Value:
    return Value(_Place(name), converter=False)


def _fields(model: type[Model], *names: str) -> list[Field]:
    fields: dict[str, Field] = model._meta.fields
    return [fields[name] for name in names] if names else list(fields.values())


def _insert(model: type[Model]) -> Query:
    return model.insert({field: _place(field.name) for field in _fields(model)})


def _update(model: type[Model], *names: str, kept: Collection[str] = ()) -> Query:
    """Change these columns; those of ``kept`` stay as they are when they are given NULL."""
    return model.update(
        {
            field: fn.COALESCE(_place(field.name), field) if field.name in kept else _place(field.name)
            for field in _fields(model, *names)
        }
    )


def _page(model: type[Model]) -> Query:
    number = model._meta.fields["number"]
    return (
        model.select(*_fields(model))
        .where(model._meta.fields["conversation"] == _place("conversation"), number < _place("before"))
        .order_by(number.desc())
        .limit(_place("limit"))
    )


def _of_turn(name: str) -> Query:
    """A column of a turn as it stands."""
    return Turn.select(*_fields(Turn, name)).where(_row(Turn, number="turn"))


def _row(model: type[Model], *, number: str = "number") -> Any:
    fields = model._meta.fields
    return (fields["conversation"] == _place("conversation")) & (fields["number"] == _place(number))


class Statements:
    """The statements of one database.

    Args:
        database: any peewee database; it need not be connected.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.create = self._compile(_insert(Conversation))
        self.move = self._compile(
            _update(
                Conversation,
                *[
                    "state",
                    "version",
                    "provider",
                    "session",
                    "session_id",
                    "turns",
                    "messages",
                    "transitions",
                    "running_turn",
                    "running_owner",
                    "running_until",
                    "metadata",
                    "window",
                    "updated_at",
                ],
            ).where(
                Conversation.id == _place("id"),
                Conversation.version == _place("expected"),
                Conversation.updated_at == _place("seen"),
            ),
            expect_one_row=True,
        )
        self.start_turn = self._compile(_insert(Turn))
        self.end_turn = self._compile(
            _update(
                Turn,
                *[
                    "session",
                    "status",
                    "last_message",
                    "ended_at",
                    "subtype",
                    "is_error",
                    "session_id",
                    "errors",
                    "stop_reason",
                    "usage",
                    "cost_usd",
                    "http_status",
                    "healed",
                    "state",
                ],
                kept={"last_message"},
            ).where(_row(Turn), Turn.status == SQL("'running'")),
            expect_one_row=True,
        )
        self.extend_turn = self._compile(_update(Turn, "last_message").where(_row(Turn)), expect_one_row=True)
        self.add_message = self._compile(_insert(Message))
        self.open_session = self._compile(_insert(Session))
        self.bind_session = self._compile(
            _update(Session, "session_id").where(_row(Session), Session.closed_at.is_null()), expect_one_row=True
        )
        self.close_session = self._compile(
            _update(Session, "closed_at", "closed_reason").where(_row(Session), Session.closed_at.is_null()),
            expect_one_row=True,
        )
        self.log_transition = self._compile(_insert(Transition))
        self.mark_dead = self._compile(_insert(DeadId))

        self.load = self._compile(Conversation.select(*_fields(Conversation)).where(Conversation.key == _place("key")))
        self.dead = self._compile(
            DeadId.select(DeadId.session_id).where(
                DeadId.conversation == _place("conversation"),
                DeadId.session_id.in_([_place("first"), _place("second")]),
            )
        )
        self.context = self._compile(
            Message.select(*_fields(Message))
            .join(Turn, on=(Turn.conversation == Message.conversation) & (Turn.number == Message.turn))
            .where(
                Message.conversation == _place("conversation"),
                Turn.status == SQL("'succeeded'"),
                Turn.session.between(_place("first_session"), _place("last_session")),
            )
            .order_by(Message.number.desc())
            .limit(_place("limit"))
        )
        self.unheard = self._compile(
            Message.select(*_fields(Message))
            .join(Turn, on=(Turn.conversation == Message.conversation) & (Turn.first_message == Message.number))
            .where(
                Turn.conversation == _place("conversation"),
                Turn.session.between(_place("first_session"), _place("last_session")),
                Turn.brings_results,
                Turn.status.in_(SQL("('failed', 'interrupted', 'superseded')")),
            )
            .order_by(Turn.session.desc(), Turn.number.desc())  # which is the order of the messages, and has an index
            .limit(_place("limit"))
        )
        self.turn_messages = self._compile(
            Message.select(*_fields(Message))
            .where(
                Message.conversation == _place("conversation"),
                Message.number.between(_of_turn("first_message"), _of_turn("last_message")),
                Message.turn == _place("turn"),
            )
            .order_by(Message.number)
        )
        self.turn_by_idempotency_key = self._compile(
            Turn.select(*_fields(Turn)).where(
                Turn.conversation == _place("conversation"), Turn.idempotency_key == _place("idempotency_key")
            )
        )
        self.count = self._compile(Conversation.select(fn.COUNT(SQL("*"))))
        self.conversations = self._compile(
            Conversation.select(*_fields(Conversation))
            .where(Conversation.key > _place("after"))
            .order_by(Conversation.key)
            .limit(_place("limit"))
        )
        self.running = self._compile(
            Conversation.select(*_fields(Conversation))
            .where(
                Conversation.running_turn.is_null(is_null=False),
                Conversation.running_until <= _place("until"),
                Tuple(Conversation.running_until, Conversation.id) > Tuple(_place("after_until"), _place("after_id")),
            )
            .order_by(Conversation.running_until, Conversation.id)
            .limit(_place("limit"))
        )
        self.page = {name: self._compile(_page(model)) for name, model in PAGED.items()}

    def _compile(self, query: Query, *, expect_one_row: bool = False) -> Statement:
        sql, values = self._database.get_sql_context().sql(query).query()
        return Statement(sql, tuple(place.name for place in values), expect_one_row)
