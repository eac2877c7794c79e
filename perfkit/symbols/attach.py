"""The names of a capture's native frames, found once, before it is kept: they are read ever after.

A capture holds (object, offset) of a frame; files change and go, so that who reads it later, or
elsewhere, would find other names. The table `native_names` is added to what was recorded.
"""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from msgspec import Struct, structs

from perfkit.model import Capture, Column, ColumnType, Table, TableSchema
from perfkit.symbols.demangle import shorten
from perfkit.symbols.files import without_deleted
from perfkit.symbols.symbolizer import Kind, Location, Settings, Symbol, Symbolizer

SOURCES = ("native", "wall")
# A file that is read for the first time takes some 10 ms, the largest known half a second.
LIMIT_S = 1.5
ROWS_MAX = 500_000
NAMES_MAX = 50_000
CHUNK = 500
NAME_LIMIT = 200
LATE = "its file was not reached in the time for names"
ELSEWHERE = "recorded on another host"
NO_BUILD_ID = "recorded on another host, without a build-id"
_WRAP = 1 << 64
_KINDS: dict[str, Kind] = {"file": "file", "vdso": "vdso", "kernel": "kernel", "anonymous": "jit"}
_LABELS = {"vdso": "[vdso]", "kernel": "kernel", "anonymous": "[anonymous]"}
Numbers = npt.NDArray[np.int64]

NATIVE_NAMES = TableSchema(
    "native_names",
    (
        Column("source", type=ColumnType.TEXT, help="native, wall: whose objects and stacks"),
        Column("object"),
        Column("offset", help="as in the stacks"),
        Column("function", type=ColumnType.TEXT, help="demangled, untrusted; else object+0xoffset"),
        Column("start", help="offset at which the function begins; -1 not known"),
        Column("note", type=ColumnType.TEXT, help="why it has no name, else empty"),
    ),
    source="ELF symbols, debug files, perf-PID.map and kallsyms, on the side of who reads",
    help="One row for each place of the native stacks; added to what was recorded.",
)


class Search(Struct, frozen=True):
    """Where to look, and for how long; `is_here`: the capture is of this very host."""

    is_here: bool
    settings: Settings = Settings()
    limit_s: float = LIMIT_S


class _Place(Struct, frozen=True):
    """What stands in a row: whose table, the object's number, the offset as it was recorded."""

    source: str
    object: int
    offset: int


class _Object(Struct, frozen=True):
    kind: str
    path: str
    build_id: str
    pid: int


class _Name(Struct, frozen=True):
    function: str
    start: int
    note: str


def attach_names(capture: Capture, search: Search) -> Capture:
    """The capture with the names of its native frames; one that has them, or no frames, as it is.

    What takes longer than `limit_s` stays without a name, and says so.
    """
    if NATIVE_NAMES.name in capture.tables:
        return capture
    asked, dropped_count = _list_places(capture)
    if not asked:
        return capture
    found = _look_up(asked, search)
    rows = [(place, found.get(place) or _to_unnamed(asked[place], place, LATE)) for place in asked]
    rows.sort(key=lambda row: (row[0].source, row[0].object, row[0].offset))
    return _add_table(capture, rows, dropped_count)


def _look_up(asked: dict[_Place, _Object], search: Search) -> dict[_Place, _Name]:
    """Names what can be named in time; a thread does, so that a file that hangs holds up nobody."""
    done: list[dict[_Place, _Name]] = []
    stop = threading.Event()
    deadline_s = time.monotonic() + search.limit_s

    def work() -> None:
        symbolizer = Symbolizer(search.settings)
        for chunk in _cut(asked):
            if stop.is_set():
                return
            done.append(_name_chunk(chunk, symbolizer, search.is_here))

    worker = threading.Thread(target=work, name="perfkit names", daemon=True)
    worker.start()
    worker.join(max(deadline_s - time.monotonic(), 0.0))
    stop.set()
    return {place: name for part in tuple(done) for place, name in part.items()}


