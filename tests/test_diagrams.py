"""The diagrams and models contain every row of the table, and the tools that they are for can read them."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import get_args
from xml.etree import ElementTree

import pytest

from fsm._core.builder import Builder
from fsm._core.table import INITIAL, TABLE, Row, State, Trigger
from fsm.diagrams import Theme, to_dot, to_markdown, to_mermaid, to_svg
from fsm.errors import InvalidInput, InvalidTable
from fsm.testing.models.specifications import to_promela, to_tla

PAIRS = sorted({(row.source.value, row.target.value) for row in TABLE})
TRIGGERS = sorted((row.source.value, row.target.value, row.trigger.value) for row in TABLE)

SVG = "{http://www.w3.org/2000/svg}"
STATIC = Path(__file__).parents[1] / "docs" / "_static"


def triggers(arrows: list[tuple[str, str, str]], between: str) -> list[tuple[str, str, str]]:
    """Return the triggers in the labels of arrows, each with the states before and after."""
    return sorted(
        (source, target, trigger)
        for source, target, label in arrows
        for line in label.split(between)
        for trigger in re.split(r" [\[/]", line)[0].split(", ")
    )


def test_mermaid_has_one_arrow_for_each_pair_of_states_and_all_rows_in_their_labels() -> None:
    header, start, *lines = to_mermaid().splitlines()
    assert header == "stateDiagram-v2"
    assert start.split() == ["[*]", "-->", INITIAL.value]
    # mermaid ends a label at ';' and takes a second ':' for another one
    found = [re.fullmatch(r" {4}(\w+) --> (\w+): ([^:;\n]*)", line) for line in lines]
    arrows = [match.group(1, 2, 3) for match in found if match]
    assert sorted(arrow[:2] for arrow in arrows) == PAIRS
    assert triggers(arrows, "<br/>") == TRIGGERS


def test_dot_has_one_arrow_for_each_pair_of_states_and_all_rows_in_their_labels() -> None:
    found = re.findall(r'^    (\w+) -> (\w+) \[label="([^"]*)"\];$', to_dot(), re.MULTILINE)
    assert sorted(arrow[:2] for arrow in found) == PAIRS
    assert triggers(found, r"\n") == TRIGGERS


@pytest.mark.skipif(shutil.which("dot") is None, reason="graphviz is not installed")
def test_graphviz_reads_the_dot_text() -> None:
    drawn = subprocess.run(
        ["dot", "-Tplain"], input=to_dot(), capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert drawn.count("\nedge ") == len(PAIRS) + 1


@pytest.mark.parametrize("theme", get_args(Theme))
def test_the_drawing_has_one_arrow_for_each_pair_of_states_and_all_rows_in_its_labels(theme: Theme) -> None:
    root = ElementTree.fromstring(to_svg(theme=theme))
    assert len(root.findall(f".//{SVG}g[@marker-end]/{SVG}path")) == len(PAIRS)
    told = (root.findtext(f"{SVG}desc") or "").split("; ")
    labels = [label.partition(": ") for label in told]
    assert sorted(tuple(pair.split(" to ")) for pair, _, _ in labels) == PAIRS
    lines = [span.text for text in root.findall(f"{SVG}text") for span in text]
    assert sorted(re.findall(r"\w+", " ".join(filter(None, lines)))) == sorted(
        re.findall(r"\w+", " ".join(label for _, _, label in labels))
    )
    shown = [trigger for line in lines if line and line[0] not in "[/" for trigger in line.split(", ")]
    assert sorted(shown) == sorted(trigger for _, _, trigger in TRIGGERS)


@pytest.mark.parametrize("theme", get_args(Theme))
def test_the_drawing_in_the_documentation_is_this_one(theme: Theme) -> None:
    """After a change of the table, write both files again with ``conversation-fsm diagram --format svg --theme …``."""
    assert (STATIC / f"machine-{theme}.svg").read_text(encoding="utf-8") == to_svg(theme=theme)


def test_a_theme_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InvalidInput, match="theme is 'pink'; it must be one of light, dark"):
        to_svg(theme="pink")  # type: ignore[arg-type]  # what a caller may pass


def test_every_two_states_have_a_place_for_an_arrow() -> None:
    table = [Row(source, Trigger.RESET, target) for source in State for target in State]
    root = ElementTree.fromstring(to_svg(table))
    paths = [path.get("d") for path in root.findall(f".//{SVG}g[@marker-end]/{SVG}path")]
    assert len(set(paths)) == len(table) == 9


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
            assert name is None or getattr(Builder, name).__doc__.startswith("Guard: ")
        for name in row.effects:
            assert getattr(Builder, name).__doc__.startswith("Effect: ")


def test_a_custom_table_is_drawn_even_if_its_methods_have_no_docstrings() -> None:
    class Silent:
        def drop_it(self) -> None: ...

    table = [Row(State.FRESH, Trigger.RESET, State.FRESH, effects=("drop_it",))]
    assert "drop it" in to_markdown(table, Silent)
    assert "fresh --> fresh: reset / drop it" in to_mermaid(table)


def test_the_same_table_gives_the_same_text() -> None:
    assert (to_mermaid(), to_dot(), to_markdown()) == (to_mermaid(TABLE), to_dot(TABLE), to_markdown(TABLE))


def test_the_models_have_one_choice_for_each_row() -> None:
    for row in TABLE:
        assert to_promela().count(f"/* {row} */") == 1
        assert to_tla().count(f"\\* {row}\n") == 1
    assert to_promela().count("  :: state == ") == len(TABLE)
    assert to_tla().count(" d.state = ") == len(TABLE)


def test_the_models_do_what_the_rows_say() -> None:
    row = Row(State.ACTIVE, Trigger.EXPIRED, State.STALE, effects=("mark_dead", "close"), when="names_live_session")
    guard = "state == ACTIVE && trigger == EXPIRED && names_live_session(n)"
    assert f":: {guard} -> mark_dead(n); close(n); state = STALE " in to_promela([row])
    guard = 'd.state = "active" /\\ trigger = "expired" /\\ names_live_session(d, n)'
    assert f'CASE {guard} -> [close(mark_dead(d, n), n) EXCEPT !.state = "stale"]' in to_tla([row])


def test_the_models_refuse_rows_with_unknown_effects() -> None:
    table = [Row(State.FRESH, Trigger.RESET, State.FRESH, effects=("drop_it",))]
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


def test_the_drawing_for_graphviz_is_this_one() -> None:
    assert to_dot(TABLE[:2]) == (
        "digraph conversation {\n"
        "    rankdir=LR;\n"
        "    node [shape=box, style=rounded];\n"
        '    start [shape=point, label=""];\n'
        "    fresh;\n"
        "    active;\n"
        "    stale;\n"
        "    start -> fresh;\n"
        '    fresh -> active [label="succeeded [names live session] / bind"];\n'
        '    fresh -> fresh [label="succeeded [not names live session]"];\n'
        "}"
    )
    assert to_dot(TABLE[-1:]).splitlines()[-2] == '    active -> fresh [label="reset / close, open"];'


def test_the_drawing_for_mermaid_names_guards_and_effects() -> None:
    assert to_mermaid([*TABLE[:2], TABLE[-1]]).splitlines()[2:] == [
        "    fresh --> active: succeeded [names live session] / bind",
        "    fresh --> fresh: succeeded [not names live session]",
        "    active --> fresh: reset / close, open",
    ]


def test_the_table_in_words_says_when_each_row_holds_and_what_it_persists() -> None:
    class Worded:
        def sees(self) -> None:
            """Guard: it sees something."""

        def keep(self) -> None:
            """Effect: keep it."""

        def tell(self) -> None:
            """Effect: tell it."""

    table = [
        Row(State.FRESH, Trigger.SUCCEEDED, State.ACTIVE, effects=("keep", "tell"), when="sees"),
        Row(State.FRESH, Trigger.SUCCEEDED, State.FRESH, unless="sees"),
        Row(State.ACTIVE, Trigger.RESET, State.FRESH, effects=("tell",)),
    ]
    assert to_markdown(table, Worded).splitlines() == [
        "| state | trigger | guard | next | what is persisted |",
        "|---|---|---|---|---|",
        "| fresh | succeeded | if it sees something | active | keep it; tell it |",
        "| fresh | succeeded | unless it sees something | fresh | nothing about the session |",
        "| active | reset | always | fresh | tell it |",
    ]


def test_words_are_the_first_line_of_a_docstring_and_fit_into_a_cell() -> None:
    class Wordy:
        def drop(self) -> None:
            """Effect: drop this | that.

            And more about it.
            """

    table = [Row(State.FRESH, Trigger.RESET, State.FRESH, effects=("drop",))]
    assert to_markdown(table, Wordy).splitlines()[-1] == "| fresh | reset | always | fresh | drop this \\| that |"


def test_the_models_are_of_the_size_that_was_asked_for() -> None:
    promela, tla = to_promela(workers=3, messages=4, sessions=5), to_tla(workers=3, messages=4, sessions=5)
    assert "run Worker(1); run Worker(2); run Worker(3);" in promela
    assert "run Worker(0)" not in promela
    assert "run Worker(4)" not in promela
    assert {"Workers == 1..3", "Messages == 4", "Ids == 1..5"} <= set(tla.splitlines())
    for model in (promela, tla):
        assert "None" not in model
        assert "$" not in model
    assert (to_promela(), to_tla()) == tuple(
        generate(workers=2, messages=2, sessions=2) for generate in (to_promela, to_tla)
    )


def test_the_models_name_states_and_triggers_as_the_table_does() -> None:
    promela = to_promela()
    assert "mtype = { FRESH, ACTIVE, STALE };" in promela
    assert "mtype = { SUCCEEDED, FAILED, EXPIRED, RESET };" in promela
    assert "mtype state = FRESH;" in promela
    assert 'c = [state |-> "fresh",' in to_tla()


def test_guards_stand_in_the_models_only_where_rows_have_them() -> None:
    plain, when, unless = (
        Row(State.ACTIVE, Trigger.RESET, State.FRESH, effects=("open",), **guard)
        for guard in ({}, {"when": "names_session"}, {"unless": "names_session"})
    )
    promela, tla = "  :: state == ACTIVE && trigger == RESET{} ->", ' d.state = "active" /\\ trigger = "reset"{} ->'
    for row, in_promela, in_tla in (
        (plain, "", ""),
        (when, " && names_session(n)", " /\\ names_session(d, n)"),
        (unless, " && !names_session(n)", " /\\ ~names_session(d, n)"),
    ):
        assert promela.format(in_promela) in to_promela([row])
        assert f"CASE{tla.format(in_tla)}" in to_tla([row])
    assert "    []" + tla.format(" /\\ names_session(d, n)") in to_tla([plain, when])


def test_a_wrong_model_has_the_bug_that_it_was_asked_for() -> None:
    stores = "fresh --expired [names_session]--> active"
    for generate, heals, limit in (
        (to_promela, "true", "resumed != 0 && !healed"),
        (to_tla, "TRUE", "w[i].resumed # 0 /\\ ~w[i].healed"),
    ):
        assert stores not in generate()
        assert stores in generate(bug="store_id_from_error")
        (right,) = set(generate().splitlines()) - set(generate(bug="unbounded_healing").splitlines())
        (wrong,) = set(generate(bug="unbounded_healing").splitlines()) - set(generate().splitlines())
        assert right.replace(limit, heals) == wrong
