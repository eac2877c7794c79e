"""What an exporter is: a name, a file suffix, and `write(report or profile, out, look)`.

One file in this folder per format, found by its name; `report RUN --to NAME` appears by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, Any, Literal

from msgspec import Struct

WIDTH_DEFAULT = 80


class Look(Struct, frozen=True):
    """How the reader wants to see it; formats for machines ignore it.

    `picture` is the flame graph of the same run that lies beside the file to be written, "" none.
    """

    width: int = WIDTH_DEFAULT
    colour: bool = False
    verbose: bool = False
    picture: str = ""


class Exporter(Struct, frozen=True):
    """One format. `out` is a binary stream where `binary` is set, else a text stream.

    `of` is what `write` is given first: the report, or the profile of the Python stacks
    (perfkit.analysis.profile), which stands in the capture and not in the report.
    """

    name: str
    suffix: str
    binary: bool
    write: Callable[[Any, IO[Any], Look], None]
    of: Literal["report", "profile"] = "report"
