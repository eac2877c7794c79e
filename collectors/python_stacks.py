"""Stacks of the service's Python threads, read without ever stopping a process.

Of the versions of CPython that we know, eight interpreters are read, the busiest ones. Of others,
py-spy samples two: all threads where there are few (an event loop, a prefork worker), else only who
holds the interpreter's lock, which costs the same for any number of threads.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator

from msgspec import Struct

from perfkit.collectors import _pyspy
from perfkit.collectors._proc import read_cpu_ns, read_link, read_stat
from perfkit.collectors._pyframes import PROCESS_LIMIT as READ_LIMIT
from perfkit.collectors._pyframes import FrameReader, Look
from perfkit.collectors._service import ServiceTracker
from perfkit.collectors.python_runtime import MAPS_LIMIT_BYTES, parse_maps
from perfkit.errors import Unavailable
from perfkit.host import Host
from perfkit.model import (
    Collector,
    Column,
    ColumnType,
    Item,
    Rate,
    Row,
    Rows,
    Session,
    TableSchema,
    Target,
)

FIXTURE = "live"  # proved on real interpreters, not on fixture trees

PROCESS_LIMIT = 2
CANDIDATE_LIMIT = 32
CHOICE_S = 0.15
# py-spy reads the interpreter's symbols first (20 ms of CPU): that shall not be in the window.
SETTLE_S = 0.1
FINISH_S = 0.45
STACK_LIMIT = 2048
STRETCH_LIMIT = 20_000
# What one look costs py-spy (measured): at the holder of the lock, which it finds by asking all
# threads; at each of all threads.
GIL_LOOK_S = 0.00018
GIL_THREAD_S = 0.000003
THREAD_LOOK_S = 0.0002
COST_RATIO = 0.005
RATE_MAX_HERTZ = 25.0
# py-spy hears that it shall end after its next sample only, so it must not be too rare.
RATE_MIN_HERTZ = {"gil": 4.0, "wall": 8.0}
WALL_THREADS_MAX = 5
GIL, WALL = "gil", "wall"

KINDS = (
    "frames: running, or ready to; frames_blocked: was not; "
    "by py-spy gil: held the lock; wall: running or not"
)
STACKS = TableSchema(
    "stacks",
    (
        Column("stack", help="number of the stack in this capture"),
        Column("depth", help="0 is the innermost function"),
        Column("function", type=ColumnType.TEXT, help="untrusted text"),
        Column("file", type=ColumnType.TEXT, help="untrusted text"),
    ),
    source="_PyRuntime of CPython by process_vm_readv; else py-spy record --nonblocking",
    help="Every distinct Python stack, one row a frame.",
)
STACK_SAMPLES = TableSchema(
    "stack_samples",
    (
        Column("begin_ns", "ns", help="the sample in which the stack was seen first"),
        Column("end_ns", "ns", help="the sample in which this thread was seen with another"),
        Column("pid"),
        Column("tid", help="-1 not known"),
        Column("kind", type=ColumnType.TEXT, help=KINDS),
        Column("stack"),
        Column("run_ns", "ns", help="CPU time that this stands for; -1 not known"),
    ),
    source="_PyRuntime of CPython by process_vm_readv, schedstat and syscall of each thread; "
    "else py-spy record --nonblocking; --gil or --idle",
    help=(
        "The last stack known of a thread, from when to when. A thread that does not hold the lock "
        "is not seen in kind gil: its stretch goes on. Samples come at random intervals. In kinds "
        "frames and frames_blocked, begin_ns is the look before. What the threads of a process ran "
        "is shared among the looks that met one running, by the time since the look before."
    ),
)
COLLECTIONS = TableSchema(
    "collections",
    (
        Column("t_ns", "ns"),
        Column("pid"),
        Column("young_count", help="of some of the objects, since the interpreter began"),
        Column("full_count", help="of all of them"),
    ),
    source="gc.generation_stats of CPython's main interpreter by /proc/PID/mem",
    help="How often Python's garbage collector ran.",
)


class _Running(Struct, frozen=True):
    """One py-spy and what it looks at."""

    pid: int
    kind: str
    recorder: _pyspy.Recorder


class _Session:
    """Reads what can be read, has py-spy record the rest, and numbers the stacks."""

    def __init__(self, host: Host, target: Target) -> None:
        self._host = host
        self._tracker = ServiceTracker(host, target)
        self._stacks: dict[tuple[_pyspy.Frame, ...], int] = {}
        self._looked: dict[int, int] = {}  # our numbers by those of the reader
        self._running: list[_Running] = []
        self._failed: set[int] = set()
        self._stretch_count = self._dropped_count = 0
        self._rate: Rate | None = None
        self._reader = FrameReader(host)
        self._before = self._read_clocks()
        time.sleep(CHOICE_S)
        self._start_all()
        if self._running:
            time.sleep(SETTLE_S)

    def poll(self) -> Iterator[Item]:
        self._reader.share_budget()
        yield from self._take()
        yield from self._count_collections()
        ended = [one for one in self._running if one.recorder.has_ended]
        self._running = [one for one in self._running if one not in ended]
        problem: Unavailable | None = None
        for one in ended:
            try:
                yield from self._harvest(one, 0.0)
            except Unavailable as absent:
                self._failed.add(one.pid)
                problem = absent
        changes = self._tracker.update()
        self._reader.forget({member.stat.pid for member in (*changes.exited, *changes.execed)})
        if problem is not None:
            raise problem
        if not self._running:
            self._start_all()

    def close(self) -> Iterator[Item]:
        for one in self._running:
            _pyspy.ask_to_end(one.recorder)
        self._reader.stop()
        yield from self._take()
        yield from self._count_collections()
        deadline_s = time.monotonic() + FINISH_S
        problem: Unavailable | None = None
        while self._running:
            try:
                left_s = max(0.0, deadline_s - time.monotonic())
                yield from self._harvest(self._running.pop(0), left_s)
            except Unavailable as absent:
                problem = absent
        if problem is not None:
            raise problem

    def children(self) -> tuple[int, ...]:
        """The pids of what runs for us at this moment."""
        return tuple(one.recorder.pid for one in self._running)

    def rate(self) -> Rate | None:
        """The rate of our own reader; else the planned one of py-spy."""
        return self._reader.rate() or self._rate

    def _take(self) -> Iterator[Item]:
        """What our own reader has seen."""
        dropped_before = self._dropped_count + self._reader.dropped_count
        for look in self._reader.take():
            yield from self._keep_look(look)
        lost = self._dropped_count + self._reader.dropped_count - dropped_before
        if lost:
            yield Rows(STACK_SAMPLES.name, (), 0, lost)

    def _count_collections(self) -> Iterator[Item]:
        for one in self._reader.count_collections():
            yield Row(COLLECTIONS.name, (one.t_ns, one.pid, one.young_count, one.full_count))

    def _keep_look(self, look: Look) -> Iterator[Item]:
        number = self._looked.get(look.stack)
        if number is None:
            frames = self._reader.frames_of(look.stack)
            stack = tuple(_pyspy.Frame(function, file) for function, file in frames)
            number = yield from self._number(stack)
            if number is not None:
                self._looked[look.stack] = number
        row = (look.begin_ns, look.end_ns, look.pid, look.tid, look.kind)
        yield from self._tell(row, number, look.run_ns)

    def _read_clocks(self) -> dict[int, int]:
        pids = self._tracker.service_pids
        return {pid: read_cpu_ns(self._host, pid) for pid in pids}

    def _start_all(self) -> None:
        after = self._read_clocks()
        used = {pid: cpu_ns - self._before.get(pid, 0) for pid, cpu_ns in after.items()}
        self._before = after
        busiest = sorted(used.keys() - self._failed, key=lambda pid: (-used[pid], pid))
        chosen = self._choose(self._read_known(busiest[:CANDIDATE_LIMIT]))
        if chosen:
            _pyspy.find_program()
        rates = []
        for pid in chosen:
            count = _count_threads(self._host, pid)
            sees_all = count <= WALL_THREADS_MAX
            kind = WALL if sees_all else GIL
            look_s = THREAD_LOOK_S * count if sees_all else GIL_LOOK_S + GIL_THREAD_S * count
            paid_hertz = COST_RATIO / (look_s * len(chosen))
            rates.append(max(RATE_MIN_HERTZ[kind], min(RATE_MAX_HERTZ, paid_hertz)))
            self._start(pid, kind, rates[-1])
        if rates:
            self._rate = Rate("python_stacks", min(rates), min(rates), 0, 0)

    def _read_known(self, pids: list[int]) -> list[int]:
        """Has our reader begin with those that it knows; gives the others."""
        others = []
        for pid in pids:
            try:
                if pid not in self._reader.pids and not self._reader.add(pid):
                    others.append(pid)
            except Unavailable:
                others.append(pid)  # py-spy may do, or says why it is refused, too
        is_full = len(self._reader.pids) >= READ_LIMIT
        return [] if is_full else others

    def _choose(self, pids: list[int]) -> list[int]:
        """The first interpreters among these. Raises `Unavailable` where all were refused."""
        chosen: list[int] = []
        problem: Unavailable | None = None
        for pid in pids:
            try:
                if len(chosen) < PROCESS_LIMIT and is_python(self._host, pid):
                    chosen.append(pid)
            except Unavailable as absent:
                problem = absent
        if problem is not None and not chosen:
            raise problem
        return chosen

    def _start(self, pid: int, kind: str, rate_hertz: float) -> None:
        option = "--gil" if kind == GIL else "--idle"
        recorder = _pyspy.start(pid, rate_hertz, (option,), self._host.now_ns())
        self._running.append(_Running(pid, kind, recorder))

    def _harvest(self, one: _Running, timeout_s: float) -> Iterator[Item]:
        raw = _pyspy.finish(one.recorder, timeout_s)
        dropped_before = self._dropped_count
        for stretch in _pyspy.parse_trace(raw, one.recorder.start_ns):
            yield from self._keep(one, stretch)
        if self._dropped_count > dropped_before:
            lost = self._dropped_count - dropped_before
            yield Rows(STACK_SAMPLES.name, (), 0, lost)

    def _keep(self, one: _Running, stretch: _pyspy.Stretch) -> Iterator[Item]:
        number = yield from self._number(stretch.stack)
        row = (stretch.begin_ns, stretch.end_ns, one.pid, stretch.tid, one.kind)
        yield from self._tell(row, number, -1)

    def _number(self, stack: tuple[_pyspy.Frame, ...]) -> Generator[Item, None, int | None]:
        """Yields the frames of a stack that is new, and returns its number; None: no room."""
        number = self._stacks.get(stack)
        if number is None and len(self._stacks) < STACK_LIMIT:
            number = self._stacks[stack] = len(self._stacks)
            for depth, frame in enumerate(stack):
                yield Row(STACKS.name, (number, depth, frame.function, frame.file))
        return number

    def _tell(self, row: tuple[int | str, ...], number: int | None, run_ns: int) -> Iterator[Item]:
        if number is None or self._stretch_count >= STRETCH_LIMIT:
            self._dropped_count += 1
            return
        self._stretch_count += 1
        yield Row(STACK_SAMPLES.name, (*row, number, run_ns))


def is_python(host: Host, pid: int) -> bool:
    """Whether CPython is mapped into a process: its program or a library is named after it.

    Raises: `Unavailable` where that may not be read.
    """
    text = host.read_proc(f"{pid}/maps", MAPS_LIMIT_BYTES)
    exe = read_link(host, f"{pid}/exe")
    return any("python" in mapped.path.rpartition("/")[2] for mapped in parse_maps(text, exe))


def _count_threads(host: Host, pid: int) -> int:
    try:
        return read_stat(host, pid).thread_count
    except Unavailable:
        return WALL_THREADS_MAX + 1


def open_session(host: Host, target: Target) -> Session:
    """Chooses the interpreters that are busiest now and begins."""
    return _Session(host, target)


COLLECTOR = Collector(
    "python_stacks",
    metrics=(),
    tables=(STACKS, STACK_SAMPLES, COLLECTIONS),
    scope="target",
    interval_s=1.0,
    timeout_s=0.5,
    open=open_session,
)
