"""Where CPython keeps its runtime in each process: waits in there are waits for the interpreter."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from msgspec import Struct

from perfkit.collectors._elf import ElfError, Image, Segment, find_bias, read_at, read_image
from perfkit.collectors._proc import read_link
from perfkit.collectors._service import ServiceTracker
from perfkit.errors import Unavailable
from perfkit.host import Host
from perfkit.model import (
    Collector,
    Column,
    ColumnType,
    Item,
    Row,
    Session,
    TableSchema,
    Target,
)

FIXTURE = "live"  # proved on the interpreters at hand, not on fixture trees

MAPS_LIMIT_BYTES = 16 << 20
FILE_LIMIT = 8
MAPPING_LIMIT = 64
DELETED = " (deleted)"
RUNTIME, VERSION = "_PyRuntime", "Py_Version"  # 3.7 and 3.11 brought them
_NAME_VERSION = re.compile(r"python(3\.[0-9]{1,2})")

PYTHON_RUNTIMES = TableSchema(
    "python_runtimes",
    (
        Column("pid"),
        Column("start_address"),
        Column("end_address", help="the first address behind it"),
        Column("version", type=ColumnType.TEXT, help='as "3.11.7", "3.8", or "" unknown'),
    ),
    source="symbol _PyRuntime of a file in /proc/PID/maps, load bias applied",
    help="The range of each CPython runtime (3.7 or later) in the service's processes.",
)


class MappedFile(Struct, frozen=True):
    """A file in a process's memory and where it lies: (start address, file offset) pairs.

    `span` is the address range of its first mapping, as the folder map_files spells it.
    """

    path: str
    identity: tuple[str, str]
    span: str
    mappings: list[tuple[int, int]]


class Runtime(Struct, frozen=True):
    """What one file says about its runtime, before it is loaded anywhere."""

    segments: tuple[Segment, ...]
    address: int
    size_bytes: int
    version: str


class LoadedRuntime(Struct, frozen=True):
    """Where a process has its runtime; `end_address` is the first one behind it."""

    start_address: int
    end_address: int
    version: str

    @property
    def span(self) -> tuple[int, int]:
        """Both addresses."""
        return self.start_address, self.end_address


class _Session:
    """Looks at each process once, and again when it execs."""

    def __init__(self, host: Host, target: Target) -> None:
        self._host = host
        self._tracker = ServiceTracker(host, target)
        self._known: set[int] = set()
        self._runtimes: dict[tuple[str, str], Runtime | None] = {}
        # The dear first look is taken before the window begins.
        self._first: tuple[list[Row], Unavailable | None] | None = self._look()

    def poll(self) -> Iterable[Item]:
        if self._first is None:
            changes = self._tracker.update()
            self._known -= {member.stat.pid for member in (*changes.execed, *changes.exited)}
        rows, problem = self._first or self._look()
        self._first = None
        yield from rows
        if problem is not None:
            raise problem

    def close(self) -> Iterable[Item]:
        return ()

    def _look(self) -> tuple[list[Row], Unavailable | None]:
        """What is found in processes not looked at yet, and why one of them could not be read."""
        rows: list[Row] = []
        problem: Unavailable | None = None
        for pid in self._tracker.service_pids:
            if pid not in self._known:
                self._known.add(pid)
                try:
                    rows += self._read(pid)
                except Unavailable as absent:
                    problem = absent
        return rows, problem

    def _read(self, pid: int) -> Iterator[Row]:
        found = find_runtime(self._host, pid, self._runtimes)
        if found is not None:
            yield Row("python_runtimes", (pid, *found.span, found.version))


def find_runtime(
    host: Host, pid: int, known: dict[tuple[str, str], Runtime | None]
) -> LoadedRuntime | None:
    """The runtime of a process; `known` keeps what files say. Missing: None where it has none.

    Raises: `Unavailable` where its mappings, or a file that must be an interpreter, are unreadable.
    """
    text = host.read_proc(f"{pid}/maps", MAPS_LIMIT_BYTES)
    exe = read_link(host, f"{pid}/exe").removesuffix(DELETED)
    blind = ""
    for mapped in parse_maps(text, exe):
        if mapped.identity not in known:
            known[mapped.identity] = read_runtime(host, pid, mapped)
        runtime = known[mapped.identity]
        if runtime is None:
            if _is_named_python(mapped.path):
                blind = mapped.path
            continue
        bias = find_bias(Image(runtime.segments, {}), mapped.mappings)
        if bias is not None:
            start = runtime.address + bias
            return LoadedRuntime(start, start + runtime.size_bytes, runtime.version)
    if blind:
        raise Unavailable(f"{blind}: no symbol {RUNTIME}, or not readable; GIL waits unseen")
    return None


def parse_maps(text: str, exe: str) -> list[MappedFile]:
    """Finds the mapped files that may hold CPython: the program, and files named after Python."""
    found: dict[tuple[str, str], MappedFile] = {}
    for line in text.splitlines():
        if "python" not in line and not (exe and exe in line):
            continue
        fields = line.split(None, 5)
        if len(fields) < 6 or not fields[5].startswith("/"):
            continue
        path = fields[5].removesuffix(DELETED)
        if not _is_named_python(path) and path != exe:
            continue
        try:
            start, end = (int(edge, 16) for edge in fields[0].split("-"))
            offset = int(fields[2], 16)
        except ValueError:
            continue
        identity = (fields[3], fields[4])
        if identity not in found and len(found) >= FILE_LIMIT:
            continue
        mapped = found.setdefault(identity, MappedFile(path, identity, f"{start:x}-{end:x}", []))
        if len(mapped.mappings) < MAPPING_LIMIT:
            mapped.mappings.append((start, offset))
    # The library first: a program that is linked to it may name the symbol without having it.
    return sorted(found.values(), key=lambda file: "libpython" not in PurePosixPath(file.path).name)


def _is_named_python(path: str) -> bool:
    """Whether a file may be an interpreter; its extension modules are called otherwise."""
    return path.rpartition("/")[2].startswith(("python", "libpython"))


def read_runtime(host: Host, pid: int, mapped: MappedFile) -> Runtime | None:
    """Looks the runtime up in a file; None where it has none, or cannot be read."""
    descriptor = _open(host, pid, mapped)
    if descriptor is None:
        return None
    try:
        image = read_image(descriptor, (RUNTIME, VERSION))
        runtime = image.symbols.get(RUNTIME)
        if runtime is None or runtime.size_bytes == 0:
            return None
        version = ""
        if VERSION in image.symbols:
            raw = read_at(descriptor, image, image.symbols[VERSION].address, 4)
            version = parse_version(raw)
        version = version or _name_version(mapped.path)
        return Runtime(image.segments, runtime.address, runtime.size_bytes, version)
    except (ElfError, OSError):
        return None
    finally:
        os.close(descriptor)


def parse_version(raw: bytes) -> str:
    """Reads PY_VERSION_HEX, 4 bytes little-endian: major, minor, micro, level and serial."""
    if len(raw) != 4 or raw[3] != 3:
        return ""
    return f"{raw[3]}.{raw[2]}.{raw[1]}"


def _name_version(path: str) -> str:
    match = _NAME_VERSION.search(PurePosixPath(path).name)
    return match.group(1) if match else ""


def _open(host: Host, pid: int, mapped: MappedFile) -> int | None:
    """Opens a mapped file as its process sees it, also in another mount namespace or deleted."""
    folder = host.proc / str(pid)
    places: list[Path] = [
        folder / "map_files" / mapped.span,
        folder / "root" / mapped.path.lstrip("/"),
    ]
    for place in places:
        try:
            # Not blocking: whoever owns the path may have put a FIFO there.
            descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError):
            continue
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
    return None


def open_session(host: Host, target: Target) -> Session:
    """Begins with the processes that the service has now."""
    return _Session(host, target)


COLLECTOR = Collector(
    "python_runtime",
    metrics=(),
    tables=(PYTHON_RUNTIMES,),
    scope="target",
    interval_s=2.0,
    timeout_s=0.5,
    open=open_session,
)
