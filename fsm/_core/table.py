"""What the machine *is*: its states, its triggers and its one table, as plain data.

A conversation holds at most one *provider session id*, the name of a context that lives at an AI provider and
dies there without notice. The state says what is known about that id::

    fresh    no provider session is held
    active   one is held and believed resumable
    stale    the held one was reported dead; only a reset may follow

Four triggers move it: what a turn's result means (``succeeded``, ``failed``, ``expired``) and the command to
start over (``reset``). Every pair of state and trigger that has no row is illegal.

The table is the single source of the machine, of the diagrams and of the tables in the documentation. It promises
nothing by itself: :mod:`fsm._core.machine` checks it when it is imported and runs it on ``transitions``.
"""

from __future__ import annotations

from enum import StrEnum

from attrs import frozen

__all__ = ["INITIAL", "TABLE", "Row", "State", "Trigger"]


class State(StrEnum):
    """What a conversation knows about the provider session it holds."""

    FRESH = "fresh"
    """No provider session is held; the next one starts with its context rebuilt from the stored history."""
    ACTIVE = "active"
    """One provider session id is held and believed resumable."""
    STALE = "stale"
    """The held session was reported dead. Nothing is held; only a reset may follow."""


class Trigger(StrEnum):
    """What moves the machine."""

    SUCCEEDED = "succeeded"
    """A turn ended with an answer."""
    FAILED = "failed"
    """A turn ended with an error that leaves the session resumable (G14)."""
    EXPIRED = "expired"
    """A turn ended with ``error_during_execution``: the provider session is dead."""
    RESET = "reset"
    """Start over with a new session: asked for, or needed by the next turn."""


@frozen
class Row:
    """One row of the table.

    Attributes:
        source: the state the conversation is in.
        trigger: what happens.
        target: the state it is in afterwards.
        effects: names of the cursor's methods that say what is persisted, in order.
        when: name of the guard that must hold, or None.
        unless: name of the guard that must not hold, or None.
    """

    source: State
    trigger: Trigger
    target: State
    effects: tuple[str, ...] = ()
    when: str | None = None
    unless: str | None = None

    def __str__(self) -> str:
        guard = f" [{self.when}]" if self.when else f" [not {self.unless}]" if self.unless else ""
        return f"{self.source} --{self.trigger}{guard}--> {self.target}"


INITIAL = State.FRESH

FRESH, ACTIVE, STALE = State
SUCCEEDED, FAILED, EXPIRED, RESET = Trigger

TABLE: tuple[Row, ...] = (
    Row(FRESH, SUCCEEDED, ACTIVE, ("bind",), when="names_live_session"),
    Row(FRESH, SUCCEEDED, FRESH, (), unless="names_live_session"),
    Row(FRESH, FAILED, ACTIVE, ("bind",), when="names_live_session"),
    Row(FRESH, FAILED, FRESH, (), unless="names_live_session"),
    Row(ACTIVE, SUCCEEDED, ACTIVE, ("rebind",)),
    Row(ACTIVE, FAILED, ACTIVE, ("rebind",)),
    Row(FRESH, EXPIRED, STALE, ("mark_dead", "close")),
    Row(ACTIVE, EXPIRED, STALE, ("mark_dead", "close")),
    Row(STALE, RESET, FRESH, ("open",)),
    Row(FRESH, RESET, FRESH, ("close", "open")),
    Row(ACTIVE, RESET, FRESH, ("close", "open")),
)
"""The machine: every legal move, and what it persists.

>>> print(TABLE[0])
fresh --succeeded [names_live_session]--> active
"""
