"""Time that an interpreter's garbage collector takes from the requests, and in whose calls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perfkit.analysis._hot import Spent, rows_behind_cpu, spend
from perfkit.analysis.case import Case
from perfkit.analysis.columns import Reals
from perfkit.analysis.compare import SHARE_GATE, passes_gate
from perfkit.analysis.intervals import Share, share_of_blocks
from perfkit.analysis.stacks import COLLECTION, FRAMES, Function, charge_cpu, read_stacks
from perfkit.analysis.states import State
from perfkit.findings import Finding, Rejection
from perfkit.units import to_percent

FLAG_SOURCE = "the interpreter's own flag, read with Python stacks"
# After so long other code lets go of the interpreter's lock if it is asked for: CPython's default.
SWITCH_NS = 5e6
SMOOTHED_BLOCKS = 8


@dataclass(frozen=True)
class Collecting:
    """What the collector takes, and who calls it.

    `share` is of the ledger to judge by, what waits behind it included; `cpu_ns` the CPU time of
    the serving threads in it, `cpu_ratio` the part that this is of theirs. `count` is how often it
    ran and `full_count` how often through all objects; 0 where that is not known. `caller` is the
    Python function in which it begins most often, with the part of its time; None: none is known.
    `native_ratio` is the part of the serving threads' native samples that are in it; -1 where there
    are no samples.
    """

    share: Share
    cpu_ns: float
    cpu_ratio: float
    count: int
    full_count: int
    caller: Function | None
    caller_ratio: float
    native_ratio: float


def find_collecting(case: Case) -> Collecting | None:
    """What is known of it; None where no look met it."""
    spent = spend(case)
    if spent.collection is None:
        return None
    block_ns = spent.collection.block_ns
    count, full_count = _count(case)
    caller, caller_ratio = _find_caller(case)
    return Collecting(
        share=_share(case, spent, block_ns, count),
        cpu_ns=float(block_ns.sum()),
        cpu_ratio=float(block_ns.sum() / max(float(spent.attributed_ns.sum()), 1.0)),
        count=count,
        full_count=full_count,
        caller=caller,
        caller_ratio=caller_ratio,
        native_ratio=_native_ratio(case),
    )


def _share(case: Case, spent: Spent, block_ns: Reals, count: int) -> Share:
    """Its part of the CPU time, of what waits for a CPU behind it, and of waits for the lock.

    Whoever holds the lock for long makes others wait for long, and more of them: waits go with
    time held and its length. A collection holds it throughout, other code for one interval. Some
    looks a block are too few for that, so it is told of the blocks around, too.
    """
    ratio = spent.ratio_of(block_ns)
    length_ns = max(float(block_ns.sum()) / count, SWITCH_NS) if count else SWITCH_NS
    box = np.ones(min(SMOOTHED_BLOCKS, len(block_ns)))
    nearby_ns, all_ns = (np.convolve(one, box, "same") for one in (block_ns, spent.attributed_ns))
    weighed_ns = nearby_ns * length_ns
    other_ns = np.maximum(all_ns - nearby_ns, 0.0) * SWITCH_NS
    lock_ratio = weighed_ns / np.maximum(weighed_ns + other_ns, 1.0)
    behind = rows_behind_cpu(case)
    locked = behind & case.ledger.rows_where(State.GIL_WAIT)
    part_ns = ratio * case.ledger.block_ns(behind & ~locked)
    part_ns += lock_ratio * case.ledger.block_ns(locked)
    return share_of_blocks(part_ns, case.whole_blocks)


def _count(case: Case) -> tuple[int, int]:
    """Collections in the window: of all kinds, and full ones."""
    table = case.aligned.table("collections").sorted_by("t_ns")
    ends: dict[int, list[tuple[int, int]]] = {}
    columns = (table.integers(name).tolist() for name in ("pid", "young_count", "full_count"))
    for pid, young, full in zip(*columns, strict=True):
        ends.setdefault(pid, []).append((young, full))
    young, full = (
        sum(max(0, told[-1][at] - told[0][at]) for told in ends.values()) for at in (0, 1)
    )
    return young + full, full


def reject_for_collecting(case: Case, finding: Finding) -> Rejection | None:
    """Rejects another cause of which garbage collection leaves too little; None: it does not.

    Functions seem hot, locks held and loops blocked while the collector runs in them.
    """
    found = find_collecting(case)
    if found is None or not passes_gate(found.share):
        return None
    left = max(0.0, finding.share - found.share.value)
    if left > SHARE_GATE:
        return None
    return Rejection(
        finding.id,
        f"share of its {to_percent(finding.share)} of the time that is not garbage collection",
        left,
        SHARE_GATE,
        "ratio",
        FLAG_SOURCE,
        "the collector takes the time: gc_pause comes first",
    )


def _find_caller(case: Case) -> tuple[Function | None, float]:
    cpu = charge_cpu(case.timeline, read_stacks(case.aligned, FRAMES))
    sums = np.bincount(cpu.stack, weights=cpu.ns, minlength=len(cpu.frames))
    callers: dict[Function, float] = {}
    whole = 0.0
    for frames, ns in zip(cpu.frames, sums.tolist(), strict=True):
        if ns > 0 and frames[0] == COLLECTION:
            whole += ns
            if len(frames) > 1:
                callers[frames[1]] = callers.get(frames[1], 0.0) + ns
    caller = max(callers, key=lambda one: (callers[one], one), default=None)
    return caller, callers[caller] / whole if caller is not None else 0.0


def _native_ratio(case: Case) -> float:
    samples = case.native_samples
    threads = zip(samples.pid.tolist(), samples.tid.tolist(), strict=True)
    mine = np.array([one in case.serving for one in threads], dtype=bool)
    in_it = np.array([COLLECTION in frames for frames in samples.frames], dtype=bool)
    whole = float(samples.weight_ns[mine].sum())
    if not whole:
        return -1.0
    return float(samples.weight_ns[mine & in_it[samples.stack]].sum()) / whole
