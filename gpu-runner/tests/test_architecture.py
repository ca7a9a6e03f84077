"""Folders of the package stand in layers, and imports run downward."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "yaqa_runner"
# Lower numbers stand lower. A module imports from its own folder and from lower layers only.
LAYERS = {
    "config": 0,
    "machine": 0,
    "monitor": 0,
    "wire_model": 0,
    "version": 0,
    "grids": 0,
    "protocol": 1,
    "rounding": 1,
    "model": 2,
    "calibration": 3,
    "formats": 3,
    "sketches": 4,
    "evaluate": 4,
    "allocation": 5,
    "pipeline": 6,
    "remote": 6,
    "api": 7,
    "__init__": 8,
    "cli": 9,
    "__main__": 10,
}
MATHEMATICS = ("grids", "rounding", "sketches", "allocation")
ROUNDING = {"linalg": 0, "kernels": 1}
"""Within ``rounding``: products and factors, then the compiled loops, then the algorithms."""

LONGEST_FUNCTION = 80
SAYS_WHY_IT_IS_LONG = re.compile(r"\bLong, since\s")


def modules() -> dict[str, Path]:
    """Every module's dotted name below the package, and its file."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return found


MODULES = modules()


def imported_modules(node: ast.AST) -> list[str]:
    """Dotted names that an import statement may load; none of any other node."""
    if isinstance(node, ast.Import):
        return [name.name for name in node.names]
    if isinstance(node, ast.ImportFrom):
        module = node.module or ""
        return [module, *(f"{module}.{name.name}" for name in node.names)]
    return []


def imports_of(path: Path) -> set[str]:
    """The package's modules that ``path`` imports, at any depth, but for those it needs for types alone."""
    found = {
        module for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) for module in imported_modules(node)
    }
    names = {name.partition(".")[2] or "__init__" for name in found if name.split(".")[0] == "yaqa_runner"}
    return {name for name in names if name in MODULES}


IMPORTS = {name: imports_of(path) - {name} for name, path in MODULES.items()}


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from ``def`` to the end, but for the docstring's: what is explained at length is no long function."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def folder_of(name: str) -> str:
    return name.partition(".")[0]


def test_every_folder_has_its_place_in_the_layers() -> None:
    assert {folder_of(name) for name in MODULES} - set(LAYERS) == set()


def test_modules_import_downward_only() -> None:
    wrong = [
        f"{name} → {imported}"
        for name, imports in IMPORTS.items()
        for imported in imports
        if folder_of(name) != folder_of(imported) and LAYERS[folder_of(imported)] >= LAYERS[folder_of(name)]
    ]
    assert sorted(wrong) == []


def test_the_mathematics_knows_no_protocol() -> None:
    wrong = [
        f"{name} → {imported}"
        for name, imports in IMPORTS.items()
        for imported in imports
        if folder_of(name) in MATHEMATICS and folder_of(imported) in ("protocol", "cli", "remote", "pipeline")
    ]
    assert sorted(wrong) == []


def test_kernels_know_no_algorithm_and_linear_algebra_knows_no_kernel() -> None:
    def place(name: str) -> int:
        parts = name.split(".")
        return ROUNDING.get(parts[1], 2) if len(parts) > 1 else 2

    wrong = [
        f"{name} → {imported}"
        for name, imports in IMPORTS.items()
        for imported in imports
        if folder_of(name) == folder_of(imported) == "rounding" and place(imported) > place(name)
    ]
    assert sorted(wrong) == []


def test_no_stage_imports_what_lists_the_stages() -> None:
    wrong = [
        name for name, imports in IMPORTS.items() if folder_of(name) == "pipeline" and "pipeline.run_job" in imports
    ]
    assert wrong == []


def test_imports_go_in_no_circle() -> None:
    assert list(TopologicalSorter(IMPORTS).static_order())


def test_functions_are_short_or_say_why_not() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)}: {node.name} has {length} lines"
        for path in sorted(MODULES.values())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if (length := lines_of(node)) > LONGEST_FUNCTION
        and not SAYS_WHY_IT_IS_LONG.search(ast.get_docstring(node) or "")
    ]
    assert wrong == [], "split it, or say in its docstring why it is one piece: 'Long, since …'"


def test_no_test_file_imports_another() -> None:
    tests = Path(__file__).parent
    wrong = [
        f"{path.name} → {module}"
        for path in sorted(tests.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for module in imported_modules(node)
        if any(part.startswith("test_") for part in module.split("."))
    ]
    assert wrong == [], "what tests share belongs into a module that is no test, such as tiny_jobs.py"


@pytest.mark.parametrize("heavy", ["torch", "numpy", "pydantic", "transformers"])
def test_the_package_itself_imports_nothing_heavy(heavy: str) -> None:
    import subprocess
    import sys

    script = f"import sys, yaqa_runner; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
