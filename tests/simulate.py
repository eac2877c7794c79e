"""A simulated thread under the sampler: known states in, `thread_runs` rows out.

The twin of the C sampler's contract (one row per move), so that the ledger's arithmetic can be
checked against a truth that is exact.
"""

from __future__ import annotations

import bisect
import itertools
import random
from array import array
from dataclasses import dataclass

from perfkit import __version__
from perfkit.model import (
    SCHEMA_VERSION,
    Capture,
    Clock,
    Column,
    ColumnType,
    Cost,
    Header,
    Machine,
    ProcessRef,
    Table,
    Target,
)

MS = 1_000_000
RUNNING = -2
WAIT_FOR_CPU = -100
STILL_TICKS = 20
BACK_OFF_TICKS = 16


@dataclass(frozen=True)
class Step:
    """One state of a simulated thread: a system call (or RUNNING, WAIT_FOR_CPU) for some time."""

    syscall: int
    duration_ns: int
    arg0: int = 0
    arg3: int = 0
    fd_inode: int = 0
    futex_owner: int = 0


def simulate_rows(
    steps: list[Step], *, tid: int, start_ns: int, tick_ns: int = 10 * MS, seed: int = 0
) -> list[dict[str, int]]:
    """The rows that a sampler would record of a thread that goes through `steps` once.

    A thread that has not moved for STILL_TICKS is looked at every BACK_OFF_TICKS only.

    A wait for a CPU looks like the state before it and is booked when the thread next runs, as the
    kernel does.
    """
    chance = random.Random(seed)
    script = _Script(steps)
    rows: list[dict[str, int]] = []
    time_ns, before, still = 0, script.counters(0), 0
    rows.append(_row(tid, start_ns, (0, 0), (0, 0, 1), script.seen(0)))
    while True:
        step_ns = tick_ns * (BACK_OFF_TICKS if still >= STILL_TICKS else 1)
        now_ns = time_ns + int(step_ns * chance.uniform(0.8, 1.2))
        if now_ns >= script.ends[-1]:
            return rows
        counters = script.counters(now_ns)
        if counters == before:
            rows[-1]["end_ns"] = start_ns + now_ns
            rows[-1]["tick_count"] += 1
            still += 1
        else:
            still = 0
            grown = (counters[0] - before[0], counters[1] - before[1], counters[2] - before[2])
            rows.append(_row(tid, start_ns, (time_ns, now_ns), grown, script.seen(now_ns)))
        time_ns, before = now_ns, counters


class _Script:
    """The steps with running sums, so that any instant can be looked up."""

    def __init__(self, steps: list[Step]) -> None:
        self.steps = steps
        self.ends = list(itertools.accumulate(step.duration_ns for step in steps))
        self._run = self._sums(RUNNING)
        self._wait = self._sums(WAIT_FOR_CPU)

    def seen(self, now_ns: int) -> Step:
        """What /proc shows: a thread that waits for a CPU looks like a running one."""
        step = self.steps[bisect.bisect_right(self.ends, now_ns)]
        return Step(RUNNING, 0) if step.syscall == WAIT_FOR_CPU else step

    def counters(self, now_ns: int) -> tuple[int, int, int]:
        """Run ns, wait ns and slices booked by `now_ns`; a wait is booked at its end.

        Between two steps a thread always runs, if only for a moment: that is a slice.
        """
        index = bisect.bisect_right(self.ends, now_ns)
        begin = self.ends[index - 1] if index else 0
        running = now_ns - begin if self.steps[index].syscall == RUNNING else 0
        return self._run[index] + running, self._wait[index], index

    def _sums(self, call: int) -> list[int]:
        lengths = (step.duration_ns if step.syscall == call else 0 for step in self.steps)
        return [0, *itertools.accumulate(lengths)]


def _row(
    tid: int, start_ns: int, moves: tuple[int, int], grown: tuple[int, int, int], seen: Step
) -> dict[str, int]:
    return {
        "pid": 100,
        "tid": tid,
        "start_ns": start_ns + moves[0],
        "moved_ns": start_ns + moves[1],
        "end_ns": start_ns + moves[1],
        "tick_count": 1,
        "run_ns": grown[0],
        "wait_ns": grown[1],
        "slice_count": max(1, grown[2]),
        "syscall": seen.syscall,
        "arg0": seen.arg0,
        "arg1": 0,
        "arg2": 0,
        "arg3": seen.arg3,
        "state_letter": 0,
        "fd_inode": seen.fd_inode,
        "futex_owner": seen.futex_owner,
    }


_TYPES = {str: ColumnType.TEXT, int: ColumnType.INTEGER, float: ColumnType.REAL}


def make_table(name: str, rows: list[dict[str, int | str | float]], strings: list[str]) -> Table:
    """Packs rows whose values may be text; new strings are appended to `strings`."""
    columns = tuple(Column(key, type=_TYPES[type(value)]) for key, value in rows[0].items())
    packed = []
    for column in columns:
        values = [row[column.name] for row in rows]
        if column.type is ColumnType.TEXT:
            strings.extend(str(value) for value in values if value not in strings)
            packed.append(array("I", [strings.index(str(value)) for value in values]).tobytes())
        elif column.type is ColumnType.REAL:
            packed.append(array("d", [float(value) for value in values]).tobytes())
        else:
            packed.append(array("q", [int(value) for value in values]).tobytes())
    return Table(name, columns, tuple(packed), len(rows))


def make_capture(
    tables: dict[str, Table], *, start_ns: int, seconds: float, strings: tuple[str, ...] = ()
) -> Capture:
    """A capture of the simulated service (pid 100) with these tables."""
    process = ProcessRef(100, 1, 5000, "serve", "/usr/bin/serve", "/app", "main")
    end_ns = start_ns + int(seconds * 1e9)
    header = Header(
        schema_version=SCHEMA_VERSION,
        perfkit_version=__version__,
        host="simulated",
        machine=Machine("simulated", 2, "6.18", 1 << 30),
        clock=Clock(start_ns, end_ns, 0, int(seconds * 1e9)),
        target=Target("service", 100, "serve", "named with --pid", (process,)),
        requested_s=seconds,
        cost=Cost(0, 0, 0, 0),
    )
    return Capture(header, tables, strings)