def _cut(asked: dict[_Place, _Object]) -> Iterator[dict[_Place, _Object]]:
    """Parts of one object each, in the order in which they were asked for."""
    chunk: dict[_Place, _Object] = {}
    last: _Object | None = None
    for place, mapped in asked.items():
        if chunk and (mapped != last or len(chunk) >= CHUNK):
            yield chunk
            chunk = {}
        chunk[place], last = mapped, mapped
    if chunk:
        yield chunk


def _name_chunk(
    chunk: dict[_Place, _Object], symbolizer: Symbolizer, is_here: bool
) -> dict[_Place, _Name]:
    refusals = {place: _refuse(mapped, is_here) for place, mapped in chunk.items()}
    named = {place: _to_unnamed(chunk[place], place, why) for place, why in refusals.items() if why}
    places = [place for place, why in refusals.items() if not why]
    try:
        symbols = symbolizer.names([_locate(chunk[one], one, is_here) for one in places])
    except Exception as error:
        # Files of targets are hostile: what trips over one costs its names, and no report.
        why = f"its file could not be read: {type(error).__name__}"
        return named | {place: _to_unnamed(chunk[place], place, why) for place in places}
    return named | {
        place: _to_name(symbol, chunk[place], place)
        for place, symbol in zip(places, symbols, strict=True)
    }


def _refuse(mapped: _Object, is_here: bool) -> str:
    """Why a place is not looked for at all, "" where it is."""
    if mapped.kind not in _KINDS:
        return "an object of an unknown kind"
    if is_here:
        return ""
    if mapped.kind in ("kernel", "anonymous"):
        return ELSEWHERE
    return "" if mapped.build_id else NO_BUILD_ID


def _locate(mapped: _Object, place: _Place, is_here: bool) -> Location:
    pid = mapped.pid if is_here and mapped.pid > 0 else None
    offset = place.offset % _WRAP
    return Location(_KINDS[mapped.kind], offset, mapped.path, mapped.build_id, pid)


def _to_name(symbol: Symbol, mapped: _Object, place: _Place) -> _Name:
    if not symbol.source:
        return _to_unnamed(mapped, place, symbol.note)
    begin = place.offset - symbol.offset
    known = -(1 << 63) <= begin <= place.offset
    return _Name(_to_text(shorten(symbol.function, NAME_LIMIT)), begin if known else -1, "")


def _to_unnamed(mapped: _Object, place: _Place, why: str) -> _Name:
    label = _LABELS.get(mapped.kind) or without_deleted(mapped.path).rpartition("/")[2] or "?"
    return _Name(_to_text(f"{label[:NAME_LIMIT]}+{place.offset % _WRAP:#x}"), -1, _to_text(why))


def _to_text(text: str) -> str:
    """Text that a capture can hold, whatever a file has for a name."""
    return text.encode("utf-8", "backslashreplace").decode()


def _list_places(capture: Capture) -> tuple[dict[_Place, _Object], int]:
    """The places of all stacks with their objects, and how many are beyond the limits.

    Shape: the objects that samples met most come first, so that what runs out of time is the rest.
    """
    found: list[tuple[int, _Place, _Object]] = []
    dropped_count = 0
    for source in SOURCES:
        objects = _read_objects(capture, source)
        columns = [_read_integers(capture, f"{source}_stacks", name) for name in _STACK_COLUMNS]
        dropped_count += max(0, len(columns[0]) - ROWS_MAX)
        stack, number, offset = (column[:ROWS_MAX] for column in columns)
        weight = _weigh(_read_integers(capture, f"{source}_samples", "stack"), stack)
        rows = _sum_places(number, offset, weight)
        dropped_count += sum(1 for one in rows if one[0] not in objects)
        found += [
            (met, _Place(source, one, at), objects[one]) for one, at, met in rows if one in objects
        ]
    by_object: dict[_Object, int] = {}
    for met, _, mapped in found:
        by_object[mapped] = by_object.get(mapped, 0) + met
    found.sort(
        key=lambda row: (-by_object[row[2]], structs.astuple(row[2]), structs.astuple(row[1]))
    )
    dropped_count += max(0, len(found) - NAMES_MAX)
    return {place: mapped for _, place, mapped in found[:NAMES_MAX]}, dropped_count


