"""What ARCHITECTURE promises of the code: no circles between rooms, no long functions, no second names."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import coprune

ROOT = Path(coprune.__file__).parent
MODULES = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in ROOT.rglob("*.py")}
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


def room_of(module: str) -> str:
    """The folder of a module, or a module that stands by itself."""
    return module.partition(".")[0]


def imported(tree: ast.Module) -> set[str]:
    """Modules of ours that are imported at any time, but for types alone."""
    typing = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in typing and node.module:
            module = node.module.removeprefix("coprune").removeprefix(".")
            if node.module.startswith("coprune"):
                found |= {f"{module}.{alias.name}".strip(".") for alias in node.names} | {module}
    return {name for name in found if name in MODULES or f"{name}.__init__" in MODULES} - {""}


def test_rooms_have_no_circles():
    needs: dict[str, set[str]] = {}
    for name, tree in TREES.items():
        others = {room_of(other) for other in imported(tree)} - {room_of(name)}
        needs.setdefault(room_of(name), set()).update(others)
    assert len(needs) > 20
    graphlib.TopologicalSorter(needs).prepare()  # raises a CycleError that names them


def test_functions_fit_on_a_page():
    long = []
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                first = node.body[0]
                is_text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
                told = first.end_lineno - first.lineno + 1 if is_text else 0
                if node.end_lineno - node.lineno + 1 - told > 70:
                    long.append(f"{name}.{node.name}")
    assert long == []


def test_names_are_the_fields():
    words = re.compile(r"utils|helper|manager|lockstep|visits|looking|told", re.IGNORECASE)
    assert [name for name in MODULES if words.search(name)] == []


@pytest.mark.parametrize("words", [["--help"], ["prune", "--help"], ["prune", "--methd", "cosep"]])
def test_help_and_mistypes_need_no_torch(words):
    code = (
        "import sys\nfrom coprune.cli.main import main\n"
        f"sys.argv = ['coprune', *{words!r}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules, 'torch'\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
