"""The project's own source, as syntax trees, for the tests that hold it to its rules."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "perfkit"


@cache
def read_modules() -> dict[str, ast.Module]:
    """Every module of the package by its dotted name; `collectors` is seen through its link."""
    return {to_name(path): ast.parse(path.read_bytes(), str(path)) for path in list_files()}


def list_files() -> list[Path]:
    """Every Python file of the package, sorted."""
    folders = (PACKAGE, PACKAGE / "collectors")
    found = {path for folder in folders for path in folder.rglob("*.py")}
    return sorted(path for path in found if "__pycache__" not in path.parts)


def to_name(path: Path) -> str:
    """The dotted name of a module's file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def list_imports(name: str, tree: ast.Module) -> Iterator[tuple[str, int]]:
    """What a module imports, dotted, at whatever depth, with the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: imports are absolute"
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno
