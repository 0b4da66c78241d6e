"""The layers: imports point downwards, the core has no I/O, private names stay private, and modules stay small.

``pytest -s tests/test_layers.py`` prints the layers.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
MOST_LINES = 300

LAYERS: Sequence[tuple[str, Sequence[str]]] = (
    ("command line", ("fsm.__main__", "fsm.cli")),
    ("kit", ("fsm.testing",)),
    ("stores", ("persistence",)),
    ("providers", ("fsm.providers",)),
    ("public names", ("fsm",)),
    ("shells", ("fsm.manager", "fsm.aio")),
    ("conversations", ("fsm.conversations",)),
    ("runtime", ("fsm._runtime",)),
    ("interfaces", ("fsm.store", "fsm.provider")),
    ("core", ("fsm._core", "fsm.diagrams")),
    (
        "values",
        (
            *("fsm.reply", "fsm.context", "fsm.records", "fsm.events", "fsm.content", "fsm.errors"),
            *("fsm._core.shortening", "fsm._core.table", "fsm._core.validation"),
        ),
    ),
    ("forks", ("fsm.fork",)),
)
"""The layers from top to bottom, each with its modules; the longest name that fits a module counts."""

PURE = frozenset(
    {
        *("__future__", "abc", "attrs", "collections", "datetime", "enum", "itertools", "json", "logging", "math"),
        *("random", "re", "transitions", "typing"),
    }
)
"""The packages that the core may import. ``random`` is the type of an argument; ``logging`` quiets ``transitions``."""

SHARED: Mapping[str, Sequence[str]] = {
    "fsm.testing": (
        *("fsm._core.decisions", "fsm._core.effects", "fsm._core.table", "fsm._core.turn", "fsm._core.validation"),
        *("fsm._runtime.adapters", "fsm._runtime.engine", "fsm._runtime.presence", "fsm._runtime.scripts"),
        *("fsm._runtime.settings", "fsm._runtime.worker"),
    ),
}
"""The private modules that a package may use: the kit explores the decisions and simulates the engine."""


class Import(NamedTuple):
    """An import.

    Attributes:
        module: the module that imports.
        imported: the module that is imported.
        name: the name that is taken from it, or None.
        is_late: whether it happens in a function, or only for type checkers.
        is_for_types: whether it happens only for type checkers.
    """

    module: str
    imported: str
    name: str | None
    is_late: bool
    is_for_types: bool = False


def modules_of(root: Path) -> dict[str, Path]:
    """Return the modules of the packages ``fsm`` and ``persistence`` below a folder, by their names."""
    found = {}
    for path in sorted(path for package in ("fsm", "persistence") for path in (root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(modules: Mapping[str, Path]) -> Iterator[Import]:
    """Yield the imports of these modules."""
    for module, path in modules.items():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        for node, is_late, is_for_types in statements_of(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (Import(module, alias.name, None, is_late, is_for_types) for alias in node.names)
                continue
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                taken = (inner, None) if inner in modules else (source, alias.name)
                yield Import(module, *taken, is_late, is_for_types)


def statements_of(
    node: ast.AST, is_late: bool = False, is_for_types: bool = False
) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool, bool]]:
    """Yield the import statements below a node; of each, whether it is late, and whether it is for type checkers."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, is_late, is_for_types
        elif isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            yield from statements_of(ast.Module(child.body, []), is_late=True, is_for_types=True)
            yield from statements_of(ast.Module(child.orelse, []), is_late, is_for_types)
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from statements_of(child, is_late or inside, is_for_types)


def layer_of(module: str) -> int | None:
    """Return the number of the layer of a module, counted from the top; None for a module of another package."""
    fitting = [
        (len(prefix), number)
        for number, (_, prefixes) in enumerate(LAYERS)
        for prefix in prefixes
        if module == prefix or (module.startswith(f"{prefix}.") and prefix != "fsm")
    ]
    return max(fitting)[1] if fitting else None


def upward(imports: Sequence[Import]) -> list[str]:
    """Return the imports of a module in a higher layer."""
    found = []
    for each in imports:
        own, other = layer_of(each.module), layer_of(each.imported)
        if own is not None and other is not None and other < own and not each.is_late:
            found.append(f"{each.module} ({LAYERS[own][0]}) imports {each.imported} ({LAYERS[other][0]})")
    return found


def impure(imports: Sequence[Import]) -> list[str]:
    """Return the imports of the core from a package that is not pure, or from a higher layer, also in functions."""
    found = []
    for each in imports:
        own, other = layer_of(each.module), layer_of(each.imported)
        is_foreign = each.imported.partition(".")[0] not in {*PURE, "fsm"}
        is_above = own is not None and other is not None and other < own
        if each.module.startswith("fsm._core") and not each.is_for_types and (is_foreign or is_above):
            found.append(f"{each.module} imports {each.imported}")
    return found


