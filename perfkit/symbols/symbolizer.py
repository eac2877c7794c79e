"""Names for recorded addresses, the same for all who ask, with what could not be named and why."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from msgspec import Struct, structs

from perfkit.errors import Unavailable
from perfkit.symbols import cache, demangle, jit, kernel, lines
from perfkit.symbols.debuginfod import Servers
from perfkit.symbols.elf import Elf, to_address
from perfkit.symbols.files import without_deleted
from perfkit.symbols.objects import (
    check_build_id,
    is_gone,
    list_candidates,
    open_object,
    read_vdso,
)
from perfkit.symbols.sources import Places, open_debug, read_table
from perfkit.symbols.table import Table, find_row, select_rows

TABLES_MAX = 256
TABLES_LIMIT_BYTES = 1 << 30
SYMBOLS_MAX = 1 << 18
GAPS_MAX = 1_000
Kind = Literal["file", "kernel", "jit", "vdso"]


class Location(Struct, frozen=True):
    """An address as it was recorded: an offset in a file, or an address for `kernel` and `jit`.

    `path` is as the target sees it. Missing: `build_id` "" and `pid` None where not recorded.
    """

    kind: Kind
    offset: int
    path: str = ""
    build_id: str = ""
    pid: int | None = None


class Symbol(Struct, frozen=True):
    """What an address is called; all of its text is untrusted, and escaped when it is printed.

    `name` is as in the file and `function` as its author wrote it; where there is no name both are
    `object+0xoffset`, `source` is "" and `note` says why. `offset` lies in the function.
    """

    name: str
    function: str
    object: str
    offset: int
    size_bytes: int
    source: str
    note: str = ""


class Gap(Struct, frozen=True):
    """An object of which not all addresses could be named, why, and how many could not."""

    object: str
    build_id: str
    reason: str
    count: int


class Settings(Struct, frozen=True):
    """Where symbols are looked for; `boot_id` is the recorded boot, "" for the running one.

    `shipped` holds the symbol files that came with a capture, by build-id. Missing: no `folder`
    means that nothing is kept between runs.
    """

    folder: Path | None = None
    shipped: dict[str, bytes] = {}
    servers: Servers = Servers()
    debug_folder: Path = Path("/usr/lib/debug")
    boot_id: str = ""
    proc: Path = Path("/proc")


class _Entry(Struct, frozen=True):
    """A table, or none, and why it names less than one would like."""

    table: Table | None
    reason: str


class Symbolizer:
    """Names addresses; holds tables in memory, the ones used longest ago go first."""

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings or Settings()
        self._tables: OrderedDict[tuple[object, ...], _Entry] = OrderedDict()
        self._table_bytes = 0
        self._jits: dict[int, jit.JitSymbols] = {}
        self._kernel: kernel.KernelSymbols | str | None = None
        self._gaps: Counter[tuple[str, str, str]] = Counter()

    def name(self, location: Location) -> Symbol:
        """What one address is called."""
        return self.names([location])[0]

    def names(self, locations: Iterable[Location]) -> list[Symbol]:
        """What each address is called; maps of compilers that grew are read again once a call."""
        asked = list(locations)
        jits: dict[int, jit.JitSymbols | str] = {}
        found = {one: self._find(one, jits) for one in dict.fromkeys(asked)}
        for one in asked:
            if not found[one].source:
                self._count(one, found[one])
        told = demangle.demangle(symbol.name for symbol in found.values() if symbol.source)
        return [structs.replace(found[one], function=told.get(found[one].name, found[one].name))
                for one in asked]  # fmt: skip

    def gaps(self) -> tuple[Gap, ...]:
        """What could not be named so far, once for each object and reason, most addresses first."""
        rows = [Gap(*key, count) for key, count in self._gaps.items()]
        return tuple(sorted(rows, key=lambda one: (-one.count, one.object, one.reason)))

    def lines(self, location: Location) -> tuple[lines.Line, ...]:
        """File and line of an address, inlined functions first.

        Missing: empty where the file does not tell.
        Raises: Unavailable, if no tool or no file is at hand.
        """
        tool = lines.find_tool()
        with self._open(location) as (descriptor, elf):
            address = to_address(elf.segments, location.offset)
            if address is None:
                return ()
            with suppress(Unavailable), open_debug(elf, location.path, self._places(None)) as apart:
                return lines.read_lines(apart, [address], tool)[0]
            return lines.read_lines(descriptor, [address], tool)[0]

    def export(self, locations: Iterable[Location]) -> dict[str, bytes]:
        """Symbol files by build-id with the functions that hold these addresses, to be attached."""
        offsets: dict[str, list[int]] = {}
        first: dict[str, Location] = {}
        for one in locations:
            if one.kind in ("file", "vdso") and cache.is_build_id(one.build_id):
                offsets.setdefault(one.build_id, []).append(one.offset)
                first.setdefault(one.build_id, one)
        entries = {key: self._load(first[key]) for key in sorted(first)}
        chosen = {
            key: select_rows(entry.table, offsets[key])
            for key, entry in entries.items()
            if entry.table is not None
        }
        return {key: cache.to_bytes(table) for key, table in chosen.items() if len(table.starts)}

    def _find(self, location: Location, jits: dict[int, jit.JitSymbols | str]) -> Symbol:
        if location.kind == "kernel":
            return self._find_kernel(location)
        if location.kind == "jit":
            return self._find_jit(location, jits)
        entry = self._load(location)
        row = find_row(entry.table, location.offset) if entry.table is not None else None
        label = _to_label(location)
        if row is None:
            return _to_unnamed(label, location.offset, entry.reason or "no function there")
        source = row.origin.name.lower()
        return Symbol(row.name, "", label, row.offset, row.size_bytes, source, entry.reason)

    def _find_kernel(self, location: Location) -> Symbol:
        if self._kernel is None:
            self._kernel = self._read_kernel()
        if isinstance(self._kernel, str):
            return _to_unnamed("kernel", location.offset, self._kernel)
        row = kernel.find_kernel(self._kernel, location.offset)
        if row is None:
            return _to_unnamed("kernel", location.offset, "no function there")
        return Symbol(row[0], "", row[1] or "kernel", row[3], row[2], "kallsyms")

    def _read_kernel(self) -> kernel.KernelSymbols | str:
        proc, recorded = self._settings.proc, self._settings.boot_id
        try:
            if recorded and kernel.read_boot_id(proc) != recorded:
                return "recorded in another boot, whose kernel had other addresses"
            return kernel.read_kernel(proc)
        except Unavailable as refused:
            return f"{refused.reason} (needs {refused.grant})" if refused.grant else refused.reason

    def _find_jit(self, location: Location, jits: dict[int, jit.JitSymbols | str]) -> Symbol:
        pid = location.pid
        if pid is None:
            return _to_unnamed("jit", location.offset, "no process was recorded")
        if pid not in jits:
            jits[pid] = self._read_jit(pid)
        symbols = jits[pid]
        if isinstance(symbols, str):
            return _to_unnamed("jit", location.offset, symbols)
        row = jit.find_jit(symbols, location.offset)
        if row is None:
            return _to_unnamed("jit", location.offset, "not in the map that the runtime wrote")
        return Symbol(row[0], "", "jit", row[2], row[1], "perf-map")

    def _read_jit(self, pid: int) -> jit.JitSymbols | str:
        try:
            self._jits[pid] = jit.read_map(self._settings.proc, pid, self._jits.get(pid))
        except Unavailable as refused:
            return refused.reason
        return self._jits[pid]

    def _load(self, location: Location) -> _Entry:
        """The table of an object: from memory, the cache, the file, or what came with a capture."""
        known = (location.build_id, location.kind)
        place = (location.build_id, location.kind, location.path, location.pid)
        for key in (known, place):
            if key in self._tables:
                self._tables.move_to_end(key)
                return self._tables[key]
        entry = self._read(location)
        # A process that has gone says nothing about the same object in another one.
        is_shared = bool(location.build_id) and entry.table is not None
        self._tables[known if is_shared else place] = entry
        self._table_bytes += _size_of(entry)
        while len(self._tables) > 1 and (
            len(self._tables) > TABLES_MAX or self._table_bytes > TABLES_LIMIT_BYTES
        ):
            self._table_bytes -= _size_of(self._tables.popitem(last=False)[1])
        return entry

    def _read(self, location: Location) -> _Entry:
        folder, build_id = self._settings.folder, location.build_id
        kept = cache.read_cached(folder, build_id) if folder and build_id else None
        if kept is not None and kept.is_complete:
            return _Entry(kept, "")
        try:
            fresh = self._read_file(location)
        except Unavailable as refused:
            return self._read_shipped(build_id, kept, refused.reason)
        if folder and fresh.table is not None and fresh.table.build_id:
            cache.write_cached(folder, fresh.table)
        return fresh

    def _read_shipped(self, build_id: str, kept: Table | None, reason: str) -> _Entry:
        """What is left when the file is not to be had: symbols that came along, or old ones."""
        raw = self._settings.shipped.get(build_id)
        try:
            table = cache.parse_table(raw) if raw is not None else kept
        except Unavailable as damaged:
            return _Entry(kept, f"{reason}; {damaged.reason}")
        if table is not None and table.build_id != build_id:
            return _Entry(kept, f"{reason}; the symbols that came along are of another build-id")
        return _Entry(table, "" if table is not None else reason)

    def _read_file(self, location: Location) -> _Entry:
        if location.kind == "vdso":
            elf = read_vdso(self._settings.proc)
            check_build_id(elf, location.build_id)
            return _Entry(read_table(elf, "", self._places(None)).table, "")
        with self._open(location) as (_, elf):
            found = read_table(elf, without_deleted(location.path), self._places(location.pid))
        notes = list(found.notes)
        if not found.table.is_complete:
            notes.insert(0, "stripped: only exported functions have names")
        if not location.build_id:
            notes.append("no build-id was recorded")
        return _Entry(found.table, "; ".join(notes))

    @contextmanager
    def _open(self, location: Location) -> Iterator[tuple[int, Elf]]:
        candidates = list_candidates(self._settings.proc, location.path, location.pid)
        is_deleted = is_gone(location.path)
        with open_object(candidates, location.build_id, is_deleted=is_deleted) as opened:
            yield opened

    def _places(self, pid: int | None) -> Places:
        own = (self._settings.proc / str(pid) / "root",) if pid is not None else ()
        return Places((*own, Path("/")), self._settings.debug_folder, self._settings.servers)

    def _count(self, location: Location, symbol: Symbol) -> None:
        label = without_deleted(location.path) or symbol.object
        key = (label, location.build_id, symbol.note)
        if key in self._gaps or len(self._gaps) < GAPS_MAX:
            self._gaps[key] += 1


def _to_label(location: Location) -> str:
    """The last part of a path, which is what people call an object."""
    if location.kind == "vdso":
        return "[vdso]"
    return without_deleted(location.path).rsplit("/", 1)[-1] or "?"


def _to_unnamed(label: str, offset: int, reason: str) -> Symbol:
    text = f"{label}+{offset:#x}"
    return Symbol(text, text, label, offset, 0, "", reason)


def _size_of(entry: _Entry) -> int:
    if entry.table is None:
        return 0
    return len(entry.table.strings) + 21 * len(entry.table.starts)
