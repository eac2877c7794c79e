"""Processes of the service that came in the window, and how long each was busy with starting."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perfkit.analysis.align import SLOT_NS, Aligned
from perfkit.analysis.columns import Masks, Reals, sum_by
from perfkit.analysis.states import State
from perfkit.analysis.timeline import Timeline

# A process younger than this when the window began may still be starting.
YOUNG_NS = 30_000_000_000
# Processes of one age came together: that is the service itself, not a worker that was replaced.
SAME_AGE_NS = 5_000_000_000
# Starting ends when a process is first idle, for this long.
IDLE_SLOTS = 2
BUSY_MIN = 0.5
START_SLOTS_MAX = 200
# A process is found at the latest so long after its birth (the thread session looks each second).
UNSEEN_SLOTS_MAX = 20
_BUSY = frozenset(
    {
        State.ON_CPU,
        State.RUNNABLE,
        State.THROTTLED,
        State.GIL_WAIT,
        State.DISK_WAIT,
        State.FAULT_WAIT,
        State.BLOCKED,
        State.UNKNOWN,
    }
)


@dataclass(frozen=True)
class Birth:
    """One process that is young: the slots in which it was starting.

    `born_ns` is when it was first seen to run, or the window's start. `ended` tells whether its
    start came to an end within the window.
    """

    pid: int
    parent_pid: int
    name: str
    born_ns: int
    starting: Masks
    ended: bool
    in_window: bool


def read_births(aligned: Aligned, timeline: Timeline) -> tuple[Birth, ...]:
    """The young processes of the service, but those that came with the service itself."""
    first_seen = _first_seen(aligned)
    names = _names(aligned)
    births = []
    for pid, (born_ns, in_window) in sorted(first_seen.items()):
        busy = _busy_ratio(timeline, pid)
        first = max(0, (born_ns - aligned.axis.start_ns) // SLOT_NS)
        if first >= aligned.axis.slot_count:
            continue
        began = _first_busy(busy, int(first)) if in_window else int(first)
        last, ended = _end_of_start(busy, began)
        starting = np.zeros(aligned.axis.slot_count, dtype=bool)
        starting[first:last] = True
        parent_pid, name = names.get(pid, (0, ""))
        births.append(Birth(pid, parent_pid, name, born_ns, starting, ended, in_window))
    return tuple(births)


def _first_seen(aligned: Aligned) -> dict[int, tuple[int, bool]]:
    """When each young process was born (or the window began), and whether within the window."""
    present = aligned.service_pids
    runs = aligned.table("thread_runs").sorted_by("start_ns")
    found: dict[int, tuple[int, bool]] = {}
    for pid, start_ns in zip(
        runs.integers("pid").tolist(), runs.integers("start_ns").tolist(), strict=True
    ):
        if pid not in present:
            found.setdefault(pid, (start_ns, True))
    for pid in _replaced(aligned):
        found.setdefault(pid, (aligned.axis.start_ns, False))
    return found


def _replaced(aligned: Aligned) -> list[int]:
    """Processes that were young when the window began, and younger than the service."""
    table = aligned.table("process_states").sorted_by("t_ns")
    ages: dict[int, int] = {}
    columns = [table.integers(name).tolist() for name in ("pid", "age_ns", "t_ns")]
    for pid, age_ns, t_ns in zip(*columns, strict=True):
        if age_ns >= 0:
            ages.setdefault(pid, age_ns - (t_ns - aligned.axis.start_ns))
    oldest_ns = max(ages.values(), default=0)
    return [
        pid
        for pid, age_ns in ages.items()
        if 0 < age_ns <= YOUNG_NS and age_ns + SAME_AGE_NS < oldest_ns
    ]


def _names(aligned: Aligned) -> dict[int, tuple[int, str]]:
    """Parent and latest name of each process; names change while a program starts."""
    table = aligned.table("processes").sorted_by("t_ns")
    columns = (table.integers("pid").tolist(), table.integers("parent_pid").tolist())
    rows = zip(*columns, table.text("name"), strict=True)
    return {pid: (parent_pid, name) for pid, parent_pid, name in rows}


def _busy_ratio(timeline: Timeline, pid: int) -> Reals:
    """How busy the busiest thread of a process was, per slot, 0..1."""
    busy = np.array([label.state in _BUSY for label in timeline.labels], dtype=bool)
    best = np.zeros(timeline.axis.slot_count)
    for thread, (owner, _) in enumerate(timeline.threads):
        if owner == pid:
            mine = (timeline.thread == thread) & busy[timeline.label]
            ns = sum_by(timeline.slot[mine], timeline.ns[mine], timeline.axis.slot_count)
            best = np.maximum(best, ns / timeline.axis.slot_ns)
    return best


def _first_busy(busy: Reals, first: int) -> int:
    """The first busy slot soon after a birth, else the birth's own.

    A thread is first seen some time after its birth, and its run time until then is one sum.
    """
    soon = np.flatnonzero(busy[first : first + UNSEEN_SLOTS_MAX] >= BUSY_MIN)
    return first + int(soon[0]) if len(soon) else first


def _end_of_start(busy: Reals, first: int) -> tuple[int, bool]:
    """The slot in which a start that began in `first` was over, and whether it was seen to be."""
    idle_count = 0
    limit = min(len(busy), first + START_SLOTS_MAX)
    for slot in range(first, limit):
        idle_count = idle_count + 1 if busy[slot] < BUSY_MIN else 0
        if idle_count == IDLE_SLOTS:
            return slot + 1 - IDLE_SLOTS, True
    return limit, False
