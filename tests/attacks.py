"""Hostile files for collectors: which files they open, and what may stand in their place."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct, structs

from perfkit.agent.loop import Problem, attempt
from perfkit.agent.sink import Sink
from perfkit.agent.target import resolve
from perfkit.host import Host, Recent
from perfkit.model import Collector, Session, Target

TREES = Path(__file__).parent / "host"
MAIN_PID = 5000001
HUGE_BYTES = 64 << 20
LONG_LINE_BYTES = 10 << 20
SAMPLER_S = 0.03
_LIBC = ctypes.CDLL(None, use_errno=True)
_IN_OPEN = 0x20
_EVENT = struct.Struct("iIII")
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_DAC_BITS = (1 << 1) | (1 << 2)
_NUMBER = re.compile(rb"(?<![\w.])\d+(?![\w.])")
_Change = Callable[[bytes], bytes]


class Outcome(Struct, frozen=True):
    """How one collector fared with one file, and the CPU time of its own thread."""

    problem: Problem | None
    row_count: int
    cpu_s: float
    memory_bytes: int = 0

    @property
    def state(self) -> str:
        """As its status would say."""
        return "ok" if self.problem is None else self.problem.state


def plant(tree_name: str, root: Path) -> Host:
    """Copies a fixture tree, and adds what live sources want of a service: tasks and maps."""
    shutil.copytree(TREES / tree_name, root, symlinks=True)
    proc = root / "proc"
    maps = Path("/proc/self/maps").read_bytes()
    for name in ("stat", "schedstat"):
        (proc / "self" / name).write_text("1 2 3\n")
    for folder in proc.glob("[0-9]*"):
        task = folder / "task" / folder.name
        task.mkdir(parents=True)
        for name in ("stat", "status"):
            shutil.copy(folder / name, task / name)
        (task / "schedstat").write_text("100 50 3\n")
        (task / "syscall").write_text("45 0x5 0x0 0x0 0x0 0x0 0x0 0x7ffc00 0x7f0000\n")
        (folder / "maps").write_bytes(maps)
        (folder / "root").symlink_to("/")
        (folder / "mem").symlink_to("/proc/self/mem")
        (folder / "exe").unlink(missing_ok=True)
        (folder / "exe").symlink_to(sys.executable)
    net = proc / str(MAIN_PID) / "ns/net"
    net.unlink()
    net.symlink_to("/proc/self/ns/net")
    (root / "dev").mkdir()
    (root / "dev/kmsg").touch()
    return Host(proc, root / "sys")


def find_target(tree_name: str) -> Target:
    """The service of a fixture tree, chosen while all was well."""
    tree = TREES / tree_name
    return resolve(Host(tree / "proc", tree / "sys"), MAIN_PID, only_pid=False)


def copy_links(host: Host, fresh: Path) -> Host:
    """A tree of the same files, in which others can be put in their places."""
    shutil.copytree(host.proc.parent, fresh, symlinks=True, copy_function=link)
    return Host(fresh / "proc", fresh / "sys")


def link(old: str, new: str) -> None:
    """Gives a file a second name."""
    Path(new).hardlink_to(old)


def run_session(collector: Collector, host: Host, target: Target) -> Outcome:
    """Opens a collector, polls twice and closes it, its books kept as the loop keeps them."""
    begin_s = time.thread_time()
    sink = Sink(collector, 1.0)
    watched = structs.replace(host, recent=Recent())
    opened: list[Session] = []
    problems = [attempt(lambda: opened.append(collector.open(watched, target)))]
    if opened:
        poll = lambda: sink.take(opened[0].poll(), watched.now_ns())  # noqa: E731
        problems.append(attempt(poll))
        if hasattr(opened[0], "rate"):  # a thread of its own reads
            time.sleep(SAMPLER_S)
        problems.append(attempt(poll))
        problems.append(attempt(lambda: sink.take(opened[0].close(), watched.now_ns())))
    met = [problem for problem in problems if problem is not None]
    worst = next((one for one in met if one.state == "failed"), met[0] if met else None)
    return Outcome(worst, sink.row_count, time.thread_time() - begin_s)


def run_measured(collector: Collector, host: Host, target: Target) -> Outcome:
    """The same, with the memory that it took beyond what was in use before."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before_bytes = _read_peak_bytes()
    outcome = run_session(collector, host, target)
    return structs.replace(outcome, memory_bytes=_read_peak_bytes() - before_bytes)


