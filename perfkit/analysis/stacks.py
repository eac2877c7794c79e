"""Python stacks -> profiles: which function the exact CPU time of each thread went to.

Our own reader says of each stretch for how much CPU time it stands. py-spy only says which stack a
thread had when it was seen last, and the scheduler's counters how long it ran: joined slot by slot,
time is exact per thread, and shared among functions as sampled.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from perfkit.analysis.align import Aligned
from perfkit.analysis.columns import Integers, Masks, Reals, sum_by
from perfkit.analysis.states import State
from perfkit.analysis.timeline import Timeline

STACK_LIMIT = 4096
DEPTH_LIMIT = 128
# A thread seen in so many slots is known well enough to speak for the time in between.
SEEN_MIN = 8
GIL, WALL = "gil", "wall"
FRAMES, BLOCKED = "frames", "frames_blocked"
RUNTIME = "runtime"
# Where files of Python's own library lie; in captures that were made unrecognisable, or where only
# names are known, a file is taken for what it is called.
STANDARD_LIBRARY = r"(?:.*/python3\.\d+/|/redacted/)?"
# A comprehension is a part of its function; before CPython 3.12 it has a frame of its own.
_PARTS = re.compile(r"\.<locals>\.<(?:list|dict|set)comp>|\.<locals>\.<genexpr>")
# Where threads of CPython's own library wait for work; seen there, a thread runs hardly ever.
_WAITING_FILES = frozenset({"selectors.py", "threading.py", "queue.py", "socketserver.py"})
_WAITING_FUNCTIONS = frozenset({("thread.py", "_worker"), ("socket.py", "accept")})


@dataclass(frozen=True, order=True)
class Function:
    """A function; both texts are untrusted.

    `kind` is "" in Python; else `native`, `kernel`, or `runtime` for what an interpreter does by
    itself, and `file` is then the object that holds the code.
    """

    name: str
    file: str
    kind: str = ""

    @property
    def words(self) -> str:
        """How reports call it: `module.function (file)`; of native code, `function (object)`."""
        folder, _, base = self.file.rpartition("/")
        if self.kind and base.startswith("["):
            return f"{self.name} {base}"
        if self.kind:
            return f"{self.name} ({base})" if base else self.name
        module = base.removesuffix(".py")
        package = folder.rpartition("/")[2]
        if module == "__init__" and package:
            module, base = package, f"{package}/{base}"
        return f"{module}.{self.name} ({base})" if base else self.name


# What the sampler in C calls a thread's innermost frame while its interpreter collects garbage.
COLLECTION = Function("(garbage collection)", "", RUNTIME)


@dataclass(frozen=True)
class Stacks:
    """Stretches: from `begin` to `end` a thread's last known stack was `stack`.

    `frames[i]` are the functions of stack i, innermost first. `run_ns` is the CPU time that a
    stretch stands for, -1 where only the scheduler's counters tell.
    """

    frames: tuple[tuple[Function, ...], ...]
    begin: Integers
    end: Integers
    pid: Integers
    tid: Integers
    stack: Integers
    run_ns: Integers

    def of_thread(self, pid: int, tid: int) -> list[tuple[int, int, int]]:
        """The stretches of one thread as (begin, end, stack), in time."""
        mine = (self.pid == pid) & (self.tid == tid)
        columns = (self.begin[mine], self.end[mine], self.stack[mine])
        return sorted(zip(*(column.tolist() for column in columns), strict=True))


@dataclass(frozen=True)
class CpuByStack:
    """CPU time per thread, slot and stack; `frames` as in `Stacks`."""

    frames: tuple[tuple[Function, ...], ...]
    thread: Integers
    slot: Integers
    stack: Integers
    ns: Reals


@dataclass(frozen=True)
class FunctionTime:
    """The CPU time of one function: in itself, and with all that it called."""

    function: Function
    self_ns: float
    total_ns: float
    depth: float


def read_stacks(aligned: Aligned, *kinds: str) -> Stacks:
    """Reads the stretches of some kinds; those whose stack is not recorded are dropped.

    Frames that repeat one another (recursion) count once.
    """
    frames, number = _read_frames(aligned)
    table = aligned.table("stack_samples").sorted_by("begin_ns", "pid", "tid", "stack", "end_ns")
    known = np.array([one in number for one in table.integers("stack").tolist()], dtype=bool)
    wanted = np.array([text in kinds for text in table.text("kind")], dtype=bool)
    table = table.where(known & wanted & (table.integers("end_ns") > table.integers("begin_ns")))
    stack = [number[one] for one in table.integers("stack").tolist()]
    return Stacks(
        frames,
        table.integers("begin_ns"),
        table.integers("end_ns"),
        table.integers("pid"),
        table.integers("tid"),
        np.array(stack, dtype=np.int64),
        table.integers("run_ns"),
    )


def read_running(aligned: Aligned) -> Stacks:
    """The stretches to which CPU time may be charged: of threads that ran, as far as is known.

    Of a process that we read ourselves, those that ran; else those of the lock's holders; else, of
    all threads, those that do not visibly wait for work.
    """
    read, held, seen = (read_stacks(aligned, kind) for kind in (FRAMES, GIL, WALL))
    idle = np.array([bool(one) and _waits_for_work(one[0]) for one in seen.frames], dtype=bool)
    by_lock = ~np.isin(held.pid, read.pid)
    kept = ~np.isin(seen.pid, np.concatenate([read.pid, held.pid]))
    if len(idle):
        kept &= ~idle[seen.stack]
    columns = ("begin", "end", "pid", "tid", "stack", "run_ns")
    joined = (
        np.concatenate(
            [getattr(read, name), getattr(held, name)[by_lock], getattr(seen, name)[kept]]
        )
        for name in columns
    )
    return Stacks(read.frames, *joined)


def to_function(name: str, file: str) -> Function:
    """A Python function, of which comprehensions are parts."""
    if not file and name == COLLECTION.name:
        return COLLECTION
    return Function(_PARTS.sub("", name), file)


def without_repeats(functions: Sequence[Function]) -> tuple[Function, ...]:
    """The frames with what repeats itself (recursion) once."""
    return tuple(one for at, one in enumerate(functions) if not at or one != functions[at - 1])


def _waits_for_work(function: Function) -> bool:
    file = function.file.rpartition("/")[2]
    return file in _WAITING_FILES or (file, function.name) in _WAITING_FUNCTIONS


def _read_frames(
    aligned: Aligned,
) -> tuple[tuple[tuple[Function, ...], ...], dict[int, int]]:
    table = aligned.table("stacks").sorted_by("stack", "depth")
    columns = (table.integers("stack").tolist(), table.text("function"), table.text("file"))
    rows: dict[int, list[Function]] = {}
    for stack, name, file in zip(*columns, strict=True):
        if stack not in rows and len(rows) >= STACK_LIMIT:
            continue
        frames = rows.setdefault(stack, [])
        function = to_function(name, file)
        if len(frames) < DEPTH_LIMIT and (not frames or frames[-1] != function):
            frames.append(function)
    number = {stack: index for index, stack in enumerate(rows)}
    return tuple(tuple(frames) for frames in rows.values()), number


def charge_cpu(timeline: Timeline, stacks: Stacks) -> CpuByStack:
    """The CPU time of each thread, slot and stack.

    It is what stretches stand for where they tell it; else each thread's CPU time in each slot,
    shared among the stacks that it had in that slot.
    """
    index_of = {thread: index for index, thread in enumerate(timeline.threads)}
    pairs = zip(stacks.pid.tolist(), stacks.tid.tolist(), strict=True)
    thread = np.array([index_of.get(pair, -1) for pair in pairs], dtype=np.int64)
    index, slot, overlap = timeline.axis.spread(stacks.begin, stacks.end)
    told = stacks.run_ns[index] >= 0
    met = thread[index] >= 0
    direct = told & met
    span_ns = np.maximum(stacks.end - stacks.begin, 1)
    told_ns = stacks.run_ns[index] * overlap / span_ns[index]
    shared = _Pieces(thread[index], slot, stacks.stack[index], overlap).where(met & ~told)
    given = _Pieces(thread[index], slot, stacks.stack[index], told_ns).where(direct)
    rest = _share_slots(timeline, shared)
    return CpuByStack(
        stacks.frames,
        np.concatenate([given.thread, rest.thread]),
        np.concatenate([given.slot, rest.slot]),
        np.concatenate([given.stack, rest.stack]),
        np.concatenate([given.ns, rest.ns]),
    )


@dataclass(frozen=True)
class _Pieces:
    """Parts of stretches within one slot each."""

    thread: Integers
    slot: Integers
    stack: Integers
    ns: Reals

    def where(self, mask: Masks) -> _Pieces:
        """Those that are marked."""
        return _Pieces(self.thread[mask], self.slot[mask], self.stack[mask], self.ns[mask])


def _share_slots(timeline: Timeline, pieces: _Pieces) -> _Pieces:
    """Shares each thread's CPU time in a slot among the pieces there, by how long they are."""
    running = timeline.states() == State.ON_CPU
    slot_count = timeline.axis.slot_count
    key = timeline.thread[running] * slot_count + timeline.slot[running]
    keys, place = np.unique(key, return_inverse=True)
    cpu_ns = sum_by(place, timeline.ns[running], len(keys))
    if not len(keys):
        return pieces.where(np.zeros(len(pieces.ns), dtype=bool))
    wanted = pieces.thread * slot_count + pieces.slot
    found = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    hit = keys[found] == wanted
    found, pieces = found[hit], pieces.where(hit)
    whole = sum_by(found, pieces.ns, len(keys))
    ns = cpu_ns[found] * pieces.ns / np.maximum(whole[found], 1.0)
    return replace(pieces, ns=ns)


