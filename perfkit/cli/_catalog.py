"""The commands as the help shows them, read from their files without importing these.

Importing typer, which every command's options need, takes half of the 150 ms that
`perfkit --help` may take; reading five small files takes 5 ms, and works without typer too.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

from perfkit import discover

PACKAGE = "perfkit.cli"
_NAME = "COMMAND"


class Entry(NamedTuple):
    """One command; `examples` are (command line, what it does), shown first in the help."""

    name: str
    group: str
    summary: str
    examples: tuple[tuple[str, str], ...] = ()


def read_catalog() -> list[Entry]:
    """Every command, by group and name."""
    folder = Path(__file__).parent
    found = [_read_entry(folder / f"{name}.py") for name in discover.names(PACKAGE)]
    return sorted(
        (entry for entry in found if entry is not None), key=lambda one: (one.group, one.name)
    )


def _read_entry(path: Path) -> Entry | None:
    for statement in ast.parse(path.read_bytes()).body:
        match statement:
            case ast.Assign(
                targets=[ast.Name(id=name)], value=ast.Call(args=[first], keywords=keywords)
            ) if name == _NAME:
                told = {one.arg: one.value for one in keywords if one.arg in Entry._fields}
                literals = {str(key): ast.literal_eval(value) for key, value in told.items()}
                return Entry(ast.literal_eval(first), **literals)
            case _:
                continue
    return None