def _read_peak_bytes() -> int:
    text = Path("/proc/self/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) << 10


@contextlib.contextmanager
def watching(root: Path) -> Iterator[Callable[[], set[str]]]:
    """Notes which files and folders below `root` are opened, by C too; gives a way to ask."""
    descriptor = _LIBC.inotify_init1(os.O_NONBLOCK)
    folders: dict[int, str] = {}
    for folder, _, _ in os.walk(root):
        mark = _LIBC.inotify_add_watch(descriptor, os.fsencode(folder), _IN_OPEN)
        folders[mark] = os.path.relpath(folder, root)

    def ask() -> set[str]:
        found: set[str] = set()
        with contextlib.suppress(BlockingIOError):
            while raw := os.read(descriptor, 1 << 16):
                place = 0
                while place < len(raw):
                    mark, _, _, size = _EVENT.unpack_from(raw, place)
                    name = raw[place + _EVENT.size :][:size].rstrip(b"\0").decode()
                    place += _EVENT.size + size
                    found.add(os.path.normpath(f"{folders[mark]}/{name}"))
        return found

    try:
        yield ask
    finally:
        os.close(descriptor)


def list_opened(act: Callable[[], object], root: Path) -> dict[str, str]:
    """What a healthy session opens of a tree: one path, the deepest, of each kind."""
    with watching(root) as ask:
        ask()
        act()
        paths = ask() - {".", "proc", "sys"}
    ordered = sorted(paths, key=lambda path: (path.count("/"), path))
    return {_to_kind(path): path for path in ordered}


def _to_kind(path: str) -> str:
    """What files of different processes or cgroups have in common."""
    if path.startswith("sys/fs/cgroup"):
        return f"cgroup {Path(path).name}" if Path(path).suffix else "cgroup"
    known = {str(MAIN_PID): "MAIN"}
    words = (known.get(word, "PID" if word.isdecimal() else word) for word in path.split("/"))
    return "/".join(words)


def _each_number(word: bytes) -> _Change:
    return lambda text: _NUMBER.sub(word, text)


def _each_line(change: Callable[[list[bytes]], list[bytes]]) -> _Change:
    return lambda text: b"".join(
        b" ".join(change(line.split(b" "))) + b"\n" for line in text.split(b"\n")[:-1]
    )


TEXTS: dict[str, _Change] = {
    "empty": lambda text: b"",
    "one NUL": lambda text: b"\0",
    "blank lines": lambda text: b"\n \n\t\n" + text,
    "garbage": lambda text: bytes(place * 167 % 251 for place in range(5000)),
    "words": lambda text: b"x: y\nz w=v 1:2 (a) b\n",
    "not UTF-8": lambda text: b"\xff" + text.replace(b" ", b" \xfe") + b"\xff",
    "cut": lambda text: text[: len(text) // 2],
    "negative numbers": _each_number(b"-7"),
    "40 digits": _each_number(b"9" * 40),
    "5000 digits": _each_number(b"9" * 5000),
    "no numbers": _each_number(b"nan"),
    "infinite numbers": _each_number(b"inf"),
    "other digits": _each_number("٣".encode()),
    "missing fields": _each_line(lambda words: words[: len(words) // 2]),
    "extra fields": _each_line(lambda words: [*words, b"7", b"x=9", b"8:"]),
    "one long line": lambda text: text[:64].partition(b"\n")[0] + b" 9" * (LONG_LINE_BYTES // 2),
}
HEAVY = ("huge", "one long line")
PLACES = ("folder", "loop", "refused", "vanished")
ATTACKS = (*(name for name in TEXTS if name not in HEAVY), *PLACES)


@contextlib.contextmanager
def attacked(path: Path, name: str) -> Iterator[None]:
    """Has something hostile stand in the place of a file or folder for a while."""
    kept = path.with_name(path.name + ".kept")
    path.rename(kept)
    try:
        _put(path, kept, name)
        with refusing() if name == "refused" else contextlib.nullcontext():
            yield
    finally:
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()
        kept.rename(path)


def put(path: Path, name: str) -> None:
    """Replaces a file by something hostile for good."""
    kept = path.with_name(path.name + ".kept")
    path.rename(kept)
    _put(path, kept, name)


def _put(path: Path, kept: Path, name: str) -> None:
    if name in TEXTS:
        path.write_bytes(TEXTS[name](kept.read_bytes() if kept.is_file() else b"1 2 3\n"))
    elif name == "huge":
        path.touch()
        os.truncate(path, HUGE_BYTES)
    elif name == "folder":
        path.mkdir()
    elif name == "loop":
        path.symlink_to(path.name)
    elif name == "vanished":  # listed, and not there when it is opened
        path.symlink_to("nothing")
    elif name == "refused":
        path.touch()
        path.chmod(0)
    else:
        assert name == "silent"
        os.mkfifo(path)


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """Takes from this thread what lets root read files whose mode forbids it."""
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    before = ctypes.create_string_buffer(24)
    assert _LIBC.capget(header, before) == 0
    words = list(struct.unpack("6I", before.raw))
    words[0] &= ~_CAP_DAC_BITS
    assert _LIBC.capset(header, struct.pack("6I", *words)) == 0
    try:
        yield
    finally:
        _LIBC.capset(header, before.raw)
