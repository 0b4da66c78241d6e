"""The machine as a specification, for the model checkers spin and TLC.

The transition relation of both models is made from the rows of the table, so that what is checked is the machine that
runs. Around it stand workers that die at any time, a provider that loses sessions at any time and echoes dead ids, and
forced resets (:mod:`fsm.testing.models.specification_texts`). The same arguments give the same text, byte by byte.

Safety: G1, G2, and one open session unless stale. Liveness: every message is answered in the end once faults stop, and
every turn ends whatever the provider does. Two wrong models can be made, and must fail.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import Template
from typing import Literal, TypeAlias

from fsm._core.table import INITIAL, TABLE, Row, State, Trigger
from fsm.errors import InvalidTable
from fsm.testing.models.specification_texts import PROMELA, TLA

__all__ = ["TLA_LIVENESS", "TLA_SAFETY", "Bug", "to_promela", "to_tla"]

Bug: TypeAlias = Literal["store_id_from_error", "unbounded_healing"]
"""How a model can be wrong: the id that came back with an error is stored, or a turn heals again and again."""

TLA_SAFETY = "SPECIFICATION Spec\nINVARIANTS G1 G2 G7\nPROPERTY NeverSent\n"
"""The configuration with which TLC checks that nothing bad happens."""

TLA_LIVENESS = "SPECIFICATION Spec\nPROPERTIES MessagesAnswered TurnsEnd\n"
"""The configuration with which TLC checks that something good happens."""

WORDS = {"names_live_session", "names_session", "bind", "rebind", "store", "mark_dead", "close", "open"}
"""The guards and effects that the models know."""

STORES_THE_ERROR = (
    Row(State.FRESH, Trigger.EXPIRED, State.ACTIVE, effects=("store",), when="names_session"),
    Row(State.FRESH, Trigger.EXPIRED, State.FRESH, unless="names_session"),
    Row(State.ACTIVE, Trigger.EXPIRED, State.ACTIVE, effects=("store",)),
)
"""The rows for an expired session in the wrong model that stores the id from the error."""


def to_promela(
    table: Sequence[Row] = TABLE, *, workers: int = 2, messages: int = 2, sessions: int = 2, bug: Bug | None = None
) -> str:
    """Return the machine and its surroundings in Promela, for spin.

    Args:
        table: the rows.
        workers: how many processes run turns.
        messages: how many messages are to be answered.
        sessions: how many provider session ids there are.
        bug: what to get wrong, or None.

    Returns:
        A model with assertions (safety) and the formulas ``messages_answered`` and ``turns_end`` (liveness).

    Raises:
        InvalidTable: a row names a guard or effect that the models do not know.

    >>> print(*[line.strip() for line in to_promela().splitlines() if "STALE && trigger" in line])
    :: state == STALE && trigger == RESET -> open(n); state = FRESH /* stale --reset--> fresh */
    """
    return Template(PROMELA).substitute(
        workers=workers,
        messages=messages,
        sessions=sessions,
        states=", ".join(state.name for state in State),
        triggers=", ".join(trigger.name for trigger in Trigger),
        initial=INITIAL.name,
        rows="\n".join(_promela(row) for row in _rows(table, bug)),
        heals="true" if bug == "unbounded_healing" else "resumed != 0 && !healed",
        run=" ".join(f"run Worker({number});" for number in range(1, workers + 1)),
    )


def to_tla(
    table: Sequence[Row] = TABLE, *, workers: int = 2, messages: int = 2, sessions: int = 2, bug: Bug | None = None
) -> str:
    """Return the machine and its surroundings in TLA+, for TLC.

    Args:
        table: the rows.
        workers: how many processes run turns.
        messages: how many messages are to be answered.
        sessions: how many provider session ids there are.
        bug: what to get wrong, or None.

    Returns:
        The module ``Conversation``, to be checked with :data:`TLA_SAFETY` and :data:`TLA_LIVENESS`.

    Raises:
        InvalidTable: a row names a guard or effect that the models do not know.

    >>> print(*[line.strip() for line in to_tla().splitlines() if ' d.state = "stale" /' in line])
    [] d.state = "stale" /\\ trigger = "reset" -> [open(d, n) EXCEPT !.state = "fresh"]
    """
    rows = [line for number, row in enumerate(_rows(table, bug)) for line in _tla(row, "[]" if number else "CASE")]
    return Template(TLA).substitute(
        workers=workers,
        messages=messages,
        sessions=sessions,
        initial=INITIAL.value,
        rows="\n".join(rows),
        heals="TRUE" if bug == "unbounded_healing" else "w[i].resumed # 0 /\\ ~w[i].healed",
    )


def _rows(table: Sequence[Row], bug: Bug | None) -> Sequence[Row]:
    for row in table:
        unknown = {*row.effects, row.when, row.unless} - WORDS - {None}
        if unknown:
            raise InvalidTable(f"row «{row}»: the models know no {min(map(str, unknown))!r}")
    if bug != "store_id_from_error":
        return table
    return (*(row for row in table if row.trigger is not Trigger.EXPIRED), *STORES_THE_ERROR)


def _promela(row: Row) -> str:
    guard = f" && {row.when}(n)" if row.when else f" && !{row.unless}(n)" if row.unless else ""
    effects = "".join(f"{name}(n); " for name in row.effects)
    when = f"state == {row.source.name} && trigger == {row.trigger.name}{guard}"
    return f"  :: {when} -> {effects}state = {row.target.name} /* {row} */"


def _tla(row: Row, opening: str) -> tuple[str, str]:
    guard = f" /\\ {row.when}(d, n)" if row.when else f" /\\ ~{row.unless}(d, n)" if row.unless else ""
    moved = "d"
    for name in row.effects:
        moved = f"{name}({moved}, n)"
    when = f'd.state = "{row.source.value}" /\\ trigger = "{row.trigger.value}"{guard}'
    return f"    \\* {row}", f'    {opening} {when} -> [{moved} EXCEPT !.state = "{row.target.value}"]'