_STACK_COLUMNS = ("stack", "object", "offset")


def _weigh(sampled: Numbers, stacks: Numbers) -> Numbers:
    """How often the stack of each row was sampled, once at least."""
    known, counts = np.unique(sampled, return_counts=True)
    if not len(known):
        return np.ones(len(stacks), np.int64)
    at = np.minimum(np.searchsorted(known, stacks), len(known) - 1)
    return np.where(known[at] == stacks, counts[at], 1).astype(np.int64)


def _sum_places(number: Numbers, offset: Numbers, weight: Numbers) -> list[tuple[int, int, int]]:
    """Each distinct (object, offset), and how often samples met it."""
    if not len(number):
        return []
    order = np.lexsort((offset, number))
    number, offset = number[order], offset[order]
    is_first = np.append(True, (number[1:] != number[:-1]) | (offset[1:] != offset[:-1]))
    sums = np.add.reduceat(weight[order], np.flatnonzero(is_first))
    columns = (number[is_first].tolist(), offset[is_first].tolist(), sums.tolist())
    return list(zip(*columns, strict=True))


def _read_objects(capture: Capture, source: str) -> dict[int, _Object]:
    name = f"{source}_objects"
    texts = [_read_text(capture, name, one) for one in ("kind", "path", "build_id")]
    numbers = _read_integers(capture, name, "object").tolist()
    pids = _read_integers(capture, name, "pid").tolist()
    rows = zip(numbers, pids, *texts, strict=False)
    return {number: _Object(kind, path, build, pid) for number, pid, kind, path, build in rows}


def _read_integers(capture: Capture, name: str, column: str) -> Numbers:
    """A column of integers; empty where the capture lacks it."""
    found = _find(capture, name, column, ColumnType.INTEGER)
    return np.frombuffer(found or b"", "<i8").astype(np.int64)


def _read_text(capture: Capture, name: str, column: str) -> list[str]:
    found = _find(capture, name, column, ColumnType.TEXT)
    return [capture.strings[index] for index in np.frombuffer(found or b"", "<u4").tolist()]


def _find(capture: Capture, name: str, column: str, kind: ColumnType) -> bytes | None:
    table = capture.tables.get(name)
    if table is None:
        return None
    pairs = zip(table.columns, table.packed, strict=True)
    return next((raw for one, raw in pairs if (one.name, one.type) == (column, kind)), None)


def _add_table(capture: Capture, rows: list[tuple[_Place, _Name]], dropped_count: int) -> Capture:
    strings = {text: index for index, text in reversed(list(enumerate(capture.strings)))}
    order = list(capture.strings)

    def intern(text: str) -> int:
        if text not in strings:
            strings[text] = len(order)
            order.append(text)
        return strings[text]

    columns = (
        array("I", (intern(place.source) for place, _ in rows)),
        array("q", (place.object for place, _ in rows)),
        array("q", (place.offset for place, _ in rows)),
        array("I", (intern(name.function) for _, name in rows)),
        array("q", (name.start for _, name in rows)),
        array("I", (intern(name.note) for _, name in rows)),
    )
    packed = tuple(column.tobytes() for column in columns)
    table = Table(NATIVE_NAMES.name, NATIVE_NAMES.columns, packed, len(rows), dropped_count)
    tables = {**capture.tables, NATIVE_NAMES.name: table}
    return structs.replace(capture, tables=tables, strings=tuple(order))
