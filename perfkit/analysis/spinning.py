"""CPU time in which threads spin on a lock: they run, and get nowhere until another lets go."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perfkit.analysis._hot import rows_behind_cpu
from perfkit.analysis.areas import SPINNING, caller_of, to_area
from perfkit.analysis.case import Case
from perfkit.analysis.columns import Reals, sum_by
from perfkit.analysis.intervals import Share, share_of_blocks
from perfkit.analysis.stacks import Function, charge_cpu, read_running

SOURCE = "native stacks, schedstat"


@dataclass(frozen=True)
class Spinning:
    """What spinning takes: of the ledger to judge by, and of the serving threads' CPU time.

    `caller` is who asks for the lock most often, None where nobody is known, with the part of the
    time; `thread_count` is how many serving threads were met spinning, in `sample_count` samples.
    """

    share: Share
    cpu_ratio: float
    thread_count: int
    sample_count: int
    caller: Function | None
    caller_ratio: float


def find_spinning(case: Case) -> Spinning | None:
    """None where no sample met a serving thread that spins."""
    samples = case.native_samples
    spins = np.array([to_area(one[0]) == SPINNING for one in samples.frames], dtype=bool)
    threads = list(zip(samples.pid.tolist(), samples.tid.tolist(), strict=True))
    serving = np.array([one in case.serving for one in threads], dtype=bool)
    met = serving & spins[samples.stack] if len(spins) else serving
    if not met.any():
        return None
    cpu = charge_cpu(case.timeline, samples.where(serving).to_stretches())
    sums = sum_by(cpu.stack, cpu.ns, len(cpu.frames))
    ratio = float(sums[spins].sum() / max(float(sums.sum()), 1.0))
    caller, caller_ratio = _find_caller(case, cpu.frames, np.where(spins, sums, 0.0))
    behind_ns = case.ledger.block_ns(rows_behind_cpu(case))
    return Spinning(
        share=share_of_blocks(ratio * behind_ns, case.whole_blocks),
        cpu_ratio=ratio,
        thread_count=len({thread for thread, is_met in zip(threads, met, strict=True) if is_met}),
        sample_count=int(met.sum()),
        caller=caller,
        caller_ratio=caller_ratio,
    )


def _find_caller(
    case: Case, frames: tuple[tuple[Function, ...], ...], spent_ns: Reals
) -> tuple[Function | None, float]:
    """Who asks for the lock most often, and the part of the time of those whose caller is known.

    Without Python frames beside them, native samples show only the way from the interpreter: then
    it is the innermost Python function in which the serving threads run most.
    """
    callers: dict[Function, float] = {}
    for stack, ns in zip(frames, spent_ns.tolist(), strict=True):
        caller = caller_of(stack, 0) if ns > 0 else None
        if caller is not None:
            callers[caller] = callers.get(caller, 0.0) + ns
    python = {one: ns for one, ns in callers.items() if not one.kind}
    callers = python or _innermost(case) or callers
    if not callers:
        return None, 0.0
    best = max(sorted(callers), key=lambda one: callers[one])
    return best, callers[best] / sum(callers.values())


def _innermost(case: Case) -> dict[Function, float]:
    """The CPU time of the serving threads by their innermost Python function."""
    cpu = charge_cpu(case.timeline, read_running(case.aligned))
    serving = np.array([one in case.serving for one in case.timeline.threads], dtype=bool)
    mine = serving[cpu.thread]
    found: dict[Function, float] = {}
    for stack, ns in zip(cpu.stack[mine].tolist(), cpu.ns[mine].tolist(), strict=True):
        if cpu.frames[stack]:
            leaf = cpu.frames[stack][0]
            found[leaf] = found.get(leaf, 0.0) + ns
    return found
