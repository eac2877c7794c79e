"""Names for the stubs of the procedure linkage table: `memcpy@plt`.

A stub jumps by way of an address in memory, `jmp *disp(%rip)`, and a relocation says whose address
it is: so stubs are found by what they do, whatever layout the linker chose.
"""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from perfkit.symbols.elf import Elf, Section, find_section, read_section
from perfkit.symbols.table import (
    STRINGS_LIMIT_BYTES,
    SYMBOLS_LIMIT_BYTES,
    Origin,
    Rows,
    read_name,
)

STUBS_LIMIT_BYTES = 1 << 24
RELOCATIONS_LIMIT_BYTES = 24 * 1_000_000
_RELOCATION = np.dtype([("where", "<u8"), ("kind", "<u4"), ("symbol", "<u4"), ("addend", "<i8")])
_GLOBAL_ADDRESS, _JUMP_SLOT, _INDIRECT_RELATIVE = 6, 7, 37
_STUB_BYTES = {".plt": 16, ".plt.sec": 16, ".plt.got": 8}
_SYMBOL_BYTES = 24


class _Stub(Struct, frozen=True):
    start: int
    size_bytes: int
    limit: int
    name: str


def read_stubs(elf: Elf) -> Rows | None:
    """The stubs of a file that can be named.

    Missing: None where there are none.
    Raises: Unavailable, if the file is damaged.
    """
    sections = [one for one in (find_section(elf, name) for name in _STUB_BYTES) if one]
    if not sections:
        return None
    names = _read_targets(elf)
    stubs = [stub for section in sections for stub in _find_stubs(elf, section, names)]
    if not stubs:
        return None
    texts = [f"{stub.name}@plt".encode() for stub in stubs]
    places = np.cumsum([0, *(len(text) + 1 for text in texts)])[:-1]
    return Rows(
        np.array([stub.start for stub in stubs], np.uint64),
        np.array([stub.size_bytes for stub in stubs], np.uint64),
        np.array([stub.limit for stub in stubs], np.uint64),
        np.zeros(len(stubs), np.uint8),
        places.astype(np.uint32),
        b"".join(text + b"\0" for text in texts),
        Origin.PLT,
    )


def _find_stubs(elf: Elf, section: Section, names: dict[int, str]) -> list[_Stub]:
    code = read_section(elf, section, STUBS_LIMIT_BYTES)
    usual = _STUB_BYTES[section.name]
    size_bytes = section.entry_bytes if section.entry_bytes in (8, 16) else usual
    found = {}
    at = code.find(b"\xff\x25")
    while 0 <= at <= len(code) - 6:
        jump = section.address + at + 6
        name = names.get(jump + int.from_bytes(code[at + 2 : at + 6], "little", signed=True))
        if name and section.address + section.size_bytes < 1 << 63:
            start = section.address + at // size_bytes * size_bytes
            found[start] = _Stub(start, size_bytes, section.address + section.size_bytes, name)
        at = code.find(b"\xff\x25", at + 1)
    return list(found.values())


def _read_targets(elf: Elf) -> dict[int, str]:
    """Whose address lies where, once the dynamic linker has done its work."""
    found: dict[int, str] = {}
    for name in (".rela.dyn", ".rela.plt"):
        section = find_section(elf, name)
        if section is not None:
            found |= _read_relocations(elf, section)
    return found


def _read_relocations(elf: Elf, section: Section) -> dict[int, str]:
    raw = read_section(elf, section, RELOCATIONS_LIMIT_BYTES)
    rows = np.frombuffer(raw[: len(raw) // 24 * 24], _RELOCATION)
    rows = rows[np.isin(rows["kind"], (_GLOBAL_ADDRESS, _JUMP_SLOT, _INDIRECT_RELATIVE))]
    symbols, strings = b"", b""
    if 0 < section.link < len(elf.sections):
        table = elf.sections[section.link]
        symbols = read_section(elf, table, SYMBOLS_LIMIT_BYTES)
        if table.link < len(elf.sections):
            strings = read_section(elf, elf.sections[table.link], STRINGS_LIMIT_BYTES)
    found = {}
    for row in rows.tolist():
        where, kind, symbol, addend = row
        if kind == _INDIRECT_RELATIVE:
            # As objdump writes it: the function is only chosen when the program starts.
            found[where] = f"*ABS*+{addend & (1 << 64) - 1:#x}"
            continue
        at = symbol * _SYMBOL_BYTES
        name = read_name(strings, int.from_bytes(symbols[at : at + 4], "little"))
        if symbol and name:
            found[where] = name.partition("@")[0]
    return found
