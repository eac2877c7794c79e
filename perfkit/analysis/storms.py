"""Threads that hand work back and forth: put on a CPU thousands of times a second, for moments."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np

from perfkit.analysis.align import SLOTS_PER_BLOCK
from perfkit.analysis.blame import name_thread
from perfkit.analysis.case import Case
from perfkit.analysis.columns import Frame, Integers, Masks, Reals, sum_by
from perfkit.analysis.contention import OWN_THREADS
from perfkit.analysis.endpoints import read_endpoints
from perfkit.analysis.intervals import Share, share_of_blocks
from perfkit.analysis.stacks import STANDARD_LIBRARY, Function, charge_cpu, read_running
from perfkit.analysis.states import Label, State, name_rows

Threads = list[tuple[int, int]]
SOURCE = "schedstat: times put on a CPU, and CPU time"
# Being preempted does not come to that: a thread that is not runs on for 0.7 ms and more (EEVDF,
# CFS). Whoever is put on a CPU as often gives it up by itself.
SLICES_HERTZ_MIN = 1000.0
# On average between two waits: more is work, of which handing over is a small part.
SLICE_NS_MAX = 50_000.0
# Who is put on a CPU less often than a hundredth of the busiest only happens to be there; and
# whoever hands over is answered: of all others together, as often as the busiest, or half of that.
PART_RATIO_MIN = 0.01
ANSWERED_MIN = 0.5
# Where no thread that takes part is known to wait for anybody else, all count alike.
WEIGHT_MIN = 0.01
# What comes a tenth as often as it switches, or takes a tenth of its CPU time, is not the reason.
SELDOM_RATIO = 0.1
_SEEN_OWN = frozenset({State.FUTEX, State.LOCK_WAIT, State.GIL_WAIT, State.IDLE_PIPE})
_OWN = frozenset({State.HANDOFF_WAIT, State.GIL_WAIT})
# A lock that several ask for is passed around as quickly: that is lock_contention.
_AWAY = frozenset(
    {State.LOCK_WAIT, State.PEER_WAIT, State.SEND_WAIT, State.DISK_WAIT, State.TIMER_WAIT}
)
_PEERS = frozenset({State.PEER_WAIT, State.SEND_WAIT})
_OUTWARD = _AWAY - {State.LOCK_WAIT} | {State.IDLE_CLIENT, State.IDLE_SELECTOR, State.IDLE_ACCEPT}
# Waits on the service's own threads, whoever is charged with them.
_BEHIND_OWN = _OWN | {State.ON_CPU}
# Python's own code that hands over, the same in every service: who calls it is named.
_HANDING_FILES = re.compile(
    rf"{STANDARD_LIBRARY}(?:queue|selectors|threading)\.py"
    r"|(?:.*/python3\.\d+/)?(?:asyncio|concurrent/futures|multiprocessing)/\w+\.py"
)
_OUTERMOST = frozenset({"_run_once", "_bootstrap_inner"})


@dataclass(frozen=True)
class Storm:
    """What handing work over takes.

    `share` is of the ledger to judge by: CPU of the serving threads in the storm, and what waits
    behind it. `names` are the threads that take part, the busiest first. `slices_per_answer` is how
    often they are put on a CPU for each answer, NaN where answers are not counted; `slices_hertz`
    how often the busiest is, while it lasts; `slice_ns` the mean CPU time until the next wait;
    `own_ratio` is the part of the waits seen that another thread of the service may end, and
    `away_ratio` the part of the time that peers, the disk, timers and locks take, both 0..1.
    `function` asks for the steps, with its part of the CPU time for which one is known; None: none
    is.
    """

    share: Share
    names: tuple[str, ...]
    slices_per_answer: float
    slices_hertz: float
    slice_ns: float
    own_ratio: float
    away_ratio: float
    function: Function | None
    function_ratio: float


def find_storm(case: Case) -> Storm | None:
    """None where no two threads of the service switch so often for so little."""
    runs = case.aligned.table("thread_runs").sorted_by("pid", "tid", "moved_ns")
    rows = _storm_rows(runs)
    rows, threads, thread = _keep_large(rows)
    slices = sum_by(thread, rows.integers("slice_count").astype(np.float64), len(threads))
    if len(threads) < 2 or slices.sum() - slices.max() < ANSWERED_MIN * slices.max():
        return None
    lasted = (rows.integers("moved_ns") - rows.integers("start_ns")).astype(np.float64)
    lasted_ns = sum_by(thread, lasted, 0)
    order = np.argsort(-slices, kind="stable").tolist()
    met = _met_cells(case, rows, threads, thread)
    function, function_ratio = _find_function(case, met)
    answers = case.requests.answer_count if case.requests.counted else 0.0
    return Storm(
        share=_share(case, rows, threads, thread),
        names=tuple(name_thread(threads[place], case.thread_names) for place in order),
        slices_per_answer=float(slices.sum()) / answers if answers else float("nan"),
        slices_hertz=float(slices[order[0]]) * 1e9 / max(float(lasted_ns[order[0]]), 1.0),
        slice_ns=float(rows.integers("run_ns").sum() / max(float(slices.sum()), 1.0)),
        own_ratio=_own_ratio(case, rows),
        away_ratio=_away_ratio(case, rows, met),
        function=function,
        function_ratio=function_ratio,
    )


def _storm_rows(runs: Frame) -> Frame:
    """The moves between which a thread was put on a CPU so often, each time for so little."""
    length_ns = np.maximum(runs.integers("moved_ns") - runs.integers("start_ns"), 1)
    slices = runs.integers("slice_count")
    often = slices * 1e9 >= SLICES_HERTZ_MIN * length_ns
    brief = runs.integers("run_ns") <= SLICE_NS_MAX * slices
    return runs.where(often & brief & (slices > 0))


def _keep_large(rows: Frame) -> tuple[Frame, Threads, Integers]:
    """The rows of the threads that take much part, those threads, and the number of each row's."""
    pairs = list(zip(rows.integers("pid").tolist(), rows.integers("tid").tolist(), strict=True))
    counts: Counter[tuple[int, int]] = Counter()
    for one, count in zip(pairs, rows.integers("slice_count").tolist(), strict=True):
        counts[one] += count
    least = PART_RATIO_MIN * max(counts.values(), default=0)
    threads = sorted(one for one, count in counts.items() if count >= least)
    number = {one: place for place, one in enumerate(threads)}
    kept = np.array([one in number for one in pairs], dtype=bool)
    mine = [number[one] for one in pairs if one in number]
    return rows.where(kept), threads, np.array(mine, dtype=np.int64)