def private(imports: Sequence[Import]) -> list[str]:
    """Return the imports of a private module or name of another package."""
    found = []
    for each in imports:
        names = (*each.imported.split("."), *([each.name] if each.name else []))
        hidden = next((at for at, name in enumerate(names) if name.startswith("_") and not name.endswith("__")), None)
        if hidden is None or names[0] not in {"fsm", "persistence"}:
            continue
        owner = ".".join(names[:hidden])
        inside = each.module == owner or each.module.startswith(f"{owner}.")
        package = ".".join(each.module.split(".")[:2])
        is_guest = owner == "fsm" and package in {"fsm.cli", "fsm.testing", "fsm.providers"}
        if (not inside or is_guest) and each.imported not in SHARED.get(package, ()):
            found.append(f"{each.module} imports {'.'.join(names)}")
    return found


def circular(imports: Sequence[Import]) -> list[str]:
    """Return a circle of imports that happen while modules are loaded, if there is one."""
    graph: dict[str, set[str]] = {}
    for each in imports:
        if not each.is_late and each.imported != each.module and each.imported.partition(".")[0] != "__future__":
            graph.setdefault(each.module, set()).add(each.imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [" imports ".join(reversed(error.args[1]))]
    return []


def too_long(modules: Mapping[str, Path]) -> list[str]:
    """Return the modules with more than 300 lines."""
    lengths = {module: len(path.read_text(encoding="utf-8").splitlines()) for module, path in modules.items()}
    return [f"{module} has {length} lines" for module, length in lengths.items() if length > MOST_LINES]


def picture(modules: Mapping[str, Path]) -> str:
    """Return the layers from top to bottom, each with its modules."""
    rows: dict[int, set[str]] = {}
    for module in modules:
        number = layer_of(module)
        assert number is not None, f"{module} is in no layer; add it to LAYERS"
        prefix = max((name for name in LAYERS[number][1] if module.startswith(name)), key=len)
        rows.setdefault(number, set()).add(prefix)
    return "\n".join(f"{LAYERS[number][0]:>13}  {'  '.join(sorted(names))}" for number, names in sorted(rows.items()))


MODULES = modules_of(ROOT)
IMPORTS = list(imports_of(MODULES))


def test_imports_point_downwards() -> None:
    sys.stdout.write(f"\n{picture(MODULES)}\n")
    assert not upward(IMPORTS), picture(MODULES)


def test_the_core_imports_nothing_that_does_io() -> None:
    assert not impure(IMPORTS), picture(MODULES)


def test_no_package_uses_a_private_name_of_another() -> None:
    assert not private(IMPORTS)


def test_there_is_no_circle_of_imports() -> None:
    assert not circular(IMPORTS)


def test_no_module_is_longer_than_300_lines() -> None:
    assert not too_long(MODULES)


def checked(root: Path, files: Mapping[str, str]) -> dict[str, list[str]]:
    """Write some modules into an empty folder; return what each check finds in them."""
    for name, text in files.items():
        path = root / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    modules = modules_of(root)
    imports = list(imports_of(modules))
    found = {check.__name__: check(imports) for check in (upward, impure, private, circular)}
    return {name: faults for name, faults in {**found, "too_long": too_long(modules)}.items() if faults}


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"fsm/_runtime/engine": "import fsm.manager"}, "upward"),
        ({"fsm/records": "from fsm._core.decisions import begin"}, "upward"),
        ({"fsm/_core/decisions": "import sqlite3"}, "impure"),
        ({"fsm/_core/decisions": "def f():\n    import time"}, "impure"),
        ({"fsm/_core/decisions": "def f():\n    from fsm._runtime import engine"}, "impure"),
        ({"fsm/records": "try:\n    import fsm.manager\nexcept ImportError:\n    pass"}, "upward"),
        ({"fsm/records": "from .manager import SessionManager", "fsm/manager": ""}, "upward"),
        ({"fsm/_runtime/engine": "from .. import manager", "fsm/manager": ""}, "upward"),
        ({"persistence/store": "from fsm._core.effects import Step"}, "private"),
        ({"persistence/store": "from fsm.store import _Place"}, "private"),
        ({"fsm/cli/app": "from fsm._runtime.log import LOGGER"}, "private"),
        ({"fsm/testing/kit": "from fsm._runtime.hops import Hops"}, "private"),
        ({"fsm/store": "import fsm.provider", "fsm/provider": "import fsm.store"}, "circular"),
        ({"fsm/store": "x = 1\n" * 301}, "too_long"),
    ],
)
def test_a_check_finds_its_fault(tmp_path: Path, files: Mapping[str, str], found: str) -> None:
    assert list(checked(tmp_path, files)) == [found]


def test_sound_modules_pass(tmp_path: Path) -> None:
    files = {
        "fsm/manager": "from fsm._runtime.engine import Engine",
        "fsm/_runtime/engine": "from fsm._core import decisions\nimport threading",
        "fsm/_core/decisions": "import attrs\nfrom fsm.records import Conversation",
        "fsm/records": "def f():\n    from fsm.manager import SessionManager",
        "fsm/_core/table": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from fsm._runtime import engine",
        "fsm/testing/explore": "from fsm._core import decisions",
    }
    assert not checked(tmp_path, files)
