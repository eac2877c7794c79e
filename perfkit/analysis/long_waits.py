"""How many requests wait long for a CPU: what a p99 is made of, where the mean hardly moves."""

from __future__ import annotations

from math import sqrt

import numpy as np

from perfkit.analysis.align import SLOT_NS
from perfkit.analysis.case import Case
from perfkit.analysis.columns import Integers, Masks, Reals, sum_by
from perfkit.analysis.contention import CpuHolder
from perfkit.analysis.states import State

# Several slices of the scheduler (3 ms each on two CPUs, more on more), and half of what a request
# takes: such a wait is felt by the request that meets it.
LONG_NS = 10e6
LONG_PART = 0.5
HELD_PART = 0.5
# Of a count that is met by chance, this is so much below the one expected in one window of twenty:
# roots of counts have an error of a half (Anscombe 1948).
ERROR = 1.64 * 0.5


def long_wait_ns(case: Case) -> float:
    """From which length on a wait for a CPU is long for this service."""
    answers = max(case.requests.answer_count, 1.0)
    return max(LONG_NS, LONG_PART * case.requests_ledger.total_ns() / answers)


def long_wait_ratio(case: Case, holders: tuple[CpuHolder, ...]) -> tuple[float, float]:
    """The long waits of serving threads that are mostly charged to `holders`, per answer.

    Shape: as counted, and the least that chance may have made that of (one window in twenty).
    Missing: 0 where no answer was counted.
    Source: /proc/PID/task/TID/schedstat, run_delay and pcount.
    """
    if not case.counts_requests or case.requests.answer_count < 1 or not holders:
        return 0.0, 0.0
    frame = case.aligned.table("thread_runs").sorted_by("pid", "tid", "moved_ns")
    number = {thread: index for index, thread in enumerate(case.timeline.threads)}
    pairs = zip(frame.integers("pid").tolist(), frame.integers("tid").tolist(), strict=True)
    thread = np.array([number.get(pair, -1) for pair in pairs], dtype=np.int64)
    wait_ns, slices = frame.integers("wait_ns"), frame.integers("slice_count")
    longest_ns = _longest_ns(thread, wait_ns, slices)
    long = (longest_ns >= long_wait_ns(case)) & _serving(case)[thread] & (thread >= 0)
    # A wait is booked when the thread next runs, and may reach back over earlier rows.
    end_ns = frame.integers("moved_ns")[long] - case.aligned.axis.start_ns
    begin_ns = np.minimum(
        frame.integers("start_ns")[long] - case.aligned.axis.start_ns, end_ns - wait_ns[long]
    )
    held = _held_part(case, holders, thread[long], (begin_ns, end_ns))
    count = int((held >= HELD_PART).sum())
    least = max(0.0, sqrt(count + 3 / 8) - ERROR) ** 2 - 3 / 8
    return count / case.requests.answer_count, max(0.0, least) / case.requests.answer_count


def _serving(case: Case) -> Masks:
    return np.array([*(one in case.serving for one in case.timeline.threads), False], dtype=bool)


def _longest_ns(thread: Integers, wait_ns: Integers, slices: Integers) -> Reals:
    """How long the longest wait of each row was, at the least likely.

    A row sums the waits before each of its slices. All but one of these are taken as long as this
    thread's waits usually are.
    """
    slices = np.maximum(slices, 1)
    each_ns = wait_ns / slices
    usual_ns = np.zeros(int(thread.max(initial=-1)) + 2)
    for one in np.unique(thread):
        mine = thread == one
        usual_ns[one] = np.median(np.repeat(each_ns[mine], np.minimum(slices[mine], 100)))
    return np.maximum(each_ns, wait_ns - (slices - 1) * usual_ns[thread])


def _held_part(
    case: Case, holders: tuple[CpuHolder, ...], thread: Integers, ends: tuple[Integers, Integers]
) -> Reals:
    """Which part of the waits of a thread between two instants is charged to the holders, 0..1."""
    timeline = case.timeline
    names = {holder.name for holder in holders}
    waits = np.array([one.state is State.RUNNABLE for one in timeline.labels], dtype=bool)
    held = waits & np.array([one.culprit in names for one in timeline.labels], dtype=bool)
    first, last = (np.clip(end // SLOT_NS, 0, timeline.axis.slot_count - 1) for end in ends)
    width = timeline.axis.slot_count + 1
    sums = []
    for chosen in (waits, held):
        rows = chosen[timeline.label]
        place = timeline.thread[rows] * width + timeline.slot[rows] + 1
        ns = sum_by(place, timeline.ns[rows], len(timeline.threads) * width)
        sums.append(np.cumsum(ns.reshape(len(timeline.threads), width), axis=1))
    whole, part = (one[thread, last + 1] - one[thread, first] for one in sums)
    return np.asarray(part / np.maximum(whole, 1.0))
