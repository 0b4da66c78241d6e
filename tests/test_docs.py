"""The documentation is true: every example runs, and the pages are compared with the code that they describe."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fsm
from fsm import errors

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
EXAMPLES = sorted((DOCS / "examples").glob("*.py"))
PAGES = sorted(path for path in DOCS.rglob("*.md") if not path.relative_to(DOCS).parts[0].startswith("_"))
README = ROOT / "README.md"
GUARANTEES = [f"G{number}" for number in (*range(1, 17), 22, 23)]


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def run(script: str, folder: Path) -> str:
    """Run a script in an empty folder, as a reader would, and return its output."""
    path = folder / "script.py"
    path.write_text(script, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
    done = subprocess.run(
        [sys.executable, path.name], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(path), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_prints_what_its_page_shows(example: Path, tmp_path: Path) -> None:
    assert run(text_of(example), tmp_path) == text_of(example.with_suffix(".txt"))


@pytest.mark.parametrize("number", range(len(blocks(README, "python"))))
def test_a_python_block_of_the_readme_runs_as_written(number: int, tmp_path: Path) -> None:
    assert run(blocks(README, "python")[number], tmp_path)


def test_the_readme_says_what_its_example_prints(tmp_path: Path) -> None:
    (example,) = blocks(README, "python")
    assert run(example, tmp_path) in blocks(README, "text")


def test_the_readme_and_the_reference_show_the_diagram_for_light_and_dark() -> None:
    shown = re.findall(r"_static/[\w-]+\.svg", text_of(README) + text_of(DOCS / "reference" / "machine.md"))
    assert set(shown) == {"_static/machine-light.svg", "_static/machine-dark.svg"}
    assert all((DOCS / name).exists() for name in shown)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(DOCS)))
def test_the_python_of_a_page_is_included_from_a_script_that_runs(page: Path) -> None:
    assert not blocks(page, "python")
    assert not blocks(page, "{code-block} python")
    for included in re.findall(r"^```\{literalinclude\} (.*)$", text_of(page), flags=re.MULTILINE):
        target = (page.parent / included).resolve()
        assert target.parent.name == "_generated" or target.exists(), included
    for included, begin, end in re.findall(
        r"^```\{literalinclude\} (.*)\n(?::.*\n)*:start-after: \"(.*)\"\n:end-before: \"(.*)\"$",
        text_of(page),
        flags=re.MULTILINE,
    ):
        script = text_of((page.parent / included).resolve())
        assert script.count(f"{begin}\n") == script.count(f"{end}\n") == 1, (included, begin)


def test_every_example_is_shown_somewhere() -> None:
    shown = "".join(text_of(page) for page in PAGES)
    assert [path.name for path in EXAMPLES if f"examples/{path.name}" not in shown] == []


def test_every_page_can_be_reached_from_the_first() -> None:
    seen, ahead = set(), [DOCS / "index.md"]
    while ahead:
        page = ahead.pop()
        seen.add(page)
        for tree in re.findall(r"^```\{toctree\}\n(.*?)^```$", text_of(page), flags=re.MULTILINE | re.DOTALL):
            names = [line for line in tree.splitlines() if line and not line.startswith(":")]
            ahead += [(page.parent / f"{name}.md").resolve() for name in names]
    assert seen == set(PAGES)


@pytest.mark.parametrize("page", [README, ROOT / "CONTRIBUTING.md"], ids=lambda path: path.name)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]*)", text_of(page)):
        assert (page.parent / target).exists(), target


def test_the_readme_and_the_reference_list_every_guarantee_once_in_order() -> None:
    assert re.findall(r"^\| \*\*(G\d+)\*\* \|", text_of(README), flags=re.MULTILINE) == GUARANTEES
    reference = text_of(DOCS / "reference" / "guarantees.md")
    assert re.findall(r"^## (G\d+)\b", reference, flags=re.MULTILINE) == GUARANTEES


def test_the_reference_lists_the_log_events_that_the_code_logs() -> None:
    logged = set()
    for path in [*(ROOT / "fsm").rglob("*.py"), *(ROOT / "persistence").rglob("*.py")]:
        for level, event in re.findall(
            r"LOGGER\.(debug|info|warning|error|exception)\(\s*\"([a-z_.]+)\"", text_of(path)
        ):
            logged.add((event, "error" if level == "exception" else level))
    table = re.findall(
        r"^\| `([a-z_]+\.[a-z_]+)` \| (\w+) \|", text_of(DOCS / "reference" / "logging.md"), re.MULTILINE
    )
    assert set(table) == logged


def test_the_reference_lists_every_table_and_column() -> None:
    models = importlib.import_module("persistence.schema")
    page = text_of(DOCS / "reference" / "storage.md")
    for model in models.TABLES:
        _, heading, rest = page.partition(f"\n### `{model._meta.table_name}`\n")
        assert heading, model
        section = rest.partition("\n### ")[0].partition("\n## ")[0]
        listed = re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE)
        assert listed == [field.column_name for field in model._meta.sorted_fields]


def test_the_reference_documents_every_public_name() -> None:
    page = text_of(DOCS / "reference" / "api.md")
    page += text_of(DOCS / "reference" / "machine.md")
    documented = set(re.findall(r"^\.\. auto\w+:: fsm\.(?:\w+\.)?(\w+)(?:\(\))?$", page, flags=re.MULTILINE))
    assert "../_generated/errors.md" in page
    assert set(fsm.__all__) <= documented | set(errors.__all__)


@pytest.mark.parametrize("page", [*PAGES, README, ROOT / "CONTRIBUTING.md"], ids=lambda path: path.name)
def test_every_module_and_file_that_a_page_names_exists(page: Path) -> None:
    named = re.findall(r"(?<![\w/.])(?:fsm|persistence|tests|docs)/[\w/]*(?:/|\w\.\w+)(?![\w/*])", text_of(page))
    assert [name for name in named if not (ROOT / name).exists()] == []
    for name in re.findall(r"(?<![\w/.])(?:fsm|persistence)(?:\.\w+)+(?![\w/.*])", text_of(page)):
        assert resolves(name), name


def resolves(name: str) -> bool:
    """Return whether a dotted name leads to a module, or to an attribute in one."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            if not hasattr(found, part):
                return part in getattr(found, "__annotations__", {})
            found = getattr(found, part)
        return True
    return False


def test_the_first_line_of_the_readme_example_is_the_documented_import() -> None:
    (example,) = blocks(README, "python")
    assert example.startswith("from fsm import SessionManager\n")
    assert len([line for line in example.splitlines() if line.strip()]) <= 10


def test_no_page_names_a_machine() -> None:
    forbidden = re.compile(r"(?<![\w/:.])/(?:home|root|Users|work|tmp|opt)/|localhost:\d|127\.0\.0\.1")
    for page in (*PAGES, README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"):
        assert not forbidden.search(text_of(page)), page
