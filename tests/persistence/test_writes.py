"""What a step writes: one statement for each effect, the guard before them."""

from typing import get_args

from peewee import SqliteDatabase

from fsm.effects import Effect
from persistence.statements import Statements
from persistence.writes import EFFECTS


def test_every_effect_has_its_statement() -> None:
    """An effect that is new and not written would be lost in silence."""
    assert set(EFFECTS) == set(get_args(Effect))
    assert {name for name, _ in EFFECTS.values()} <= set(vars(Statements(SqliteDatabase(":memory:"))))
