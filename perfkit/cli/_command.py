"""What a command is: a name, its place in the help, and the function that carries it out.

One file in this folder per command, found by its name; the function takes what typer parses and
gives the exit code. Heavy imports stand inside it. All but `run` are literals: `_catalog.py` reads
them for the help without importing the file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Command(NamedTuple):
    """One command. `examples` are (command line, what it does), shown first in the help."""

    name: str
    group: str
    summary: str
    run: Callable[..., int]
    examples: tuple[tuple[str, str], ...] = ()
