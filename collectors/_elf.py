"""Finds symbols in an ELF file, which is hostile input: every read and every count is bounded.

Files are read with pread, never mapped: a mapped file that is cut short kills the reader.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from itertools import islice

from msgspec import Struct

HEADER_COUNT_LIMIT = 128
SECTION_COUNT_LIMIT = 8192
SYMBOL_TABLE_LIMIT_BYTES = 32 << 20
STRING_TABLE_LIMIT_BYTES = 32 << 20
SYMBOL_LIMIT_BYTES = 16 << 20
ADDRESS_LIMIT = 1 << 47
PAGE_BYTES = 4096
# How often a name may stand in a string table: once, or as the tail of a few longer ones.
PLACE_LIMIT = 64

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_LOAD, _SYMTAB, _DYNSYM = 1, 2, 11
_STRING_TABLE = 3


class Symbol(Struct, frozen=True):
    """Where a symbol lies, as the file counts addresses (without load bias)."""

    address: int
    size_bytes: int


class Segment(Struct, frozen=True):
    """A part of the file that is loaded."""

    offset: int
    address: int
    file_bytes: int


class Image(Struct, frozen=True):
    """What was wanted of one file. Missing: symbols that it does not define are not in the dict."""

    segments: tuple[Segment, ...]
    symbols: dict[str, Symbol]


class ElfError(Exception):
    """Not a 64-bit little-endian ELF file, or a damaged one."""


def read_image(descriptor: int, wanted: tuple[str, ...]) -> Image:
    """Reads segments and the wanted symbols. Raises: `ElfError`, OSError."""
    header = _HEADER.unpack(_read(descriptor, 0, _HEADER.size))
    identity, segment_offset, section_offset = header[0], header[5], header[6]
    segment_size, segment_count, section_size, section_count = header[9:13]
    if identity[:6] != b"\x7fELF\x02\x01":
        raise ElfError("not a 64-bit little-endian ELF file")
    if segment_size != _SEGMENT.size or (section_count and section_size != _SECTION.size):
        raise ElfError("headers of an unknown size")
    if segment_count > HEADER_COUNT_LIMIT or section_count > SECTION_COUNT_LIMIT:
        raise ElfError("too many headers")
    raw = _read(descriptor, segment_offset, segment_count * _SEGMENT.size)
    segments = tuple(
        Segment(offset, address, file_bytes)
        for kind, _, offset, address, _, file_bytes, _, _ in _SEGMENT.iter_unpack(raw)
        if kind == _LOAD
    )
    raw = _read(descriptor, section_offset, section_count * _SECTION.size)
    sections = list(_SECTION.iter_unpack(raw))
    symbols: dict[str, Symbol] = {}
    # The dynamic table is small and survives stripping; the full one is read only for the rest.
    for wanted_kind in (_DYNSYM, _SYMTAB):
        missing = [name for name in wanted if name not in symbols]
        # A file has one table of each kind; one that claims thousands wants to keep us busy.
        section = next((one for one in sections if one[1] == wanted_kind), None)
        if section is not None and missing and section[6] < len(sections):
            symbols.update(_find_symbols(descriptor, section, sections[section[6]], missing))
    return Image(segments, symbols)


def read_at(descriptor: int, image: Image, address: int, size_bytes: int) -> bytes:
    """Reads what the file holds for an address; b"" where it holds nothing there."""
    for segment in image.segments:
        place = address - segment.address
        if 0 <= place <= segment.file_bytes - size_bytes:
            try:
                return _read(descriptor, segment.offset + place, size_bytes)
            except ElfError:
                return b""
    return b""


def find_bias(image: Image, mappings: list[tuple[int, int]]) -> int | None:
    """What was added to the file's addresses, from its (start address, file offset) mappings."""
    for segment in image.segments:
        lead = segment.offset % PAGE_BYTES
        for start, offset in mappings:
            if offset == segment.offset - lead:
                return start - (segment.address - lead)
    return None


def _find_symbols(
    descriptor: int, table: tuple[int, ...], strings: tuple[int, ...], wanted: list[str]
) -> Iterator[tuple[str, Symbol]]:
    if strings[1] != _STRING_TABLE or strings[5] > STRING_TABLE_LIMIT_BYTES:
        return
    if table[9] != _SYMBOL.size or table[5] > SYMBOL_TABLE_LIMIT_BYTES:
        return
    names = _read(descriptor, strings[4], strings[5])
    places = {name: islice(_find_name(names, name), PLACE_LIMIT) for name in wanted}
    name_of = {place: name for name, found in places.items() for place in found}
    if not name_of:
        return
    raw = _read(descriptor, table[4], table[5] - table[5] % _SYMBOL.size)
    for place, _, _, section, address, size_bytes in _SYMBOL.iter_unpack(raw):
        is_sane = 0 < address < ADDRESS_LIMIT and size_bytes <= SYMBOL_LIMIT_BYTES
        if section != 0 and place in name_of and is_sane:
            yield name_of[place], Symbol(address, size_bytes)


def _find_name(names: bytes, name: str) -> Iterator[int]:
    """Places of a name in a string table; a linker may make it the tail of a longer one."""
    sought = name.encode() + b"\0"
    place = names.find(sought)
    while place >= 0:
        yield place
        place = names.find(sought, place + 1)


def _read(descriptor: int, offset: int, size_bytes: int) -> bytes:
    if offset >= 1 << 62:
        raise ElfError("an offset beyond any file")
    raw = os.pread(descriptor, size_bytes, offset)
    if len(raw) != size_bytes:
        raise ElfError("the file is cut short")
    return raw
