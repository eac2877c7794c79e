"""Who held it: the interpreter lock, another thread's answer, the CPU. Computed once for all rules.

A wait is charged to what its holder did meanwhile, down to the deepest proven link: a GIL wait
while the holder is throttled is throttling; a hand-off is what the other thread did.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from perfkit.analysis.align import Aligned
from perfkit.analysis.columns import Masks, Reals, sum_by
from perfkit.analysis.states import IDLE_STATES, Label, State
from perfkit.analysis.timeline import Timeline

# A thread that holds the GIL is on a CPU, or was stopped while it held it; it cannot be in a
# system call that blocks, since CPython lets go of the GIL around those.
_MAY_HOLD_GIL = (State.ON_CPU, State.RUNNABLE, State.THROTTLED)
_NOT_WORKING = IDLE_STATES | {State.HANDOFF_WAIT, State.FUTEX, State.TIMER_WAIT, State.UNKNOWN}

_Entry = tuple[int, int, float]
_Row = tuple[int, int, int, float]


def charge_gil(timeline: Timeline, names: dict[tuple[int, int], str]) -> Timeline:
    """Charges each GIL wait to the threads of its process that may have held it in that slot."""
    labels = _Labels(timeline)

    def charged(label: int, holder: int) -> int:
        state = timeline.labels[label].state
        if state is not State.ON_CPU:
            return label
        return labels.index(Label(State.GIL_WAIT, name_thread(timeline.threads[holder], names)))

    return _charge(timeline, labels, State.GIL_WAIT, _MAY_HOLD_GIL, charged)


def charge_handoffs(timeline: Timeline) -> Timeline:
    """Charges each wait for another thread to what its process's busy threads did meanwhile."""
    labels = _Labels(timeline)
    busy = tuple(state for state in State if state not in _NOT_WORKING)
    return _charge(timeline, labels, State.HANDOFF_WAIT, busy, lambda label, _: label)


def name_thread(thread: tuple[int, int], names: dict[tuple[int, int], str]) -> str:
    """The words by which reports call a thread."""
    return f"thread {thread[1]} ({names.get(thread, '?')})"


class _Labels:
    def __init__(self, timeline: Timeline) -> None:
        self._index = {label: index for index, label in enumerate(timeline.labels)}

    def index(self, label: Label) -> int:
        return self._index.setdefault(label, len(self._index))

    def all(self) -> tuple[Label, ...]:
        return tuple(self._index)


def _charge(
    timeline: Timeline,
    labels: _Labels,
    waiting: State,
    holding: tuple[State, ...],
    charged: Callable[[int, int], int],
) -> Timeline:
    """Replaces the rows in state `waiting` by what the candidates of the same slot did."""
    states = timeline.states()
    waits = states == waiting
    candidates = _by_process_and_slot(timeline, np.isin(states, [int(state) for state in holding]))
    rows: list[_Row] = []
    for thread, slot, label, ns in _rows(timeline, waits):
        others = [
            entry
            for entry in candidates.get((timeline.threads[thread][0], slot), ())
            if entry[0] != thread
        ]
        total = sum(entry[2] for entry in others)
        if total < 1.0:
            rows.append((thread, slot, label, ns))
        for holder, held, held_ns in others if total >= 1.0 else ():
            rows.append((thread, slot, charged(held, holder), ns * held_ns / total))
    return _rebuilt(timeline, labels, ~waits, rows)


def _rows(timeline: Timeline, mask: Masks) -> list[_Row]:
    columns = (timeline.thread, timeline.slot, timeline.label, timeline.ns)
    return list(zip(*(column[mask].tolist() for column in columns), strict=True))


def _by_process_and_slot(timeline: Timeline, mask: Masks) -> dict[tuple[int, int], list[_Entry]]:
    found: dict[tuple[int, int], list[_Entry]] = {}
    for thread, slot, label, ns in _rows(timeline, mask):
        found.setdefault((timeline.threads[thread][0], slot), []).append((thread, label, ns))
    return found


def _rebuilt(timeline: Timeline, labels: _Labels, kept: Masks, rows: list[_Row]) -> Timeline:
    thread, slot, label, ns = zip(*rows, strict=True) if rows else ((), (), (), ())
    added = (np.array(column, dtype=np.int64) for column in (thread, slot, label))
    olds = (timeline.thread[kept], timeline.slot[kept], timeline.label[kept])
    columns = [np.concatenate(pair) for pair in zip(olds, added, strict=True)]
    all_ns = np.concatenate([timeline.ns[kept], np.array(ns, dtype=np.float64)])
    return replace(
        timeline,
        labels=labels.all(),
        thread=columns[0],
        slot=columns[1],
        label=columns[2],
        ns=all_ns,
    )


@dataclass(frozen=True)
class CpuOwner:
    """One process (or the rest) that ran in the window, in CPU seconds."""

    pid: int
    name: str
    cgroup: str
    role: str
    seconds: float


def cpu_owners(aligned: Aligned) -> tuple[CpuOwner, ...]:
    """Who held the CPUs, largest first, from the table `owners`."""
    table = aligned.table("owners")
    totals: dict[tuple[int, str, str, str], float] = {}
    columns = (
        table.integers("pid").tolist(),
        table.text("name"),
        table.text("cgroup"),
        table.text("role"),
        table.integers("run_ns").tolist(),
    )
    for pid, name, cgroup, role, run_ns in zip(*columns, strict=True):
        key = (pid, name, cgroup, role)
        totals[key] = totals.get(key, 0.0) + run_ns / 1e9
    owners = [CpuOwner(*key, seconds) for key, seconds in totals.items()]
    return tuple(sorted(owners, key=lambda owner: (-owner.seconds, owner.pid)))


def cpu_seconds(timeline: Timeline) -> Reals:
    """CPU seconds of each thread of the timeline in the window."""
    running = timeline.states() == State.ON_CPU
    seconds = timeline.ns[running] / 1e9
    return sum_by(timeline.thread[running], seconds, len(timeline.threads))
