"""Native samples with the Python frames of the same thread in them, and how sure that is.

Three grades: `exact`, the frames were read while the thread did not move; `near`, the Python stack
is one that the same thread had within NEAR_NS, or a frame's place in it is not certain; `native`,
no Python frames belong to it or none were read.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from perfkit.analysis.align import Aligned
from perfkit.analysis.columns import Frame, Integers, Masks
from perfkit.analysis.merge import Merged, PythonFrame, merge
from perfkit.analysis.places import Place, read_native_stacks
from perfkit.analysis.stacks import (
    BLOCKED,
    COLLECTION,
    FRAMES,
    GIL,
    RUNTIME,
    WALL,
    Function,
    Stacks,
    read_stacks,
    to_function,
)

NEAR_NS = 20_000_000
SAMPLE_LIMIT = 500_000
PYTHON_STACK_LIMIT = 65_536
PYTHON_DEPTH_LIMIT = 512
CPU, OFF, PREEMPTED = "cpu", "off", "preempted"
PREEMPTION = Function("(waits for a CPU)", "", RUNTIME)
_KINDS = (FRAMES, GIL, WALL, BLOCKED)
_AT_ROOT = 0


class Grade(IntEnum):
    """How well native and Python frames of a sample belong together."""

    EXACT = 0
    NEAR = 1
    NATIVE = 2


@dataclass(frozen=True)
class Samples:
    """Samples and what they stand for; the arrays are parallel, in the order of time.

    `frames[i]` are the functions of stack i, leaf first, never empty; `end` is why a stack has no
    further frame, 0 where it reached the thread's root. `is_open`: the time is a lower bound.
    """

    frames: tuple[tuple[Function, ...], ...]
    t_ns: Integers
    pid: Integers
    tid: Integers
    stack: Integers
    weight_ns: Integers
    grade: Integers
    end: Integers
    is_open: Masks

    def where(self, mask: Masks) -> Samples:
        """Those that are marked."""
        names = ("t_ns", "pid", "tid", "stack", "weight_ns", "grade", "end", "is_open")
        return Samples(self.frames, *(getattr(self, name)[mask] for name in names))

    def to_stretches(self) -> Stacks:
        """Each sample as the time before it for which it stands."""
        begin = self.t_ns - self.weight_ns
        return Stacks(self.frames, begin, self.t_ns, self.pid, self.tid, self.stack, self.weight_ns)


def read_samples(aligned: Aligned, *kinds: str) -> Samples:
    """The samples of the on-CPU and off-CPU sampler of some kinds, merged with Python frames."""
    table = aligned.table("native_samples")
    wanted = np.array([one in kinds for one in table.text("kind")], dtype=bool)
    table = _choose(table, wanted)
    lookup = _Lookup(read_stacks(aligned, *_KINDS))
    threads = zip(*(table.integers(name).tolist() for name in ("pid", "tid", "t_ns")), strict=True)
    python = [lookup.find(*one) for one in threads]
    preempted = [one == PREEMPTED for one in table.text("kind")]
    merger = _Merger(read_native_stacks(aligned, "native"), lookup.frames, preempted)
    return merger.run(table, python, np.zeros(len(table), dtype=bool))


def read_wall_samples(aligned: Aligned) -> Samples:
    """The wall-clock samples, merged with the Python frames that were read with each."""
    table = aligned.table("wall_samples")
    table = _choose(table, np.ones(len(table), dtype=bool))
    number, frames = _read_python(aligned)
    python = [number.get(one, -1) for one in table.integers("python_stack").tolist()]
    merger = _Merger(read_native_stacks(aligned, "wall"), frames, [False] * len(table))
    return merger.run(table, python, table.integers("is_exact") == 1)


def _choose(table: Frame, wanted: Masks) -> Frame:
    """The rows that are wanted and stand for time, the first ones of too many."""
    kept = np.flatnonzero(wanted & (table.integers("weight_ns") > 0))[:SAMPLE_LIMIT]
    return table.take(kept).sorted_by("t_ns", "pid", "tid", "stack")


class _Lookup:
    """The Python stack that a thread had at an instant, or shortly before or after."""

    def __init__(self, stacks: Stacks) -> None:
        # Whether it collects at the moment of a native sample is told by that.
        self.frames = tuple(
            tuple(PythonFrame(one) for one in functions if one != COLLECTION)
            for functions in stacks.frames
        )
        columns = (stacks.pid, stacks.tid, stacks.begin, stacks.end, stacks.stack)
        self._begins: dict[tuple[int, int], list[int]] = {}
        self._rows: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
        for pid, tid, begin, end, stack in sorted(
            zip(*(column.tolist() for column in columns), strict=True)
        ):
            self._begins.setdefault((pid, tid), []).append(begin)
            self._rows.setdefault((pid, tid), []).append((begin, end, stack))

    def find(self, pid: int, tid: int, t_ns: int) -> int:
        """The number of the nearest stack within NEAR_NS; -1 for none.

        Of stretches that cover the instant it is the one that began last.
        """
        rows = self._rows.get((pid, tid))
        if rows is None:
            return -1
        after = bisect_right(self._begins[pid, tid], t_ns)
        best, best_ns = -1, NEAR_NS + 1
        for begin, end, stack in reversed(rows[max(after - len(_KINDS), 0) : after + 1]):
            away_ns = max(begin - t_ns, t_ns - end, 0)
            if away_ns < best_ns:
                best, best_ns = stack, away_ns
        return best


class _Merger:
    """Merges each distinct pair of a native and a Python stack once."""

    def __init__(
        self,
        native: dict[int, tuple[Place, ...]],
        python: tuple[tuple[PythonFrame, ...], ...],
        preempted: list[bool],
    ) -> None:
        self._native, self._python, self._preempted = native, python, preempted
        self._known: dict[tuple[int, int, bool, bool], tuple[Merged, int]] = {}
        self._numbers: dict[tuple[Function, ...], int] = {}

    def run(self, table: Frame, python: list[int], is_exact: Masks) -> Samples:
        """Each row with its frames; rows without any frame are left out."""
        stacks, ends = table.integers("stack").tolist(), table.integers("end").tolist()
        numbers, grades = [], []
        for row, (one, number) in enumerate(self._merge_all(stacks, python, ends)):
            numbers.append(number)
            is_sure = one.is_certain and bool(is_exact[row])
            near = Grade.EXACT if is_sure else Grade.NEAR
            grades.append(int(near if one.has_python else Grade.NATIVE))
        stack = np.array(numbers, dtype=np.int64)
        found = Samples(
            tuple(self._numbers),
            table.integers("t_ns"),
            table.integers("pid"),
            table.integers("tid"),
            stack,
            table.integers("weight_ns"),
            np.array(grades, dtype=np.int64),
            table.integers("end"),
            table.integers("is_open") == 1,
        )
        return found.where(stack >= 0)

    def _merge_all(
        self, stacks: list[int], python: list[int], ends: list[int]
    ) -> Iterator[tuple[Merged, int]]:
        """What each row comes to, and the number of its frames, -1 where there is none."""
        rows = zip(stacks, python, ends, self._preempted, strict=True)
        for stack, read, end, is_preempted in rows:
            key = (stack, read, end == _AT_ROOT, is_preempted)
            if key not in self._known:
                native = self._native.get(stack, ())
                frames = self._python[read] if read >= 0 else ()
                merged = merge(native, frames, is_whole=end == _AT_ROOT)
                self._known[key] = merged, self._number(merged.frames, is_preempted)
            yield self._known[key]

    def _number(self, frames: tuple[Function, ...], is_preempted: bool) -> int:
        if not frames:
            return -1
        frames = (PREEMPTION, *frames) if is_preempted else frames
        return self._numbers.setdefault(frames, len(self._numbers))


def _read_python(
    aligned: Aligned,
) -> tuple[dict[int, int], tuple[tuple[PythonFrame, ...], ...]]:
    """The Python stacks of the wall-clock samples, innermost first, and their place by number."""
    table = aligned.table("wall_python_stacks").sorted_by("stack", "depth")
    columns = (
        table.integers("stack").tolist(),
        table.text("function"),
        table.text("file"),
        table.integers("is_entry").tolist(),
    )
    rows: dict[int, list[PythonFrame]] = {}
    for stack, name, file, is_entry in zip(*columns, strict=True):
        if stack not in rows and len(rows) >= PYTHON_STACK_LIMIT:
            continue
        frames = rows.setdefault(stack, [])
        if len(frames) < PYTHON_DEPTH_LIMIT:
            known = None if is_entry < 0 else is_entry == 1
            frames.append(PythonFrame(to_function(name, file), known))
    number = {stack: index for index, stack in enumerate(rows)}
    return number, tuple(tuple(frames) for frames in rows.values())
