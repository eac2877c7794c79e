"""What a command is: a name, its place in the help, and the function that carries it out.

One file in this folder per command, found by its name; the function takes what typer parses and
gives the exit code. Heavy imports stand inside it, and none of these files imports msgspec (50 ms
on a slow core): `perfkit --help` is to answer within 150 ms.
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
