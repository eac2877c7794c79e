"""File, line and inlined callers of an address, by addr2line or llvm-symbolizer, on request only.

Reading debug sections costs hundreds of us for each address and runs other people's parsers over
an untrusted file, so it is never part of naming functions.
"""

from __future__ import annotations

import re
import shutil
import subprocess

from msgspec import Struct

from perfkit.errors import Unavailable

TOOLS = ("llvm-symbolizer", "addr2line")
TIMEOUT_S = 60.0
ADDRESSES_MAX = 10_000
INLINES_MAX = 100
_PLACE = re.compile(r"^(.*?):(\d+)(?::\d+)?(?: \(discriminator \d+\))?$")


class Line(Struct, frozen=True):
    """A place in source text; `line` is 0 where only the file is known."""

    function: str
    file: str
    line: int


def find_tool() -> str:
    """The path of the first tool that is installed.

    Raises: Unavailable, if none is.
    """
    for name in TOOLS:
        found = shutil.which(name)
        if found:
            return found
    raise Unavailable("lines need addr2line (binutils) or llvm-symbolizer, which are not installed")


def read_lines(
    descriptor: int, addresses: list[int], tool: str, timeout_s: float = TIMEOUT_S
) -> list[tuple[Line, ...]]:
    """The places of virtual addresses of an open file, innermost inlined function first.

    Missing: an empty tuple where the file does not tell.
    Raises: Unavailable, if the tool fails or takes too long.
    """
    if len(addresses) > ADDRESSES_MAX:
        raise Unavailable(f"lines of more than {ADDRESSES_MAX} addresses were asked for")
    if not addresses:
        return []
    path = f"/proc/self/fd/{descriptor}"
    style = ["--output-style=GNU"] if tool.endswith("llvm-symbolizer") else []
    command = [tool, *style, "-e", path, "-a", "-f", "-i", "-C"]
    try:
        done = subprocess.run(
            command,
            input="".join(f"{one:#x}\n" for one in addresses).encode(),
            capture_output=True,
            pass_fds=(descriptor,),
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as failed:
        raise Unavailable(f"{tool} failed: {failed}") from failed
    found = parse_lines(done.stdout.decode("utf-8", "backslashreplace"))
    if len(found) != len(addresses):
        reason = done.stderr.decode("utf-8", "backslashreplace").strip()[:200]
        raise Unavailable(f"{tool} did not answer for all addresses: {reason or done.returncode}")
    return found


def parse_lines(text: str) -> list[tuple[Line, ...]]:
    """What `-a -f -i` prints: an address, then a function and its place, once for each inline."""
    found: list[list[Line]] = []
    function = ""
    for row in text.splitlines():
        if re.fullmatch(r"0x[0-9a-f]+", row):
            found.append([])
            function = ""
        elif not function:
            function = row
        elif found:
            place = _PLACE.match(row)
            file, number = (place[1], int(place[2])) if place else (row, 0)
            is_known = not file.startswith("??") and row.strip()
            if is_known and len(found[-1]) < INLINES_MAX:
                found[-1].append(Line(function, file, number))
            function = ""
    return [tuple(one) for one in found]
