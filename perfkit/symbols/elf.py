"""ELF files as hostile input: every offset is checked, every size has a limit, nothing is mapped.

Only what naming functions takes is read: sections, loadable segments and the build-id of 64-bit
little-endian files. Source: the System V ABI and its gABI extensions for large section counts.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable

from msgspec import Struct

from perfkit.errors import Unavailable

SECTIONS_MAX = 100_000
SEGMENTS_MAX = 4_096
NOTES_LIMIT_BYTES = 1 << 16
SECTION_NAMES_LIMIT_BYTES = 1 << 24
SECTION_NAME_LIMIT_BYTES = 256
BUILD_ID_LIMIT_BYTES = 64

SYMTAB, NOTE, NOBITS, DYNSYM = 2, 7, 8, 11
EXECUTABLE = 4
LOAD_SEGMENT, NOTE_SEGMENT = 1, 4
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_NOTE = struct.Struct("<III")
_BUILD_ID_NOTE = 3


class Section(Struct, frozen=True):
    """A row of the section table; `flags` and `kind` as in the file."""

    name: str
    kind: int
    flags: int
    address: int
    offset: int
    size_bytes: int
    link: int
    entry_bytes: int


class Segment(Struct, frozen=True, array_like=True):
    """A loadable piece: file offset, virtual address, bytes in the file."""

    offset: int
    address: int
    size_bytes: int
    is_executable: bool


class Elf(Struct, frozen=True):
    """A file whose tables have been checked; `read` gives bytes of it while it is open.

    Missing: `build_id` is empty where the file has none.
    """

    read: Callable[[int, int], bytes]
    size_bytes: int
    sections: tuple[Section, ...]
    segments: tuple[Segment, ...]
    build_id: str


def parse_elf(read: Callable[[int, int], bytes], size_bytes: int) -> Elf:
    """Reads the tables of an ELF file.

    Raises: Unavailable, with what is wrong with the file.
    """
    head = read(0, _HEADER.size)
    if len(head) < _HEADER.size or head[:4] != b"\x7fELF":
        raise Unavailable("not an ELF file")
    if head[4] != 2 or head[5] != 1:
        raise Unavailable("not a 64-bit little-endian ELF file")
    fields = _HEADER.unpack(head)
    segment_offset, section_offset = fields[5], fields[6]
    segment_bytes, segment_count, section_bytes, section_count, names_index = fields[9:14]
    whole = Elf(read, size_bytes, (), (), "")
    sections, first = _read_sections(
        whole, section_offset, section_bytes, section_count, names_index
    )
    if segment_count == 0xFFFF and first is not None:
        segment_count = first[7]
    rows = _read_rows(whole, segment_offset, segment_bytes, segment_count, _SEGMENT, SEGMENTS_MAX)
    segments = tuple(
        Segment(row[2], row[3], row[5], bool(row[1] & 1)) for row in rows if row[0] == 1
    )
    notes = [(one.offset, one.size_bytes) for one in sections if one.kind == NOTE]
    notes += [(row[2], row[5]) for row in rows if row[0] == NOTE_SEGMENT]
    return Elf(read, size_bytes, sections, segments, _find_build_id(whole, notes))


def open_elf(descriptor: int) -> Elf:
    """Reads the tables of an open file, which must stay open as long as the value is used."""
    size_bytes = os.fstat(descriptor).st_size
    return parse_elf(lambda offset, size: _pread(descriptor, offset, size), size_bytes)


def elf_of_bytes(image: bytes) -> Elf:
    """Reads the tables of a file that is in memory."""
    return parse_elf(lambda offset, size: image[offset : offset + size], len(image))


def find_section(elf: Elf, name: str) -> Section | None:
    """The first section of this name."""
    return next((one for one in elf.sections if one.name == name), None)


def read_section(elf: Elf, section: Section, limit_bytes: int) -> bytes:
    """The bytes of a section, which lie wholly in the file.

    Raises: Unavailable, if they do not, or are more than the limit.
    """
    if section.kind == NOBITS:
        return b""
    if section.size_bytes > limit_bytes:
        raise Unavailable(f"section {section.name} has more than {limit_bytes} bytes")
    return _read_exactly(elf, section.offset, section.size_bytes)


def to_address(segments: tuple[Segment, ...], offset: int) -> int | None:
    """The virtual address of a file offset; executable segments go first where two overlap."""
    fitting = [one for one in segments if one.offset <= offset < one.offset + one.size_bytes]
    fitting.sort(key=lambda one: not one.is_executable)
    return fitting[0].address + offset - fitting[0].offset if fitting else None


def _pread(descriptor: int, offset: int, size_bytes: int) -> bytes:
    """Bytes up to the file's end; offsets beyond what the kernel takes are beyond the end."""
    if offset >= 1 << 63:
        return b""
    pieces = []
    while size_bytes > 0 and (piece := os.pread(descriptor, min(size_bytes, 1 << 30), offset)):
        pieces.append(piece)
        offset += len(piece)
        size_bytes -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _read_exactly(elf: Elf, offset: int, size_bytes: int) -> bytes:
    if offset > elf.size_bytes or size_bytes > elf.size_bytes - offset:
        raise Unavailable("ELF file is truncated or damaged")
    got = elf.read(offset, size_bytes)
    if len(got) != size_bytes:
        raise Unavailable("ELF file became shorter while it was read")
    return got


