"""Functions that a runtime made while it ran, from the perf-PID.map that it writes.

The file lies in the target's own /tmp and is named by the process number of its own namespace.
Whoever may write there may have written it: it counts only if the target's user or root owns it.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from pathlib import Path

from msgspec import Struct

from perfkit.errors import Unavailable
from perfkit.symbols.files import open_regular, read_text, read_whole

MAP_LIMIT_BYTES = 1 << 26
ROWS_MAX = 1_000_000
NAME_LIMIT = 4_096
_STATUS_LIMIT_BYTES = 1 << 16


class JitSymbols(Struct, frozen=True):
    """Functions by ascending address; `stamp` is the size and time of the file they came from."""

    starts: list[int]
    sizes: list[int]
    names: list[str]
    stamp: tuple[int, int] = (0, 0)


def parse_map(text: str) -> JitSymbols:
    """The rows `START SIZE name` of a map; of two with one start the later one holds.

    Where functions overlap, because code was freed and its room used again, the one that begins
    nearest before an address names it.
    """
    found: dict[int, tuple[int, str]] = {}
    for line in text.split("\n", ROWS_MAX)[:ROWS_MAX]:
        fields = line.split(" ", 2)
        if len(fields) != 3 or not fields[2]:
            continue
        try:
            start, size_bytes = int(fields[0], 16), int(fields[1], 16)
        except ValueError:
            continue
        if 0 <= start < 1 << 64 and 0 < size_bytes < 1 << 32:
            found[start] = (size_bytes, fields[2][:NAME_LIMIT])
    starts = sorted(found)
    return JitSymbols(starts, [found[one][0] for one in starts], [found[one][1] for one in starts])


def read_map(proc: Path, pid: int, known: JitSymbols | None = None) -> JitSymbols:
    """The map of a process, read again only if it has grown or changed.

    Raises: Unavailable, if there is none, or a stranger wrote it.
    """
    inner_pid, uid = _parse_status(read_text(proc / str(pid) / "status", _STATUS_LIMIT_BYTES))
    path = Path(f"/tmp/perf-{inner_pid or pid}.map")
    with open_regular(path, proc / str(pid) / "root") as descriptor:
        found = os.fstat(descriptor)
        if found.st_uid not in (0, uid):
            raise Unavailable(f"{path} belongs to user {found.st_uid}, not to the target's")
        stamp = (found.st_size, found.st_mtime_ns)
        if known is not None and known.stamp == stamp:
            return known
        text = read_whole(descriptor, MAP_LIMIT_BYTES).decode("utf-8", "backslashreplace")
    fresh = parse_map(text)
    return JitSymbols(fresh.starts, fresh.sizes, fresh.names, stamp)


def find_jit(symbols: JitSymbols, address: int) -> tuple[str, int, int] | None:
    """Name, size and offset of the function at an address."""
    index = bisect_right(symbols.starts, address) - 1
    if index < 0 or address - symbols.starts[index] >= symbols.sizes[index]:
        return None
    return symbols.names[index], symbols.sizes[index], address - symbols.starts[index]


def _parse_status(status: str) -> tuple[int, int]:
    """The innermost process number and the effective user, of /proc/PID/status."""
    rows = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    inner = rows.get("NSpid", "").split()[-1:] or ["0"]
    uids = rows.get("Uid", "").split()
    is_known = len(uids) > 1 and uids[1].isdigit() and inner[0].isdigit()
    return (int(inner[0]), int(uids[1])) if is_known else (0, 0)
