"""Where blocked threads wait: the tables of stacks that the thread sampler takes in passing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from perfkit import _native
from perfkit.allowance import Want
from perfkit.collectors._descriptors import to_text
from perfkit.collectors._native_frames import FRAME_COLUMNS, OBJECT_COLUMNS, to_object_rows
from perfkit.collectors._pyframes import find_interpreter
from perfkit.collectors.python_runtime import Runtime
from perfkit.errors import Unavailable
from perfkit.host import Host
from perfkit.model import Column, ColumnType, Item, Row, Rows, TableSchema

WANT = Want(start_ratio=0.0004, ratio_min=0.0002, ratio_max=0.001, weight=1)
PROCESSES_PER_POLL = 4  # whose interpreter is looked for: their mappings are read for it
PROCESS_LIMIT = 64  # with Python frames
FAILED_RATIO = 0.05  # more looks without a stack than this are worth a remark
ENTRY_BIT = 1 << 31  # of a Python function's number: C called it
_TEXT = ColumnType.TEXT

WALL_OBJECTS = TableSchema(
    "wall_objects",
    OBJECT_COLUMNS,
    source="/proc/PID/maps and the files that it names",
    help="What the frames of wall_stacks lie in.",
)
WALL_STACKS = TableSchema(
    "wall_stacks",
    FRAME_COLUMNS,
    source="process_vm_readv, unwound by the files' call frame tables",
    help="Native frames of each stack, leaf first.",
)
WALL_SAMPLES = TableSchema(
    "wall_samples",
    (
        Column("t_ns", "ns"),
        Column("pid"),
        Column("tid"),
        Column("moved_ns", "ns", help="of the row of thread_runs that the thread was in"),
        Column("stack", help="-1: none, since it ran, or could not be read"),
        Column("weight_ns", "ns", help="wall time that it stands for"),
        Column("end", help="0 root, 1 truncated, 2 lost, 3 too deep; -1 no stack"),
        Column("python_stack", help="of wall_python_stacks; -1 none, or not read"),
        Column("is_exact", help="1: it did not move meanwhile, so both stacks belong together"),
    ),
    source="the task's syscall file and process_vm_readv, schedstat before and after",
    help="Stacks of blocked threads at observations that were drawn; weights add up to the time "
    "of the threads from their second observation on.",
)
WALL_PYTHON_STACKS = TableSchema(
    "wall_python_stacks",
    (
        Column("stack"),
        Column("depth", help="0 = the innermost"),
        Column("function", type=_TEXT, help="qualified; untrusted"),
        Column("file", type=_TEXT, help="untrusted"),
        Column("is_entry", help="1: C called it, so that C frames lie between it and the next"),
    ),
    source="process_vm_readv of CPython 3.11 to 3.13",
    help="Python frames of each stack, innermost first.",
)
TABLES = (WALL_OBJECTS, WALL_STACKS, WALL_SAMPLES, WALL_PYTHON_STACKS)


def choose_want(host: Host) -> Want:
    """What stacks of blocked threads may cost: what is asked for, or what a diagnosis wants."""
    ratio = host.stacks.wall_ratio_max
    return Want(ratio / 2, WANT.ratio_min, ratio, WANT.weight) if ratio > WANT.ratio_max else WANT


class WallStacks:
    """Tells the sampler of interpreters and its budget, and makes rows of what it took."""

    def __init__(self, host: Host, sampler: _native.ThreadSampler) -> None:
        self._host, self._sampler = host, sampler
        self._want = choose_want(host)
        self._runtimes: dict[tuple[str, str], Runtime | None] = {}
        self._looked: set[int] = set()
        self._python_count = 0
        self._passed_count = 0
        self._object_count = self._python_stack_count = 0
        self._names: list[tuple[str, str]] = []

    def find_interpreters(self, pids: Iterable[int], limit: int = PROCESSES_PER_POLL) -> None:
        """Has Python frames read in those of these processes that have them, few at a time."""
        new = [pid for pid in pids if pid not in self._looked]
        for pid in new[:limit]:
            self._looked.add(pid)
            if self._python_count < PROCESS_LIMIT:
                self._add(pid)

    def _add(self, pid: int) -> None:
        try:
            found = find_interpreter(self._host, pid, self._runtimes)
        except Unavailable:  # python_runtime says so
            return
        if found is not None:
            start, offsets = found
            self._sampler.add_python(pid, start, offsets.as_tuple())
            self._python_count += 1

    def share_budget(self) -> None:
        """Asks what stacks may take of a core by now."""
        if self._host.allowance is None:
            return
        status = self._sampler.wall_status()
        is_full = status["passed_count"] == self._passed_count
        self._passed_count = status["passed_count"]
        share = self._host.allowance.share
        ratio = share("wall_stacks", self._want, status["spent_ns"], is_full=is_full)
        self._sampler.set_wall_budget(ratio)

    def take(self) -> Iterator[Item]:
        """The frames of stacks that are new; asked for after the samples were taken."""
        objects, stacks, names, python_stacks = self._sampler.take_stacks()
        self._names += [(_to_name(name), _to_name(file)) for name, file in names]
        yield from to_object_rows(WALL_OBJECTS.name, objects, self._object_count)
        self._object_count += len(objects)
        yield Rows(WALL_STACKS.name, stacks, len(stacks[0]) // 8)
        for found in python_stacks:
            for depth, number in enumerate(found):
                function, file = self._names[number & ~ENTRY_BIT]
                is_entry = int(number & ENTRY_BIT != 0)
                values = (self._python_stack_count, depth, function, file, is_entry)
                yield Row(WALL_PYTHON_STACKS.name, values)
            self._python_stack_count += 1

    def to_remarks(self) -> Iterator[str]:
        """What a reader of the stacks must know."""
        status = self._sampler.wall_status()
        if status["full_count"]:
            yield f"{status['full_count']} stacks of blocked threads found no room"
        if status["failed_count"] > FAILED_RATIO * max(status["look_count"], 1):
            share = 100 * status["failed_count"] / status["look_count"]
            yield f"{share:.0f} % of the stacks of blocked threads could not be read"


def _to_name(text: bytes) -> str:
    return to_text(text.decode("utf-8", "replace"))
