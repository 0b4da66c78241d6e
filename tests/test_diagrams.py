"""The diagrams tell the table, the whole table, and can be read by the tools they are for."""

import re
import shutil
import subprocess

import pytest

from fsm.diagrams import to_dot, to_markdown, to_mermaid, to_promela, to_tla
from fsm.errors import InvalidTable
from fsm.machine import Cursor
from fsm.states import INITIAL, TABLE, Row, State, Trigger

ARROWS = sorted((row.source.value, row.target.value, row.trigger.value) for row in TABLE)


def test_mermaid_has_one_arrow_for_each_row_and_one_into_the_initial_state() -> None:
    header, start, *lines = to_mermaid().splitlines()
    assert header == "stateDiagram-v2"
    assert start.split() == ["[*]", "-->", INITIAL.value]
    # mermaid ends a label at ';' and takes a second ':' for another one
    found = [re.fullmatch(r" {4}(\w+) --> (\w+): (\w+)[^:;\n]*", line) for line in lines]
    assert sorted(match.groups() for match in found if match) == ARROWS


def test_dot_has_one_arrow_for_each_row() -> None:
    found = re.findall(r'^    (\w+) -> (\w+) \[label="(\w+)[^"]*"\];$', to_dot(), re.MULTILINE)
    assert sorted(found) == ARROWS


@pytest.mark.skipif(shutil.which("dot") is None, reason="graphviz is not installed")
def test_graphviz_reads_the_dot_text() -> None:
    drawn = subprocess.run(
        ["dot", "-Tplain"], input=to_dot(), capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert drawn.count("\nedge ") == len(TABLE) + 1


def test_markdown_has_one_line_for_each_row_in_order() -> None:
    _, rule, *lines = to_markdown().splitlines()
    assert rule == "|---|---|---|---|---|"
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [(row[0], row[1], row[3]) for row in cells] == [
        (row.source.value, row.trigger.value, row.target.value) for row in TABLE
    ]
    assert all(len(row) == 5 and all(row) for row in cells)


def test_markdown_tells_guards_and_effects_in_the_words_of_the_methods() -> None:
    bind, nothing = to_markdown(TABLE[:2]).splitlines()[2:]
    assert "if the result names a session" in bind
    assert "hold the session that the result names" in bind
    assert "unless the result names a session" in nothing
    assert "nothing about the session" in nothing


def test_every_guard_and_effect_of_the_table_has_words() -> None:
    for row in TABLE:
        for name in (row.when, row.unless):
            assert name is None or getattr(Cursor, name).__doc__.startswith("Guard: ")
        for name in row.effects:
            assert getattr(Cursor, name).__doc__.startswith("Effect: ")


def test_a_table_of_ones_own_is_drawn_even_if_its_methods_say_nothing() -> None:
    class Silent:
        def drop_it(self) -> None: ...

    table = [Row(State.FRESH, Trigger.RESET, State.FRESH, ("drop_it",))]
    assert "drop it" in to_markdown(table, Silent)
    assert "fresh --> fresh: reset / drop_it" in to_mermaid(table)


def test_the_same_table_gives_the_same_text() -> None:
    assert (to_mermaid(), to_dot(), to_markdown()) == (to_mermaid(TABLE), to_dot(TABLE), to_markdown(TABLE))


def test_the_models_have_one_choice_for_each_row() -> None:
    for row in TABLE:
        assert to_promela().count(f"/* {row} */") == 1
        assert to_tla().count(f"\\* {row}\n") == 1
    assert to_promela().count("  :: state == ") == len(TABLE)
    assert to_tla().count(" d.state = ") == len(TABLE)


def test_the_models_do_what_the_rows_say() -> None:
    row = Row(State.ACTIVE, Trigger.EXPIRED, State.STALE, ("bury", "close"), when="names_live_session")
    guard = "state == ACTIVE && trigger == EXPIRED && names_live_session(n)"
    assert f":: {guard} -> bury(n); close(n); state = STALE " in to_promela([row])
    guard = 'd.state = "active" /\\ trigger = "expired" /\\ names_live_session(d, n)'
    assert f'CASE {guard} -> [close(bury(d, n), n) EXCEPT !.state = "stale"]' in to_tla([row])


def test_the_models_know_which_rows_they_can_not_tell() -> None:
    table = [Row(State.FRESH, Trigger.RESET, State.FRESH, ("drop_it",))]
    for generate in (to_promela, to_tla):
        with pytest.raises(InvalidTable, match=r"fresh --reset--> fresh.*'drop_it'"):
            generate(table)


def test_the_wrong_models_differ_from_the_right_one_where_they_are_wrong() -> None:
    for generate in (to_promela, to_tla):
        right, stores, heals = (
            set(generate(bug=bug).splitlines()) for bug in (None, "store_id_from_error", "unbounded_healing")
        )
        assert all("expired" in line.lower() for line in right ^ stores)
        assert len(right ^ heals) == 2
        assert len({generate(workers=n, messages=n, sessions=n) for n in (1, 2, 3)}) == 3


def test_the_same_table_gives_the_same_models() -> None:
    assert (to_promela(), to_tla()) == (to_promela(TABLE), to_tla(TABLE))
