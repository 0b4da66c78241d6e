"""The configuration of Sphinx, and the parts of the documentation that are generated from the code.

Before Sphinx reads the first page, :func:`generate` writes ``docs/_generated``. It holds the state table, the
lists of errors and providers, the help of the command line, and the tests that cite each guarantee.
"""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import ModuleType

import attrs
from docutils.nodes import Element
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError
from sphinx.util.nodes import make_refnode

HERE = Path(__file__).parent
ROOT = HERE.parent
GENERATED = HERE / "_generated"

sys.path.insert(0, str(ROOT))

project = "conversation-fsm"
author = "conversation-fsm contributors"
project_copyright = "conversation-fsm contributors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.doctest", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "_generated"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "conversation-fsm"

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_use_rtype = False
python_use_unqualified_type_names = True

# The examples in docstrings run with the tests, each in its own module; here only those of the pages do.
doctest_test_doctest_blocks = ""

# No inventory of another project is fetched: the build needs no network.
nitpick_ignore_regex = [
    ("py:.*", r"(collections|contextlib|datetime|enum|types|typing)\..*"),
    ("py:.*", r"(Any|AbstractContextManager|Callable|Collection|Iterator|AsyncIterator|Mapping|Sequence|Literal|Self)"),
    ("py:.*", r"(anthropic|hypothesis|transitions)\..*"),
    ("py:.*", r"(datetime|timedelta|optional|LookupError|ValueError|Exception|StrEnum|Protocol|TracebackType)"),
    ("py:class", r"ClaudeAgentOptions"),  # of an extra
    ("py:class", r"fsm\.testing\.linearize\.S"),  # a type variable
]


def generate(app: Sphinx) -> None:
    """Write the generated files, which the pages include."""
    GENERATED.mkdir(exist_ok=True)
    diagrams = _module("fsm.diagrams", "the state table")
    pages = {
        "state-table.md": diagrams.to_markdown(),
        "errors.md": _autodoc("autoexception", "fsm", _module("fsm.errors", "the errors").__all__),
        "providers.md": _autodoc("autoclass", "fsm.providers", _module("fsm.providers", "the providers").__all__),
        "cli.md": _command_line(),
        "tests.md": _tests_by_guarantee(),
    }
    for name, text in pages.items():
        _write(GENERATED / name, text.rstrip() + "\n")


def _write(path: Path, text: str) -> None:
    """Write a file if it would change, so that a second build has nothing to do."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def _module(name: str, what: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ExtensionError(f"{what} can't be generated: {name} can't be imported ({error})") from error


def _autodoc(directive: str, module: str, names: list[str]) -> str:
    members = "   :members:\n" if directive == "autoclass" else "   :show-inheritance:\n"
    entries = "\n".join(f".. {directive}:: {module}.{name}\n{members}" for name in names)
    return f"```{{eval-rst}}\n{entries}```\n"


def _command_line() -> str:
    """Return the help of each command, as the command line prints it."""
    overall = _help()
    commands = re.findall(r"^  ([a-z]+) ", overall.partition("Commands:")[2], flags=re.MULTILINE)
    if not commands:
        raise ExtensionError("the help of 'python -m fsm' lists no commands, so the reference can't be generated")
    parts = [f"```text\n{overall}```\n"]
    for command in commands:
        text = _help(command).partition("\n  Exit codes:")[0].rstrip()  # they are the same for all
        parts.append(f"## `{command}`\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def _help(*command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "TERM": "dumb"}
    done = subprocess.run(
        [sys.executable, "-m", "fsm", *command, "--help"],
        env=environment,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ExtensionError(f"the help of the command line can't be generated: {done.stderr.strip()}")
    return done.stdout.replace("python -m fsm", "conversation-fsm")


NUMBERS = (*range(1, 17), 22, 23)
"""The numbers of the guarantees."""


def _tests_by_guarantee() -> str:
    """Return a table with the tests whose name or docstring cites the number of each guarantee."""
    tests: dict[int, list[str]] = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for name, text in _tests(path):
            for number in sorted({int(digits) for digits in re.findall(r"(?<![a-z0-9])g(\d+)(?!\d)", text.lower())}):
                tests[number].append(f"`{path.relative_to(ROOT)}` · `{name}`")
    rows = [f"| **G{number}** | {'<br>'.join(tests[number]) or 'no test cites it yet'} |" for number in NUMBERS]
    return "\n".join(["| guarantee | tests that cite it |", "|---|---|", *rows])


def _tests(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the name of each test in a file, and the text in which citations are looked for."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        is_test = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test")
        if is_test or (isinstance(node, ast.ClassDef) and "Test" in node.name):
            yield node.name, f"{node.name.replace('_', ' ')} {ast.get_docstring(node) or ''}"


def _no_inline_type(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Keep napoleon from reading ``Cut off: an exception`` in an attribute's docstring as its type and a text."""
    if what in {"attribute", "data", "property"}:
        lines[:0] = ["..", ""]  # an empty comment: a first line without a colon


def _signature(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str | None, returned: str | None
) -> tuple[str, str | None] | None:
    """Return the signature that a caller writes: none for an enumeration, with default values for a class of attrs."""
    if isinstance(obj, type) and issubclass(obj, Enum):
        return "", returned
    if not isinstance(obj, type) or not attrs.has(obj) or signature is None:
        return None
    defaults = {field.name: field.default for field in attrs.fields(obj)}
    written = re.sub(r"attr_dict\['(\w+)'\]\.default", lambda match: repr(defaults[match[1]]), signature)
    return written.replace("NOTHING", "...").replace("~typing.", ""), returned


def _resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: Element) -> Element | None:
    """Resolve a name that a docstring gives relative to its module, such as ``ContextWindow.select``."""
    target = node["reftarget"]
    if node["refdomain"] != "py":
        return None
    for module in ("fsm", "fsm.events", "fsm.store", "fsm._core.decisions", "fsm._core.table"):
        found = env.domains["py"].objects.get(f"{module}.{target}")
        if found is not None:
            return make_refnode(app.builder, node["refdoc"], found.docname, found.node_id, [content])
    return None


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", generate)
    app.connect("autodoc-process-docstring", _no_inline_type, priority=400)
    app.connect("autodoc-process-signature", _signature)
    app.connect("missing-reference", _resolve)