def _read_rows(
    elf: Elf, offset: int, row_bytes: int, count: int, layout: struct.Struct, *limit: int
) -> list[tuple[int, ...]]:
    """The rows of a table of headers."""
    if count == 0 or offset == 0:
        return []
    if row_bytes != layout.size or count > limit[0]:
        raise Unavailable("ELF file has a table of headers that is none")
    return list(layout.iter_unpack(_read_exactly(elf, offset, row_bytes * count)))


def _read_sections(
    elf: Elf, offset: int, row_bytes: int, count: int, names_index: int
) -> tuple[tuple[Section, ...], tuple[int, ...] | None]:
    """The sections with their names, and the raw first row, which holds counts over 65,535."""
    if offset == 0:
        return (), None
    (first,) = _read_rows(elf, offset, row_bytes, 1, _SECTION, 1)
    rows = _read_rows(elf, offset, row_bytes, count or first[5], _SECTION, SECTIONS_MAX)
    names_index = first[6] if names_index == 0xFFFF else names_index
    names = b""
    if names_index < len(rows) and rows[names_index][1] != NOBITS:
        size_bytes = min(rows[names_index][5], SECTION_NAMES_LIMIT_BYTES)
        names = _read_exactly(elf, rows[names_index][4], size_bytes)
    sections = tuple(
        Section(_cut_name(names, row[0]), row[1], row[2], row[3], row[4], row[5], row[6], row[9])
        for row in rows
    )
    return sections, first


def _cut_name(names: bytes, start: int) -> str:
    piece = names[start : start + SECTION_NAME_LIMIT_BYTES]
    return piece.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def _find_build_id(elf: Elf, places: list[tuple[int, int]]) -> str:
    """The first GNU build-id among the notes, of which a file has few."""
    for offset, size_bytes in places[:64]:
        if size_bytes > NOTES_LIMIT_BYTES or offset + size_bytes > elf.size_bytes:
            continue
        found = find_build_id(elf.read(offset, size_bytes))
        if found:
            return found
    return ""


def find_build_id(notes: bytes) -> str:
    """The build-id among the bytes of a note section, in hexadecimal; empty if there is none."""
    at = 0
    while at + _NOTE.size <= len(notes):
        name_bytes, body_bytes, kind = _NOTE.unpack_from(notes, at)
        name_at = at + _NOTE.size
        body_at = name_at + (name_bytes + 3 & ~3)
        body = notes[body_at : body_at + body_bytes]
        is_build_id = kind == _BUILD_ID_NOTE and notes[name_at : name_at + name_bytes] == b"GNU\0"
        if is_build_id and 0 < body_bytes == len(body) <= BUILD_ID_LIMIT_BYTES:
            return body.hex()
        at = body_at + (body_bytes + 3 & ~3)
    return ""
