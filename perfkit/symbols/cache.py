"""Symbol files: one function table each, in the user's cache folder or attached to a capture.

A file is a magic, and a zstd frame with a checksum around msgpack. It is never trusted: what does
not hold is as good as no file. Files are written whole or not at all, the folder has a size.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from pathlib import Path

import msgspec
import numpy as np
import zstandard
from msgspec import Struct

from perfkit.errors import Unavailable
from perfkit.symbols.elf import Segment
from perfkit.symbols.files import open_regular, read_whole
from perfkit.symbols.table import SIZE_MAX_BYTES, Origin, Table, to_covers

MAGIC = b"PKSYM\x00\x01\n"
FILE_LIMIT_BYTES = 1 << 28
TABLE_LIMIT_BYTES = 1 << 30
FOLDER_LIMIT_BYTES = 1 << 29
SUFFIX = ".pksym"
_BUILD_ID = re.compile(r"(?:[0-9a-f]{2}){2,64}")


class _Stored(Struct, frozen=True):
    build_id: str
    is_complete: bool
    segments: tuple[Segment, ...]
    starts: bytes
    sizes: bytes
    names: bytes
    origins: bytes
    strings: bytes


def find_folder(environment: dict[str, str]) -> Path | None:
    """Where symbol files lie: $XDG_CACHE_HOME/perfkit/symbols, or below ~/.cache.

    Missing: None where no home directory is known.
    """
    named = Path(environment.get("XDG_CACHE_HOME", ""))
    if named.is_absolute():
        return named / "perfkit" / "symbols"
    home = Path(environment.get("HOME", ""))
    return home / ".cache" / "perfkit" / "symbols" if home.is_absolute() else None


def is_build_id(text: str) -> bool:
    """Whether a text may be used as a build-id, and so in the name of a file."""
    return bool(_BUILD_ID.fullmatch(text))


def to_bytes(table: Table) -> bytes:
    """A function table as a symbol file."""
    stored = _Stored(
        table.build_id,
        table.is_complete,
        table.segments,
        table.starts.astype("<u8").tobytes(),
        table.sizes.astype("<u4").tobytes(),
        table.names.astype("<u4").tobytes(),
        table.origins.astype("u1").tobytes(),
        table.strings,
    )
    packer = zstandard.ZstdCompressor(level=3, write_checksum=True, write_content_size=True)
    return MAGIC + packer.compress(msgspec.msgpack.encode(stored))


def parse_table(raw: bytes) -> Table:
    """A function table from the bytes of a symbol file.

    Raises: Unavailable, if they are anything else.
    """
    if not raw.startswith(MAGIC):
        raise Unavailable("not a symbol file of this version")
    try:
        frame = raw[len(MAGIC) :]
        size_bytes = zstandard.frame_content_size(frame)
        if not 0 < size_bytes <= TABLE_LIMIT_BYTES:
            raise Unavailable(f"symbol file holds more than {TABLE_LIMIT_BYTES} bytes")
        unpacked = zstandard.ZstdDecompressor().decompress(frame)
        stored = msgspec.msgpack.decode(unpacked, type=_Stored)
    except (zstandard.ZstdError, msgspec.MsgspecError, MemoryError) as damaged:
        raise Unavailable("symbol file is damaged") from damaged
    return _check(stored)


def read_cached(folder: Path, build_id: str) -> Table | None:
    """The table of a build-id, if the folder has a sound one."""
    if not is_build_id(build_id):
        return None
    path = folder / f"{build_id}{SUFFIX}"
    try:
        with open_regular(path) as descriptor:
            table = parse_table(read_whole(descriptor, FILE_LIMIT_BYTES))
            os.utime(descriptor)
    except (Unavailable, OSError):
        return None
    return table if table.build_id == build_id else None


def write_cached(folder: Path, table: Table) -> None:
    """Keeps a table for later; a folder that cannot be written to costs only time."""
    raw = to_bytes(table)
    if not is_build_id(table.build_id) or len(raw) > FILE_LIMIT_BYTES:
        return
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(folder / f"{table.build_id}{SUFFIX}", raw)
        trim(folder, FOLDER_LIMIT_BYTES)


def write_atomically(path: Path, raw: bytes) -> None:
    """Writes a file so that nobody sees half of it."""
    descriptor, name = tempfile.mkstemp(prefix=".new-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(raw)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def trim(folder: Path, limit_bytes: int) -> None:
    """Removes the files that were used longest ago until the folder is no larger than the limit."""
    files = [(one, one.stat()) for one in folder.iterdir() if one.suffix == SUFFIX]
    left_bytes = sum(found.st_size for _, found in files)
    for path, found in sorted(files, key=lambda one: one[1].st_mtime_ns):
        if left_bytes <= limit_bytes:
            return
        path.unlink(missing_ok=True)
        left_bytes -= found.st_size


def _check(stored: _Stored) -> Table:
    """What a table promises: equal lengths, ascending starts, no size of 0, names that exist."""
    count = len(stored.starts) // 8
    lengths = (len(stored.starts), len(stored.sizes), len(stored.names), len(stored.origins))
    if lengths != (count * 8, count * 4, count * 4, count) or not is_sound(stored.segments):
        raise Unavailable("symbol file is damaged")
    starts = np.frombuffer(stored.starts, "<u8")
    sizes = np.frombuffer(stored.sizes, "<u4")
    names = np.frombuffer(stored.names, "<u4")
    origins = np.frombuffer(stored.origins, "u1")
    is_valid = (
        bool(np.all(starts[1:] > starts[:-1]))
        and (not count or (int(starts[-1]) < 1 << 63 and int(names.max()) < len(stored.strings)))
        and bool(np.all(sizes > 0))
        and bool(np.all(origins < len(Origin)))
    )
    if not is_valid:
        raise Unavailable("symbol file is damaged")
    ends = starts + np.minimum(sizes, SIZE_MAX_BYTES)
    return Table(
        stored.build_id,
        stored.is_complete,
        stored.segments,
        starts,
        sizes,
        names,
        origins,
        to_covers(ends),
        stored.strings,
    )


def is_sound(segments: tuple[Segment, ...]) -> bool:
    """Whether no number of a segment is negative."""
    return all(min(one.offset, one.address, one.size_bytes) >= 0 for one in segments)
