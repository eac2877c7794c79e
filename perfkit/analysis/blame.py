"""Who held it: the interpreter lock, another thread's answer. Computed once for all rules.

A wait is charged to what its holder did meanwhile, down to the deepest proven link: a GIL wait
while the holder is throttled is throttling; a hand-off is what the other thread did.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from perfkit.analysis.align import Aligned
from perfkit.analysis.columns import Integers, Masks, Reals, sum_by
from perfkit.analysis.states import IDLE_STATES, Label, Labels, State
from perfkit.analysis.timeline import Timeline

# At most so many candidates are named for the waits of one process in one slot: the largest.
CANDIDATE_LIMIT = 8
_NOT_WORKING = IDLE_STATES | {State.HANDOFF_WAIT, State.FUTEX, State.TIMER_WAIT, State.UNKNOWN}


def charge_gil(timeline: Timeline, names: dict[tuple[int, int], str]) -> Timeline:
    """Charges each GIL wait to the threads of its process that may have held it in that slot.

    Whoever holds the GIL is on a CPU, or lost the CPU while it held it; it cannot be in a system
    call that blocks, since CPython lets go of the GIL around those.
    """
    labels = Labels(timeline.labels)
    running = np.array([one.state is State.ON_CPU for one in timeline.labels], dtype=bool)
    stopped = np.array([one.held for one in timeline.labels], dtype=bool)
    holders = [
        labels.index(Label(State.GIL_WAIT, name_thread(thread, names)))
        for thread in timeline.threads
    ]
    charge = _join(timeline, State.GIL_WAIT, running | stopped)
    held = timeline.label[charge.candidate]
    holder = np.array(holders, dtype=np.int64)[timeline.thread[charge.candidate]]
    return _rebuilt(timeline, labels, charge, np.where(running[held], holder, held))


def charge_handoffs(timeline: Timeline) -> Timeline:
    """Charges each wait for another thread to what its process's busy threads did meanwhile."""
    labels = Labels(timeline.labels)
    busy = np.array([one.state not in _NOT_WORKING for one in timeline.labels], dtype=bool)
    charge = _join(timeline, State.HANDOFF_WAIT, busy)
    return _rebuilt(timeline, labels, charge, timeline.label[charge.candidate])


def name_thread(thread: tuple[int, int], names: dict[tuple[int, int], str]) -> str:
    """The words by which reports call a thread."""
    return f"thread {thread[1]} ({names.get(thread, '?')})"


@dataclass(frozen=True)
class _Charge:
    """Entries of a timeline that are replaced, and the shares of others that replace them.

    `ns[i]` of the wait `waiter[i]` is charged to `candidate[i]`; both index timeline entries.
    """

    replaced: Masks
    waiter: Integers
    candidate: Integers
    ns: Reals


def _join(timeline: Timeline, waiting: State, holding: Masks) -> _Charge:
    """Shares each wait among the candidates (by label) of its process and slot, by their time.

    A thread is no candidate for its own wait; a wait without any candidate stays as it is.
    """
    pid_of = np.array([pid for pid, _ in timeline.threads], dtype=np.int64)
    _, process = np.unique(pid_of, return_inverse=True)
    group = process[timeline.thread] * timeline.axis.slot_count + timeline.slot
    waits = np.flatnonzero(timeline.states() == waiting)
    candidates = np.flatnonzero(holding[timeline.label])
    candidates = _largest(candidates, group, timeline.ns)
    keys = group[candidates]
    first = np.searchsorted(keys, group[waits], side="left")
    counts = np.searchsorted(keys, group[waits], side="right") - first
    waiter = np.repeat(waits, counts)
    place = np.arange(len(waiter)) - np.repeat(np.cumsum(counts) - counts, counts)
    candidate = candidates[place + np.repeat(first, counts)]
    other = timeline.thread[waiter] != timeline.thread[candidate]
    waiter, candidate = waiter[other], candidate[other]
    total = sum_by(waiter, timeline.ns[candidate], len(timeline.ns))
    replaced = total >= 1.0
    ns = timeline.ns[waiter] * timeline.ns[candidate] / np.maximum(total[waiter], 1.0)
    some = replaced[waiter]
    return _Charge(replaced, waiter[some], candidate[some], ns[some])


def _largest(candidates: Integers, group: Integers, ns: Reals) -> Integers:
    """The largest CANDIDATE_LIMIT candidates of each group, sorted by group."""
    order = candidates[np.lexsort((candidates, -ns[candidates], group[candidates]))]
    keys = group[order]
    starts = np.ones(len(keys), dtype=bool)
    starts[1:] = keys[1:] != keys[:-1]
    begin = np.maximum.accumulate(np.where(starts, np.arange(len(keys)), 0))
    kept: Integers = order[np.arange(len(keys)) - begin < CANDIDATE_LIMIT]
    return kept


def _rebuilt(timeline: Timeline, labels: Labels, charge: _Charge, label: Integers) -> Timeline:
    kept = ~charge.replaced
    return replace(
        timeline,
        labels=labels.all(),
        thread=np.concatenate([timeline.thread[kept], timeline.thread[charge.waiter]]),
        slot=np.concatenate([timeline.slot[kept], timeline.slot[charge.waiter]]),
        label=np.concatenate([timeline.label[kept], label]),
        ns=np.concatenate([timeline.ns[kept], charge.ns]),
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
