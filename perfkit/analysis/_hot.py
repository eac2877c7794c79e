"""Which function (or thread) the requests' CPU time went to, and whether it grew: for one rule.

The reference is the same window: what a request costs in its quick blocks. A function whose cost
per request is the same in both is composition, however large.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perfkit.analysis.align import SLOTS_PER_BLOCK
from perfkit.analysis.areas import tell_areas
from perfkit.analysis.blame import name_thread
from perfkit.analysis.case import Case
from perfkit.analysis.columns import Masks, Reals, sum_by
from perfkit.analysis.contention import OWN_THREADS
from perfkit.analysis.intervals import Share, share_of_blocks
from perfkit.analysis.own_code import charge_native
from perfkit.analysis.stacks import (
    COLLECTION,
    CpuByStack,
    Function,
    charge_cpu,
    join_cpu,
    read_running,
)
from perfkit.analysis.states import State

SMOOTHED_BLOCKS = 3
THIRD = 1 / 3
COST_FLOOR_NS = 100_000.0
ATTRIBUTED_MIN = 0.3
# The deepest function that has half of what grew, or of what varies: its callers have that too.
DEEPEST_RATIO = 0.5
ARRIVALS_MIN = 0.5
# Answers counted less often vary from block to block by themselves: in a service whose requests all
# cost the same, counted at 2 Hz, the excess was 0.9 to 2.4 of a mean and the growth 1.1 to 1.9 (8
# runs); counted at 3 to 10 Hz, the excess was 0.1 to 0.8.
COUNTED_HERTZ_MIN = 2.5


@dataclass(frozen=True)
class Candidate:
    """A function or a thread, its CPU time per block, and how deep it lies in its stacks."""

    kind: str
    name: str
    block_ns: Reals
    own_ns: float
    depth: float
    function: Function | None = None


@dataclass(frozen=True)
class Hot:
    """The candidate whose cost per request grew most, or which costs most.

    `quick_ns` and `slow_ns` are its CPU time per request in the quick and the slow third of the
    window; `rest_ratio` is how the cost of everything else grew; `share` is that of the ledger.
    `rest_part` is what everything else is of the CPU time in the quick third, 0..1, and
    `grown_share` is how much of what slow requests take longer is time on a CPU or behind it, 0..1.
    """

    candidate: Candidate
    quick_ns: float
    slow_ns: float
    rest_ratio: float
    latency_ratio: float
    share: Share
    grown_share: float = 1.0
    rest_part: float = 1.0

    @property
    def ratio(self) -> float:
        """How many times its cost in quick blocks it has in slow ones."""
        return self.slow_ns / max(self.quick_ns, COST_FLOOR_NS)


@dataclass(frozen=True)
class Spent:
    """The serving threads' CPU time per block: all of it, and what functions or threads are known
    for; and who they are.
    """

    whole_ns: Reals
    attributed_ns: Reals
    candidates: tuple[Candidate, ...]

    @property
    def collection(self) -> Candidate | None:
        """Garbage collection, which is never a function to be named."""
        return next((one for one in self.candidates if one.function == COLLECTION), None)

    def ratio_of(self, block_ns: Reals) -> Reals:
        """A part of the CPU time per block, 0..1 of what is attributed, where that is enough."""
        enough = self.attributed_ns >= ATTRIBUTED_MIN * self.whole_ns
        base_ns = np.where(enough, self.attributed_ns, self.whole_ns)
        return np.asarray(np.minimum(block_ns / np.maximum(base_ns, 1.0), 1.0))

    def part_of(self, one: Candidate) -> float:
        """What a candidate is of the attributed CPU time, 0..1."""
        return float(one.block_ns.sum() / max(float(self.attributed_ns.sum()), 1.0))

    @property
    def named(self) -> tuple[Candidate, ...]:
        """The candidates without it."""
        return tuple(one for one in self.candidates if one.function != COLLECTION)


@dataclass(frozen=True)
class _Blocks:
    """The window's blocks: requests that were answered, and which blocks are quick and slow.

    Cost is per answer: what piled up while nothing ran is worked off later, at the usual cost.
    """

    answers: Reals
    quick: Masks
    slow: Masks
    latency_ratio: float

    def cost(self, block_ns: Reals, chosen: Masks) -> float:
        """CPU time per request in some blocks."""
        return float(block_ns[chosen].sum()) / max(float(self.answers[chosen].sum()), 1.0)


def counted_hertz(case: Case) -> float:
    """How often a connection's answers are counted, on average over the answers."""
    return 1e9 / max(case.requests.arrival_gap_ns, 1.0)