def _share(case: Case, rows: Frame, threads: Threads, thread: Integers) -> Share:
    """The part of the requests' time that goes with the serving threads' CPU time in the storm."""
    axis, timeline = case.aligned.axis, case.timeline
    serves = np.array([one in case.serving for one in threads], dtype=bool)[thread]
    begin, end = rows.integers("start_ns")[serves], rows.integers("moved_ns")[serves]
    storm_ns = axis.sum_blocks(
        axis.spread_counts(begin, end, rows.integers("run_ns")[serves].astype(np.float64))
    )
    serving = np.array([one in case.serving for one in timeline.threads], dtype=bool)
    running = (timeline.states() == State.ON_CPU) & serving[timeline.thread]
    block = timeline.slot[running] // SLOTS_PER_BLOCK
    whole_ns = sum_by(block, timeline.ns[running], axis.block_count)
    ratio = np.minimum(storm_ns / np.maximum(whole_ns, 1.0), 1.0)
    return share_of_blocks(ratio * case.ledger.block_ns(_rows_behind(case)), case.whole_blocks)


def _rows_behind(case: Case) -> Masks:
    """Time on a CPU, and waits for the service's own threads, or for a CPU behind them."""
    behind = [_is_behind(label) for label in case.ledger.labels]
    return np.array(behind, dtype=bool)[case.ledger.label] if behind else np.zeros(0, dtype=bool)


def _is_behind(label: Label) -> bool:
    is_queue = label.state is State.RUNNABLE and label.culprit in ("", OWN_THREADS)
    return label.state in _BEHIND_OWN or is_queue


