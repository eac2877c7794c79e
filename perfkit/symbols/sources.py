"""Where the functions of an object are found, in the order in which the places are tried.

.symtab of the file itself; its separate debug file; the exported names with .gnu_debugdata, which
holds those that are not exported; a debuginfod server, if one may be asked; the exported names
alone. Stubs of the procedure linkage table are named besides.
"""

from __future__ import annotations

import lzma
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from perfkit.errors import Unavailable
from perfkit.symbols.debuginfod import Servers, fetch
from perfkit.symbols.elf import (
    DYNSYM,
    NOBITS,
    SYMTAB,
    Elf,
    Section,
    elf_of_bytes,
    find_section,
    open_elf,
    read_section,
)
from perfkit.symbols.files import open_regular
from perfkit.symbols.plt import read_stubs
from perfkit.symbols.table import Origin, Rows, Table, build_table, read_rows

PACKED_LIMIT_BYTES = 1 << 26
UNPACKED_LIMIT_BYTES = 1 << 28
LINKED_LIMIT_BYTES = 1 << 32
_LINK_LIMIT_BYTES = 4_096
_CHUNK_BYTES = 1 << 20


class Places(Struct, frozen=True):
    """Where to look besides the file: roots to look below, the debug folder, and servers."""

    roots: tuple[Path, ...] = (Path("/"),)
    debug_folder: Path = Path("/usr/lib/debug")
    servers: Servers = Servers()


class Found(Struct, frozen=True):
    """A table, and what went wrong on the way to a better one."""

    table: Table
    notes: tuple[str, ...]


def read_table(elf: Elf, path: str, places: Places) -> Found:
    """The functions of an object.

    Raises: Unavailable, if the file is damaged where its own tables are.
    """
    notes: list[str] = []
    parts = _read_own(elf, SYMTAB, Origin.SYMTAB)
    if not parts:
        parts = _read_separate(elf, path, places, notes)
    if not parts:
        parts = _read_unlisted(elf, notes)
        exported = _read_own(elf, DYNSYM, Origin.DYNSYM)
        parts = parts or _read_fetched(elf, places.servers, notes)
        parts = [*exported, *parts]
    try:
        stubs = read_stubs(elf)
    except Unavailable as damaged:
        stubs = None
        notes.append(f"no PLT names: {damaged.reason}")
    return Found(build_table(elf, [*parts, *([stubs] if stubs else [])]), tuple(notes))


@contextmanager
def open_debug(elf: Elf, path: str, places: Places) -> Iterator[int]:
    """The separate debug file of an object, by build-id or by link, checked to belong to it.

    Raises: Unavailable, if there is none.
    """
    reasons = []
    for root, place in _list_debug(elf, path, places):
        try:
            with open_regular(place, root) as descriptor:
                _check_debug(elf, descriptor, is_by_link=".build-id" not in place.parts)
                yield descriptor
                return
        except Unavailable as refused:
            if not refused.reason.endswith("No such file or directory"):
                reasons.append(f"{place}: {refused.reason}")
    raise Unavailable("; ".join(reasons[:2]))


def _read_own(elf: Elf, kind: int, origin: Origin) -> list[Rows]:
    sections = [one for one in elf.sections if one.kind == kind]
    rows = [read_rows(elf, one, origin) for one in sections[:1]]
    return [one for one in rows if len(one.starts)]


def _read_separate(elf: Elf, path: str, places: Places, notes: list[str]) -> list[Rows]:
    try:
        with open_debug(elf, path, places) as descriptor:
            return _read_own(open_elf(descriptor), SYMTAB, Origin.DEBUG)
    except Unavailable as refused:
        notes += [f"debug file refused: {refused.reason}"] if refused.reason else []
        return []


def _read_unlisted(elf: Elf, notes: list[str]) -> list[Rows]:
    """What .gnu_debugdata holds: an xz-packed ELF file with only the functions not exported."""
    section = find_section(elf, ".gnu_debugdata")
    if section is None or section.kind == NOBITS:
        return []
    try:
        packed = read_section(elf, section, PACKED_LIMIT_BYTES)
        unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=UNPACKED_LIMIT_BYTES)
        image = unpacker.decompress(packed, UNPACKED_LIMIT_BYTES)
        if not unpacker.eof:
            raise Unavailable("cut off, or too large")
        return _read_own(elf_of_bytes(image), SYMTAB, Origin.DEBUGDATA)
    except (Unavailable, lzma.LZMAError) as damaged:
        notes.append(f".gnu_debugdata refused: {getattr(damaged, 'reason', damaged)}")
        return []


def _read_fetched(elf: Elf, servers: Servers, notes: list[str]) -> list[Rows]:
    if not servers.urls or not elf.build_id:
        return []
    try:
        with fetch(servers, elf.build_id) as descriptor:
            found = open_elf(descriptor)
            if found.build_id != elf.build_id:
                raise Unavailable(f"sent build-id {found.build_id or 'none'}")
            return _read_own(found, SYMTAB, Origin.DEBUGINFOD)
    except Unavailable as refused:
        notes.append(f"debuginfod: {refused.reason}")
        return []


def _list_debug(elf: Elf, path: str, places: Places) -> list[tuple[Path, Path]]:
    """Where a debug file may lie, the target's own root first."""
    names = []
    if len(elf.build_id) > 4:
        folder = places.debug_folder / ".build-id" / elf.build_id[:2]
        names.append(folder / f"{elf.build_id[2:]}.debug")
    link, _ = _read_link(elf)
    if link and Path(path).is_absolute():
        own = Path(path).parent
        names += [own / link, own / ".debug" / link]
        names.append(places.debug_folder / own.relative_to("/") / link)
    return [(root, name) for root in places.roots for name in names]


def _read_link(elf: Elf) -> tuple[str, int]:
    """The file name and checksum of .gnu_debuglink; a name with a folder in it is none."""
    section: Section | None = find_section(elf, ".gnu_debuglink")
    if section is None or not 8 <= section.size_bytes <= _LINK_LIMIT_BYTES:
        return "", 0
    try:
        raw = read_section(elf, section, _LINK_LIMIT_BYTES)
    except Unavailable:
        return "", 0
    name = raw.split(b"\0", 1)[0]
    at = len(name) + 1 + 3 & ~3
    if not name or b"/" in name or name in (b".", b"..") or len(raw) < at + 4:
        return "", 0
    return os.fsdecode(name), int.from_bytes(raw[at : at + 4], "little")


def _check_debug(elf: Elf, descriptor: int, *, is_by_link: bool) -> None:
    """A debug file must have the object's build-id, and by link the checksum that the link says."""
    build_id = open_elf(descriptor).build_id
    if build_id != elf.build_id and (build_id or not is_by_link):
        raise Unavailable(f"has build-id {build_id or 'none'}, not {elf.build_id or 'none'}")
    if is_by_link and _sum(descriptor) != _read_link(elf)[1]:
        raise Unavailable("is not the file that .gnu_debuglink means (CRC differs)")


def _sum(descriptor: int) -> int:
    if os.fstat(descriptor).st_size > LINKED_LIMIT_BYTES:
        raise Unavailable(f"has more than {LINKED_LIMIT_BYTES} bytes")
    total, offset = 0, 0
    while piece := os.pread(descriptor, _CHUNK_BYTES, offset):
        total = zlib.crc32(piece, total)
        offset += len(piece)
    return total