def tells_blocks(case: Case) -> bool:
    """Whether answers are counted, and often enough to say what one costs in which block."""
    return case.counts_requests and counted_hertz(case) >= COUNTED_HERTZ_MIN


def find_grown(case: Case) -> Hot | None:
    """The candidate that the slow blocks have and the quick ones lack; the deepest that has it."""
    blocks, spent = _divide(case), spend(case)
    if blocks is None or not spent.named:
        return None
    best = _most_grown(blocks, spent)
    if best is None:
        return None
    quick, slow = (blocks.cost(best.block_ns, part) for part in (blocks.quick, blocks.slow))
    rest_ns = np.maximum(spent.attributed_ns - best.block_ns, 0.0)
    rest_quick = blocks.cost(rest_ns, blocks.quick)
    rest_slow = blocks.cost(rest_ns, blocks.slow)
    mean = blocks.cost(best.block_ns, np.ones(len(blocks.answers), dtype=bool))
    excess_ratio = max(0.0, 1.0 - quick / mean) if mean > 0 else 0.0
    return Hot(
        candidate=best,
        quick_ns=quick,
        slow_ns=slow,
        rest_ratio=(rest_slow + COST_FLOOR_NS) / (rest_quick + COST_FLOOR_NS),
        latency_ratio=blocks.latency_ratio,
        share=share_with(case, spent, best.block_ns * excess_ratio),
        grown_share=_grown_share(case, blocks),
        rest_part=rest_quick / max(quick + rest_quick, 1.0),
    )


def _most_grown(blocks: _Blocks, spent: Spent) -> Candidate | None:
    """Of those whose cost grew nearly as much as any did, the deepest."""
    grown = [
        blocks.cost(one.block_ns, blocks.slow) - blocks.cost(one.block_ns, blocks.quick)
        for one in spent.named
    ]
    least = max(DEEPEST_RATIO * max(grown), 1.0)
    leading = [one for one, more in zip(spent.named, grown, strict=True) if more >= least]
    return max(leading, key=lambda one: (one.depth, one.own_ns, one.name), default=None)


def find_largest(case: Case) -> Hot | None:
    """The candidate that costs most in itself, whatever it is compared with."""
    spent = spend(case)
    if not spent.named:
        return None
    best = max(spent.named, key=lambda one: (one.own_ns, one.depth, one.name))
    mean = float(best.block_ns.sum()) / max(case.requests.answer_count, 1.0)
    return Hot(best, mean, mean, 1.0, 1.0, share_with(case, spent, best.block_ns))


def _divide(case: Case) -> _Blocks | None:
    """Quick and slow thirds by the time that a request takes; None where that cannot be said."""
    axis = case.aligned.axis
    arrivals = axis.sum_blocks(case.requests.arrivals)
    if not tells_blocks(case) or axis.block_count < 2 * SMOOTHED_BLOCKS:
        return None
    box = np.ones(SMOOTHED_BLOCKS)
    busy = np.convolve(case.counted_blocks, box, "same")
    came = np.convolve(arrivals, box, "same")
    latency = busy / np.maximum(came, ARRIVALS_MIN)
    order = np.argsort(latency, kind="stable")
    count = max(2, int(len(order) * THIRD))
    quick, slow = np.zeros(len(order), dtype=bool), np.zeros(len(order), dtype=bool)
    quick[order[:count]] = True
    slow[order[-count:]] = True
    ratio = float(latency[slow].mean()) / max(float(latency[quick].mean()), 1.0)
    return _Blocks(answered_blocks(case, arrivals), quick, slow, ratio)


def answered_blocks(case: Case, arrivals: Reals) -> Reals:
    """Answers per block: what came, less what more there is in flight at its end than before."""
    in_flight = case.requests.in_flight
    ends = np.minimum(np.arange(1, len(arrivals) + 1) * SLOTS_PER_BLOCK, len(in_flight)) - 1
    return np.asarray(np.maximum(arrivals - np.diff(in_flight[ends], prepend=in_flight[0]), 0.0))


