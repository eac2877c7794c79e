"""What an exporter is: a name, a file suffix, and `write(report, out, look)`.

One file in this folder per format, found by its name; `report RUN --to NAME` appears by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, Any

from msgspec import Struct

from perfkit.findings import Report

WIDTH_DEFAULT = 80


class Look(Struct, frozen=True):
    """How the reader wants to see it; formats for machines ignore it."""

    width: int = WIDTH_DEFAULT
    colour: bool = False
    verbose: bool = False


class Exporter(Struct, frozen=True):
    """One format. `out` is a binary stream where `binary` is set, else a text stream."""

    name: str
    suffix: str
    binary: bool
    write: Callable[[Report, IO[Any], Look], None]