def charge_rest(cpu: CpuByStack, timeline: Timeline) -> CpuByStack:
    """Shares what no stack was known for as the rest of the same thread is shared.

    Only of threads that were seen often enough; the slots of such time are not known any more.
    """
    count = len(timeline.threads)
    running = timeline.states() == State.ON_CPU
    whole = sum_by(timeline.thread[running], timeline.ns[running], count)
    known = sum_by(cpu.thread, cpu.ns, count)
    seen = sum_by(cpu.thread, np.ones(len(cpu.ns)), count)
    factor = np.where(seen >= SEEN_MIN, whole / np.maximum(known, 1.0), 1.0)
    return replace(cpu, ns=cpu.ns * factor[cpu.thread])


def join_cpu(first: CpuByStack, second: CpuByStack) -> CpuByStack:
    """The CPU time of two sets of stacks."""
    return CpuByStack(
        (*first.frames, *second.frames),
        np.concatenate([first.thread, second.thread]),
        np.concatenate([first.slot, second.slot]),
        np.concatenate([first.stack, second.stack + len(first.frames)]),
        np.concatenate([first.ns, second.ns]),
    )


def function_times(cpu: CpuByStack, chosen: Masks | None = None) -> list[FunctionTime]:
    """The CPU time of every function, of the chosen entries or of all; most in itself first."""
    stack, ns = (cpu.stack, cpu.ns) if chosen is None else (cpu.stack[chosen], cpu.ns[chosen])
    sums = sum_by(stack, ns, len(cpu.frames)).tolist()
    own: dict[Function, float] = {}
    whole: dict[Function, float] = {}
    weighted: dict[Function, float] = {}
    for frames, spent in zip(cpu.frames, sums, strict=True):
        if not frames or spent <= 0:
            continue
        own[frames[0]] = own.get(frames[0], 0.0) + spent
        depth_of = {function: len(frames) - place for place, function in enumerate(frames)}
        for function, depth in depth_of.items():
            whole[function] = whole.get(function, 0.0) + spent
            weighted[function] = weighted.get(function, 0.0) + depth * spent
    times = [
        FunctionTime(one, own.get(one, 0.0), total, weighted[one] / total)
        for one, total in whole.items()
    ]
    return sorted(times, key=lambda one: (-one.self_ns, -one.total_ns, one.function))