def spend(case: Case) -> Spent:
    """Where the serving threads' CPU time went: to functions, or, without any stacks, threads.

    Python stacks where there are some; of threads that have none, the native ones.
    """
    timeline = case.timeline
    count = timeline.axis.block_count
    serving = np.array([thread in case.serving for thread in timeline.threads], dtype=bool)
    running = (timeline.states() == State.ON_CPU) & serving[timeline.thread]
    block = timeline.slot // SLOTS_PER_BLOCK
    whole_ns = sum_by(block[running], timeline.ns[running], count)
    python = charge_cpu(timeline, read_running(case.aligned))
    cpu = tell_areas(join_cpu(python, charge_native(case, python)))
    if cpu.ns.sum() <= 0:
        threads = sorted(set(timeline.thread[running].tolist()))
        found = []
        for thread in threads:
            mine = running & (timeline.thread == thread)
            ns = sum_by(block[mine], timeline.ns[mine], count)
            name = name_thread(timeline.threads[thread], case.thread_names)
            found.append(Candidate("thread", name, ns, float(ns.sum()), 0.0))
        return Spent(whole_ns, whole_ns, tuple(found))
    served = serving[cpu.thread]
    mine = CpuByStack(
        cpu.frames, cpu.thread[served], cpu.slot[served], cpu.stack[served], cpu.ns[served]
    )
    attributed_ns = sum_by(mine.slot // SLOTS_PER_BLOCK, mine.ns, count)
    return Spent(whole_ns, attributed_ns, tuple(_functions(mine, count)))


def _functions(cpu: CpuByStack, block_count: int) -> list[Candidate]:
    key = cpu.stack * block_count + cpu.slot // SLOTS_PER_BLOCK
    by_stack = sum_by(key, cpu.ns, len(cpu.frames) * block_count)
    rows = by_stack.reshape(len(cpu.frames), block_count)
    block_ns: dict[Function, Reals] = {}
    own_ns: dict[Function, float] = {}
    depth_ns: dict[Function, float] = {}
    for frames, row in zip(cpu.frames, rows, strict=True):
        spent = float(row.sum())
        if not frames or spent <= 0:
            continue
        own_ns[frames[0]] = own_ns.get(frames[0], 0.0) + spent
        for function, depth in {one: len(frames) - at for at, one in enumerate(frames)}.items():
            block_ns[function] = block_ns.get(function, np.zeros(block_count)) + row
            depth_ns[function] = depth_ns.get(function, 0.0) + depth * spent
    return [
        Candidate(
            "function",
            one.words,
            ns,
            own_ns.get(one, 0.0),
            depth_ns[one] / max(float(ns.sum()), 1.0),
            one,
        )
        for one, ns in block_ns.items()
    ]


def _grown_share(case: Case, blocks: _Blocks) -> float:
    """Of the time that slow requests take longer than quick ones, what a function may explain."""
    parts = (case.ledger.block_ns(rows_behind_cpu(case)), case.counted_blocks)
    mine, whole = (blocks.cost(ns, blocks.slow) - blocks.cost(ns, blocks.quick) for ns in parts)
    return min(1.0, max(0.0, mine / whole)) if whole > 0 else 0.0


def share_with(case: Case, spent: Spent, block_ns: Reals) -> Share:
    """The part of the requests' time that goes with a part of the serving threads' CPU time.

    While a serving thread runs, requests on others wait for the interpreter or for its CPU: that
    time goes the same way. What is not attributed is shared like what is, where that is enough.
    """
    behind_ns = case.ledger.block_ns(rows_behind_cpu(case))
    return share_of_blocks(spent.ratio_of(block_ns) * behind_ns, case.whole_blocks)


def area_share(case: Case, area: Function) -> Share:
    """The part of the requests' time that goes with an area, as far as stacks tell."""
    spent = spend(case)
    found = next((one for one in spent.named if one.function == area), None)
    block_ns = found.block_ns if found is not None else np.zeros(case.aligned.axis.block_count)
    return share_with(case, spent, block_ns)


def rows_behind_cpu(case: Case) -> Masks:
    """Time on a CPU, and waits for the interpreter or a CPU behind the service's own threads."""
    ledger = case.ledger
    serving = {name_thread(thread, case.thread_names) for thread in case.serving}
    amplified = np.array(
        [
            label.state is State.ON_CPU
            or (label.state is State.GIL_WAIT and (not label.culprit or label.culprit in serving))
            or (label.state is State.RUNNABLE and label.culprit == OWN_THREADS)
            for label in ledger.labels
        ],
        dtype=bool,
    )
    return amplified[ledger.label] if len(amplified) else np.zeros(0, dtype=bool)