def _met_cells(case: Case, rows: Frame, threads: Threads, thread: Integers) -> Integers:
    """The (thread of the timeline, slot) cells that the rows touch, as one number each."""
    axis = case.aligned.axis
    place = {one: at for at, one in enumerate(case.timeline.threads)}
    mine = np.array([place.get(one, -1) for one in threads], dtype=np.int64)[thread]
    index, slot, _ = axis.spread(rows.integers("start_ns"), rows.integers("moved_ns"))
    return np.unique(mine[index] * axis.slot_count + slot)


def _own_ratio(case: Case, rows: Frame) -> float:
    """Of the waits that were seen, those in which another thread of the service may wake it."""
    labels = name_rows(case.aligned, rows, read_endpoints(case.aligned))
    waits = [one.state for one in labels if one.state is not State.ON_CPU]
    return sum(state in _SEEN_OWN for state in waits) / max(len(waits), 1)


def _away_ratio(case: Case, rows: Frame, met: Integers) -> float:
    """Of the time around the storm, but for idle time, what peers, disk, timers and locks take.

    Waits for peers count where they may be what it switches for: not where they answer much more
    seldom, and no disk is waited for. Such a wait only lies between the same two looks.
    """
    timeline = case.timeline
    inside = np.isin(timeline.thread * timeline.axis.slot_count + timeline.slot, met)
    states, ns = timeline.states()[inside], timeline.ns[inside]

    def spent(*kinds: State) -> float:
        return float(ns[np.isin(states, [int(one) for one in kinds])].sum())

    run_ns = float(rows.integers("run_ns").sum())
    answers = sum(peer.answer_count for peer in case.requests.peers)
    is_seldom = answers < SELDOM_RATIO * float(rows.integers("slice_count").sum())
    beside = is_seldom and spent(State.DISK_WAIT) < SELDOM_RATIO * run_ns
    away_ns = spent(*(_AWAY - _PEERS if beside else _AWAY))
    return away_ns / max(spent(*_OWN) + away_ns + run_ns, 1.0)


def _find_function(case: Case, met: Integers) -> tuple[Function | None, float]:
    """The innermost Python function, of no library that hands over, that asks for the steps.

    Both ends run as much in the storm. The one that asks also waits for clients, peers or the disk,
    so the time of each thread counts by the part of its time that goes there.
    """
    timeline = case.timeline
    cpu = charge_cpu(timeline, read_running(case.aligned))
    inside = np.isin(cpu.thread * timeline.axis.slot_count + cpu.slot, met)
    count = len(timeline.threads)
    alive_ns = sum_by(timeline.thread, timeline.ns, count)
    outward = np.isin(timeline.states(), [int(one) for one in _OUTWARD])
    outward_ns = sum_by(timeline.thread[outward], timeline.ns[outward], count)
    weight = np.maximum(outward_ns / np.maximum(alive_ns, 1.0), WEIGHT_MIN)
    weighed = cpu.ns[inside] * weight[cpu.thread[inside]]
    return _innermost(cpu.frames, sum_by(cpu.stack[inside], weighed, len(cpu.frames)))


def _innermost(
    frames: tuple[tuple[Function, ...], ...], sums: Reals
) -> tuple[Function | None, float]:
    found: dict[Function, float] = {}
    for stack, ns in zip(frames, sums.tolist(), strict=True):
        own = _asking(stack) if ns > 0 else None
        if own is not None:
            found[own] = found.get(own, 0.0) + ns
    if not found:
        return None, 0.0
    best = max(sorted(found), key=lambda one: found[one])
    return best, found[best] / sum(found.values())


def _asking(stack: tuple[Function, ...]) -> Function | None:
    """Whoever is outside of a loop, or of a thread's start, only set it going."""
    for one in stack:
        if one.name.rpartition(".")[2] in _OUTERMOST:
            return None
        if not _hands_over(one):
            return one
    return None


def _hands_over(function: Function) -> bool:
    return bool(function.kind) or _HANDING_FILES.fullmatch(function.file) is not None
