"""The tables, as peewee models: what is stored of a conversation, and what the database itself enforces.

Rows are named by natural keys, the conversation's id and a number, so a step never needs anything back from the
database. The database enforces uniqueness: partial unique indexes allow one open session, one running turn and one turn
for each idempotency key in a conversation. G1 is a check constraint.

Times are microseconds since 1970 in UTC. JSON is text: ``jsonb`` can't hold every string that JSON can.
"""

from __future__ import annotations

from peewee import (
    SQL,
    BigIntegerField,
    BooleanField,
    Check,
    CompositeKey,
    DoubleField,
    Field,
    ForeignKeyField,
    Model,
    TextField,
)

__all__ = ["CLUSTERED", "TABLES", "Conversation", "DeadId", "Message", "Session", "Transition", "Turn"]


class _Table(Model):
    class Meta:
        legacy_table_names = False


def _conversation() -> ForeignKeyField:
    return ForeignKeyField(Conversation, column_name="conversation", on_delete="CASCADE", index=False)


def _of(column: str, table: str) -> SQL:
    """Return the constraint that a column is a number in another table, in the same conversation."""
    return SQL(f"FOREIGN KEY (conversation, {column}) REFERENCES {table} (conversation, number) ON DELETE CASCADE")


class Conversation(_Table):
    """A row for each conversation; ``version`` is the guard of every write."""

    id = BigIntegerField(primary_key=True)
    key = TextField(unique=True)
    state = TextField()
    version = BigIntegerField()
    provider = TextField()
    session_number = BigIntegerField()
    session_id = TextField(null=True)
    turn_count = BigIntegerField()
    message_count = BigIntegerField()
    transition_count = BigIntegerField()
    running_turn = BigIntegerField(null=True)
    running_owner = TextField(null=True)
    running_until = BigIntegerField(null=True)
    metadata = TextField()
    window = BigIntegerField(null=True)
    created_at = BigIntegerField()
    updated_at = BigIntegerField()

    class Meta:
        table_name = "conversation"
        constraints = (
            Check("state IN ('fresh', 'active', 'stale')"),
            Check("(state = 'active') = (session_id IS NOT NULL)", "holds_one_id_when_active"),
            Check("(running_turn IS NULL) = (running_until IS NULL)"),
        )


class Session(_Table):
    """A row for each session, numbered in its conversation."""

    conversation = _conversation()
    number = BigIntegerField()
    parent = BigIntegerField(null=True)
    provider = TextField()
    session_id = TextField(null=True)
    opened_at = BigIntegerField()
    opened_reason = TextField()
    closed_at = BigIntegerField(null=True)
    closed_reason = TextField(null=True)

    class Meta:
        table_name = "session"
        primary_key = CompositeKey("conversation", "number")
        constraints = (
            _of("parent", "session"),
            Check("(closed_at IS NULL) = (closed_reason IS NULL)", "closed_with_a_reason"),
        )


class Turn(_Table):
    """A row for each turn, numbered in its conversation, with its result."""

    conversation = _conversation()
    number = BigIntegerField()
    session_number = BigIntegerField()
    status = TextField()
    first_message = BigIntegerField()
    last_message = BigIntegerField()
    started_at = BigIntegerField()
    ended_at = BigIntegerField(null=True)
    subtype = TextField(null=True)
    is_error = BooleanField(default=False)
    session_id = TextField(null=True)
    errors = TextField()
    stop_reason = TextField(null=True)
    usage = TextField(null=True)
    cost_usd = DoubleField(null=True)
    http_status = BigIntegerField(null=True)
    healed = BooleanField(default=False)
    state = TextField(null=True)
    idempotency_key = TextField(null=True)
    brings_results = BooleanField(default=False)

    class Meta:
        table_name = "turn"
        primary_key = CompositeKey("conversation", "number")
        constraints = (
            SQL(
                "FOREIGN KEY (conversation, session_number) REFERENCES session (conversation, number) ON DELETE CASCADE"
            ),
            Check("status IN ('running', 'succeeded', 'failed', 'interrupted', 'superseded')"),
            Check("(status = 'running') = (ended_at IS NULL)", "ended_with_a_status"),
            Check("(ended_at IS NULL) = (state IS NULL)", "ended_in_a_state"),
        )


class Message(_Table):
    """A row for each message, numbered in its conversation; never updated, and deleted only with its conversation."""

    conversation = _conversation()
    number = BigIntegerField()
    turn = BigIntegerField()
    role = TextField()
    content = TextField()
    created_at = BigIntegerField()
    provider_data = TextField(null=True)

    class Meta:
        table_name = "message"
        primary_key = CompositeKey("conversation", "number")
        constraints = (
            _of("turn", "turn"),
            Check("role IN ('user', 'assistant')"),
        )


class Transition(_Table):
    """A row for each move of the machine, numbered in its conversation; append-only."""

    conversation = _conversation()
    number = BigIntegerField()
    trigger = TextField()
    source = TextField()
    target = TextField()
    session_number = BigIntegerField()
    session_id = TextField(null=True)
    version = BigIntegerField()
    at = BigIntegerField()
    turn = BigIntegerField(null=True)
    reason = TextField(null=True)

    class Meta:
        table_name = "transition"
        primary_key = CompositeKey("conversation", "number")


class DeadId(_Table):
    """The provider session ids of a conversation that were reported dead and are never used again (G2)."""

    conversation = _conversation()
    session_id = TextField()
    session_number = BigIntegerField()
    at = BigIntegerField()

    class Meta:
        table_name = "dead_id"
        primary_key = CompositeKey("conversation", "session_id")


TABLES: tuple[type[Model], ...] = (Conversation, Session, Turn, Message, Transition, DeadId)
"""All tables, in the order in which they refer to each other."""

CLUSTERED = frozenset({Session, Turn, Transition, DeadId})
"""Tables that SQLite keeps in the order of their keys (``WITHOUT ROWID``): all whose rows are small."""


def _field(model: type[Model], name: str) -> Field:
    field: Field = model._meta.fields[name]
    return field


def _partial(model: type[Model], *columns: str, where: SQL, unique: bool, name: str) -> None:
    fields = [_field(model, column) for column in columns]
    model.add_index(model.index(*fields, unique=unique, where=where, name=name))


_partial(Session, "conversation", where=SQL("closed_at IS NULL"), unique=True, name="session_open")
_partial(Turn, "conversation", where=SQL("status = 'running'"), unique=True, name="turn_running")
_partial(
    Turn,
    "conversation",
    "idempotency_key",
    where=SQL("idempotency_key IS NOT NULL"),
    unique=True,
    name="turn_idempotency_key",
)
_partial(
    Turn,
    "conversation",
    "session_number",
    "number",
    where=SQL("brings_results AND status IN ('failed', 'interrupted', 'superseded')"),
    unique=False,
    name="turn_unheard",
)
_partial(
    Conversation,
    "running_until",
    "id",
    where=SQL("running_turn IS NOT NULL"),
    unique=False,
    name="conversation_running",
)
