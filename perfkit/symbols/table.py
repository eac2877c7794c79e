"""The functions of one object, sorted by address: one name an address, always the same one."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from perfkit.errors import Unavailable
from perfkit.symbols.elf import (
    EXECUTABLE,
    Elf,
    Section,
    Segment,
    read_section,
    to_address,
)

SYMBOLS_LIMIT_BYTES = 24 * 16_000_000
STRINGS_LIMIT_BYTES = 1 << 30
NAME_LIMIT_BYTES = 16_384
SIZE_MAX_BYTES = (1 << 32) - 1
ADDRESS_MAX = 1 << 63
Numbers = npt.NDArray[np.uint64]
Places = npt.NDArray[np.uint32]
Marks = npt.NDArray[np.uint8]
_ROW = np.dtype(
    [
        ("name", "<u4"),
        ("mark", "u1"),
        ("other", "u1"),
        ("section", "<u2"),
        ("value", "<u8"),
        ("size", "<u8"),
    ]
)
_NO_TYPE, _FUNCTION, _INDIRECT_FUNCTION = 0, 2, 10
_UNTYPED_RANK = 8
# By binding: a global or unique name is the one that people know; then weak ones, then local ones.
_RANK_OF_BINDING = np.full(16, 3, np.uint8)
_RANK_OF_BINDING[[0, 1, 2, 10]] = (2, 0, 1, 0)


class Origin(IntEnum):
    """Where a name was found."""

    SYMTAB = 0
    DEBUG = 1
    DYNSYM = 2
    DEBUGDATA = 3
    DEBUGINFOD = 4
    PLT = 5


class Rows(Struct, frozen=True):
    """Symbols as a file has them, unsorted; `limits` is where the section of each one ends.

    Lower `ranks` are better names; `names` are offsets into `strings`.
    """

    starts: Numbers
    sizes: Numbers
    limits: Numbers
    ranks: Marks
    names: Places
    strings: bytes
    origin: Origin


class Table(Struct, frozen=True):
    """Functions by virtual address: `starts` ascend and are distinct; no size is 0.

    `covers[i]` is the row up to i that ends last: the one that holds what row i does not reach.
    `is_complete` means that a table of all functions was read, not only of the exported ones.
    """

    build_id: str
    is_complete: bool
    segments: tuple[Segment, ...]
    starts: Numbers
    sizes: Places
    names: Places
    origins: Marks
    covers: Places
    strings: bytes


class Row(Struct, frozen=True):
    """One function of a table; `offset` is how far into it the address lies."""

    name: str
    size_bytes: int
    offset: int
    origin: Origin


def read_rows(elf: Elf, section: Section, origin: Origin) -> Rows:
    """The functions of a symbol table, with untyped symbols of code, such as those of assembly.

    Raises: Unavailable, if the file is damaged.
    """
    raw = read_section(elf, section, SYMBOLS_LIMIT_BYTES)
    strings = b""
    if section.link < len(elf.sections):
        strings = read_section(elf, elf.sections[section.link], STRINGS_LIMIT_BYTES)
    rows = np.frombuffer(raw[: len(raw) // _ROW.itemsize * _ROW.itemsize], _ROW)
    count = len(elf.sections)
    firsts = np.array([min(one.address, ADDRESS_MAX) for one in elf.sections], np.uint64)
    ends = np.array(
        [min(one.address + one.size_bytes, ADDRESS_MAX) for one in elf.sections], np.uint64
    )
    is_code = np.array([bool(one.flags & EXECUTABLE) for one in elf.sections], np.bool_)
    kinds = rows["mark"] & 15
    keep = (rows["section"] < count) & (rows["section"] > 0)
    keep &= (kinds == _NO_TYPE) | (kinds == _FUNCTION) | (kinds == _INDIRECT_FUNCTION)
    keep &= (rows["name"] > 0) & (rows["name"] < len(strings))
    rows, kinds = rows[keep], kinds[keep]
    places = rows["section"]
    keep = is_code[places] & (rows["value"] >= firsts[places]) & (rows["value"] < ends[places])
    # Assemblers' own labels that slipped into the table say nothing.
    letters = np.frombuffer(strings or b"\0", np.uint8)[rows["name"]]
    keep &= (kinds != _NO_TYPE) | ((letters != ord(".")) & (letters != ord("$")))
    keep &= letters != 0
    rows, kinds = rows[keep], kinds[keep]
    ranks = _RANK_OF_BINDING[rows["mark"] >> 4] + (kinds == _NO_TYPE) * np.uint8(_UNTYPED_RANK)
    return Rows(
        rows["value"],
        np.minimum(rows["size"], SIZE_MAX_BYTES),
        ends[rows["section"]],
        ranks.astype(np.uint8),
        rows["name"],
        strings,
        origin,
    )


def build_table(elf: Elf, parts: list[Rows]) -> Table:
    """One table of all parts: the best name of each address, and no hole filled by a guess."""
    bases = np.cumsum([0, *(len(part.strings) for part in parts)])
    if bases[-1] > STRINGS_LIMIT_BYTES:
        raise Unavailable(f"names take more than {STRINGS_LIMIT_BYTES} bytes")
    strings = b"".join(part.strings for part in parts)
    starts = _join([part.starts for part in parts], np.uint64)
    sizes = _join([part.sizes for part in parts], np.uint64)
    limits = _join([part.limits for part in parts], np.uint64)
    ranks = _join([part.ranks for part in parts], np.uint8)
    origins = _join([np.full(len(one.starts), one.origin, np.uint8) for one in parts], np.uint8)
    names = _join(
        [one.names + np.uint32(base) for one, base in zip(parts, bases, strict=False)], np.uint32
    )
    letters = np.frombuffer(strings or b"\0", np.uint8)
    hidden = (letters[names] == ord("_")).astype(np.uint8) if len(names) else ranks
    order = np.lexsort((hidden, SIZE_MAX_BYTES - sizes, ranks, starts))
    chosen = _choose(order, (starts, ranks, sizes, hidden), names, strings)
    starts, sizes, limits = starts[chosen], sizes[chosen], limits[chosen]
    kept, ends = _close(starts, sizes, limits)
    starts, ends, chosen = starts[kept], ends[kept], chosen[kept]
    return Table(
        elf.build_id,
        any(part.origin not in (Origin.DYNSYM, Origin.PLT) for part in parts),
        elf.segments,
        starts,
        np.minimum(ends - starts, SIZE_MAX_BYTES).astype(np.uint32),
        names[chosen],
        origins[chosen],
        to_covers(ends),
        strings,
    )


def to_covers(ends: Numbers) -> Places:
    """For each row the one up to it that ends last."""
    if not len(ends):
        return np.zeros(0, np.uint32)
    is_last = ends >= np.maximum.accumulate(ends)
    return np.maximum.accumulate(np.where(is_last, np.arange(len(ends)), 0)).astype(np.uint32)


def find_row(table: Table, offset: int) -> Row | None:
    """The function that holds a file offset.

    Missing: None where no function does, which a stripped file is full of.
    """
    address = to_address(table.segments, offset)
    return None if address is None else find_address(table, address)


def find_address(table: Table, address: int) -> Row | None:
    """The function that holds a virtual address, the nearest one that begins before it."""
    index = find_index(table, address)
    if index is None:
        return None
    origin = Origin(int(table.origins[index]))
    name = read_name(table.strings, int(table.names[index]))
    if origin is not Origin.PLT and name.find("@") > 0:
        # The version of a symbol, which linkers write into its name.
        name = name.partition("@")[0]
    start = int(table.starts[index])
    return Row(name, int(table.sizes[index]), address - start, origin)


def find_index(table: Table, address: int) -> int | None:
    """The row that holds a virtual address."""
    if not 0 <= address < ADDRESS_MAX or not len(table.starts):
        return None
    nearest = int(np.searchsorted(table.starts, np.uint64(address), "right")) - 1
    if nearest < 0:
        return None
    for index in (nearest, int(table.covers[nearest])):
        if address - int(table.starts[index]) < int(table.sizes[index]):
            return index
    return None


def read_name(strings: bytes, start: int) -> str:
    """A name up to its end or the limit; bytes that are no text become escapes."""
    end = strings.find(b"\0", start, start + NAME_LIMIT_BYTES)
    piece = strings[start : start + NAME_LIMIT_BYTES if end < 0 else end]
    return piece.decode("utf-8", "backslashreplace")


def select_rows(table: Table, offsets: list[int]) -> Table:
    """The table with only the functions that hold these file offsets: small enough to send."""
    addresses = (to_address(table.segments, offset) for offset in offsets)
    found = (find_index(table, one) for one in addresses if one is not None)
    kept = np.array(sorted({one for one in found if one is not None}), np.int64)
    names = [_cut_bytes(table.strings, int(at)) for at in table.names[kept]]
    lengths = [0, *(len(name) + 1 for name in names)]
    ends = table.starts[kept] + table.sizes[kept]
    return Table(
        table.build_id,
        False,
        table.segments,
        table.starts[kept],
        table.sizes[kept],
        np.cumsum(lengths)[:-1].astype(np.uint32),
        table.origins[kept],
        to_covers(ends),
        b"".join(name + b"\0" for name in names),
    )


def _cut_bytes(strings: bytes, start: int) -> bytes:
    return strings[start : start + NAME_LIMIT_BYTES].split(b"\0", 1)[0]


def _join(parts: list[npt.NDArray[Any]], kind: type) -> npt.NDArray[Any]:
    return np.concatenate([np.zeros(0, kind), *parts]).astype(kind)


def _choose(
    order: npt.NDArray[np.int64],
    keys: tuple[npt.NDArray[Any], ...],
    names: Places,
    strings: bytes,
) -> npt.NDArray[np.int64]:
    """The best row of each address; where all keys are equal, the shortest name, then by text."""
    starts = keys[0][order]
    if not len(order):
        return order
    is_first = np.append(True, starts[1:] != starts[:-1])
    is_tied = ~is_first
    for key in keys[1:]:
        is_tied &= np.append(False, key[order][1:] == key[order][:-1])
    # A tie counts only in an unbroken run from the first row of an address on.
    run = np.maximum.accumulate(np.where(is_first, np.arange(len(order)), 0))
    broken = np.maximum.accumulate(np.where(~is_tied, np.arange(len(order)), 0))
    members = np.flatnonzero(is_tied & (broken == run))
    best: dict[int, int] = {}
    for at in members:
        first = int(run[at])
        rival = int(order[at])
        current = best.get(first, int(order[first]))
        best[first] = min(current, rival, key=lambda one: _to_sort_key(strings, int(names[one])))
    for first, row in best.items():
        order[first] = row
    return np.asarray(order[is_first], np.int64)


def _to_sort_key(strings: bytes, start: int) -> tuple[int, bytes]:
    name = _cut_bytes(strings, start)
    return len(name), name


def _close(
    starts: Numbers, sizes: Numbers, limits: Numbers
) -> tuple[npt.NDArray[np.bool_], Numbers]:
    """Gives symbols without a size the room to the next one; drops labels inside of a function."""
    ends = np.minimum(starts + sizes, ADDRESS_MAX)
    if not len(starts):
        return np.zeros(0, np.bool_), ends
    reach = np.maximum.accumulate(np.where(sizes > 0, ends, 0))
    kept = (sizes > 0) | (reach <= starts)
    following = np.append(starts[1:], np.uint64(ADDRESS_MAX))
    ends = np.where(sizes > 0, ends, np.minimum(following, limits))
    return kept & (ends > starts), ends
