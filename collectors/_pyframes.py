"""Python stacks read straight from interpreters that we know, by a thread in C.

A process is taken only where a first look finds its interpreter as expected; every other one is
left to whoever asked.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator

from msgspec import Struct

from perfkit import _native
from perfkit.allowance import Want
from perfkit.collectors import _pyoffsets
from perfkit.collectors._descriptors import to_text
from perfkit.collectors._proc import parse_status
from perfkit.collectors._pyoffsets import Offsets
from perfkit.collectors.python_runtime import Runtime, find_runtime
from perfkit.dump import Gil
from perfkit.errors import Unavailable
from perfkit.host import Host
from perfkit.model import Rate

INTERVAL_NS = 20_000_000
WANT = Want(start_ratio=0.005, ratio_min=0.002, ratio_max=0.006, weight=4)
PROCESS_LIMIT = 8
STATUS_LIMIT_BYTES = 16384
ADDRESS_LIMIT = 1 << 47
TID_LIMIT = 1 << 30
COLLECTIONS_LIMIT = 1 << 48
TORN_RATIO, MISSED_RATIO = 0.05, 0.05  # more than this is worth a remark
FRAMES, BLOCKED = "frames", "frames_blocked"

_GRANT = "ptrace access to the service (root or CAP_SYS_PTRACE; the same user and ptrace_scope 0)"


class Look(Struct, frozen=True):
    """From one look at a thread to another between which its stack was the same.

    Shape: `stack` is the number of a stack, `run_ns` the CPU time that this stands for.
    """

    begin_ns: int
    end_ns: int
    pid: int
    tid: int
    kind: str
    stack: int
    run_ns: int


class Collections(Struct, frozen=True):
    """How often a process has collected garbage since it began: some objects, or all of them."""

    t_ns: int
    pid: int
    young_count: int
    full_count: int


class FrameReader:
    """Looks at up to PROCESS_LIMIT interpreters at once, as soon as one is known."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._runtimes: dict[tuple[str, str], Runtime | None] = {}
        self._sampler: _native.PythonSampler | None = None
        self._names: list[tuple[str, str]] = []
        self._stacks: list[tuple[int, ...]] = []
        self._found: dict[int, tuple[int, Offsets]] = {}
        self.dropped_count = 0

    @property
    def pids(self) -> set[int]:
        """The processes that are looked at."""
        return set(self._found)

    def add(self, pid: int) -> bool:
        """Begins with a process; False where it has no interpreter that can be read, or no room.

        Raises: `Unavailable` where it may not be read.
        """
        if len(self._found) >= PROCESS_LIMIT:
            return False
        found = find_interpreter(self._host, pid, self._runtimes)
        if found is None:
            return False
        if self._sampler is None:
            self._sampler = _native.PythonSampler(
                os.fspath(self._host.proc), interval_ns=INTERVAL_NS, budget_ratio=WANT.start_ratio
            )
        start, offsets = found
        try:
            self._sampler.add(pid, start, offsets.as_tuple())
        except (OSError, ValueError):
            return False  # more processes came and went than can be ordered, or odd offsets
        self._found[pid] = found
        return True

    def forget(self, pids: set[int]) -> None:
        """Makes room for others in the place of processes that have exited."""
        self._found = {pid: found for pid, found in self._found.items() if pid not in pids}

    def take(self) -> Iterator[Look]:
        """What is new; `frames_of` tells the stacks."""
        if self._sampler is None:
            return
        columns, names, stacks, dropped_count = self._sampler.take()
        self._names += [(_to_name(name), _to_name(file)) for name, file in names]
        self._stacks += stacks
        self.dropped_count += dropped_count
        rows = zip(*(array("q", column) for column in columns), strict=True)
        for begin_ns, end_ns, pid, tid, is_running, stack, run_ns in rows:
            kind = FRAMES if is_running else BLOCKED
            yield Look(begin_ns, end_ns, pid, tid, kind, stack, run_ns)

    def count_collections(self) -> Iterator[Collections]:
        """How often each main interpreter has collected garbage by now, where that can be read."""
        for pid, (start, offsets) in self._found.items():
            try:
                memory = os.open(f"{self._host.proc}/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue  # it has exited, or is no longer ours to read
            try:
                found = read_collections(memory, start, offsets)
            finally:
                os.close(memory)
            if found is not None:
                yield Collections(self._host.now_ns(), pid, sum(found[:-1]), found[-1])

    def share_budget(self) -> None:
        """Asks what it may take of a core by now."""
        if self._sampler is None or self._host.allowance is None:
            return
        status = self._sampler.status()
        is_full = status["interval_ns"] <= INTERVAL_NS
        share = self._host.allowance.share
        self._sampler.set_budget(share("python_stacks", WANT, status["spent_ns"], is_full=is_full))

    def frames_of(self, stack: int) -> tuple[tuple[str, str], ...]:
        """The (function, file) pairs of a stack that a look named, innermost first."""
        return tuple(self._names[number] for number in self._stacks[stack])

    def stop(self) -> None:
        """Ends it: what is left comes with the next `take`."""
        if self._sampler is not None:
            self._sampler.stop()

    def rate(self) -> Rate | None:
        """How often it looked, and what a reader of the stacks must know; None: not at all."""
        if self._sampler is None:
            return None
        status = self._sampler.status()
        span_ns = max(status["last_tick_ns"] - status["started_ns"], 1)
        return Rate(
            "python_stacks",
            requested_hertz=1e9 / INTERVAL_NS,
            achieved_hertz=max(status["tick_count"] - 1, 0) * 1e9 / span_ns,
            tick_count=status["tick_count"],
            missed_count=status["missed_count"],
            note="; ".join(to_remarks(status)),
        )


def find_interpreter(
    host: Host, pid: int, known: dict[tuple[str, str], Runtime | None]
) -> tuple[int, Offsets] | None:
    """Where a process's runtime lies and how it is laid out, if a look confirms it.

    `known` keeps what files say. Raises: `Unavailable` where it may not be read.
    """
    status = host.read_proc(f"{pid}/status", STATUS_LIMIT_BYTES)
    if len(parse_status(status).get("NSpid", "").split()) > 1:
        return None  # CPython knows its threads by the numbers of another namespace
    found = find_runtime(host, pid, known)
    if found is None:
        return None
    try:
        memory = os.open(f"{host.proc}/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        refused = isinstance(error, PermissionError)
        why = f"the memory of process {pid} cannot be read: {error.strerror}"
        raise Unavailable(why, grant=_GRANT if refused else "") from error
    try:
        return _confirm(memory, found.start_address, found.version)
    except (OSError, OverflowError):
        return None
    finally:
        os.close(memory)


def _confirm(memory: int, start: int, version: str) -> tuple[int, Offsets] | None:
    """Follows runtime, interpreter, thread and back again."""
    offsets = _pyoffsets.find_offsets(version)
    if _pyoffsets.is_published(version):
        raw = os.pread(memory, _pyoffsets.PUBLISHED_BYTES, start)
        offsets = _pyoffsets.parse_published(raw)
    if offsets is None:
        return None
    interpreter = _read_word(memory, start + offsets.runtime_interpreters)
    thread = _read_word(memory, interpreter + offsets.interpreter_threads)
    back = _read_word(memory, thread + offsets.thread_interpreter)
    return (start, offsets) if back == interpreter else None


def read_gil(memory: int, start: int, offsets: Offsets) -> Gil | None:
    """Who holds the main interpreter's lock at this moment; None where that cannot be read.

    `memory` is the process's, open; `start` its runtime's address.
    """
    try:
        if offsets.runtime_lock >= 0:
            lock = start + offsets.runtime_lock
        elif offsets.interpreter_lock >= 0:
            interpreter = _read_word(memory, start + offsets.runtime_interpreters)
            lock = _read_word(memory, interpreter + offsets.interpreter_lock)
        else:
            return None
        is_held = os.pread(memory, 4, lock + _pyoffsets.LOCK_IS_HELD)
        thread = _read_word(memory, lock + _pyoffsets.LOCK_HOLDER)
        native = _read_word(memory, thread + offsets.thread_native_id) if thread else 0
    except (OSError, OverflowError):
        return None
    return Gil(is_held == b"\1\0\0\0", native if 0 < native < TID_LIMIT else 0)


def read_collections(memory: int, start: int, offsets: Offsets) -> tuple[int, ...] | None:
    """The collections of each generation of the main interpreter, youngest first.

    Missing: None where that cannot be read. Source: struct gc_generation_stats, pycore_gc.h.
    """
    if offsets.interpreter_collecting < 0:
        return None
    step = 8 * _pyoffsets.GENERATION_WORDS
    size = step * _pyoffsets.GENERATION_COUNT
    try:
        interpreter = _read_word(memory, start + offsets.runtime_interpreters)
        raw = os.pread(memory, size, interpreter + offsets.interpreter_collecting - size)
    except (OSError, OverflowError):
        return None
    counts = tuple(int.from_bytes(raw[at : at + 8], "little") for at in range(0, size, step))
    is_whole = len(raw) == size and max(counts) < COLLECTIONS_LIMIT
    return counts if is_whole else None


def _read_word(memory: int, address: int) -> int:
    if not 0 < address < ADDRESS_LIMIT:
        raise OverflowError
    return int.from_bytes(os.pread(memory, 8, address), "little")


def _to_name(text: bytes) -> str:
    return to_text(text.decode("utf-8", "replace"))


def to_remarks(status: dict[str, int]) -> Iterator[str]:
    """What kept the sampler from seeing all, if anything did."""
    planned = max(status["tick_count"] + status["missed_count"], 1)
    if status["missed_count"] > MISSED_RATIO * planned:
        yield "slowed by its budget or a busy host"
    if status["torn_count"] > TORN_RATIO * max(status["walk_count"], 1):
        share = 100 * status["torn_count"] / status["walk_count"]
        yield f"{share:.0f} % of the looks met a stack that changed under them"
    if status["full_count"]:
        yield f"{status['full_count']} stacks found no room"
    if status["refused_count"]:
        yield f"some Python stacks were refused (grant {_GRANT})"
    if status["over_limit_count"]:
        yield "more threads than are followed: some were left out"
    if status["is_abandoned"]:
        yield "the sampler did not end in time and was left behind"
