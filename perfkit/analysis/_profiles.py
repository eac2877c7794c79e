"""The sums behind a profile: time by group of threads and stack, of one kind of time."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from perfkit.analysis.case import Case
from perfkit.analysis.columns import Frame, Integers, Masks, Reals, sum_by
from perfkit.analysis.native import OFF, PREEMPTED, Grade, Samples, read_samples
from perfkit.analysis.native import read_wall_samples as read_wall
from perfkit.analysis.stacks import (
    SEEN_MIN,
    CpuByStack,
    Function,
    charge_cpu,
    charge_rest,
    join_cpu,
    read_running,
)
from perfkit.analysis.states import State
from perfkit.units import to_percent

SERVING, BACKGROUND = "threads that serve requests", "other threads"
NOT_SEEN = "(not sampled)"
# The wall-clock sampler reads the stacks of threads that stand still.
ON_CPU = "(on a CPU, or not read)"
LEAST_NS = 1000.0
# (group, frames from the outermost on) -> (ns, ns of it whose Python frames are near).
Key = tuple[str, tuple[Function, ...]]
Parts = dict[Key, tuple[float, float]]


def sum_cpu(case: Case) -> Parts:
    """The service's CPU time, exact for each thread, by the stacks that each was seen in.

    Of a thread that the on-CPU sampler saw often enough its samples tell, merged with Python's
    frames; else the Python stacks.
    """
    timeline = case.timeline
    samples = case.native_samples
    native = charge_cpu(timeline, samples.to_stretches())
    python = charge_cpu(timeline, read_running(case.aligned))
    seen = sum_by(native.thread, np.ones(len(native.ns)), len(timeline.threads))
    by_native = (seen >= SEEN_MIN) | ~np.isin(np.arange(len(seen)), python.thread)
    near = _near_ratios(samples)
    joined = join_cpu(
        _choose(native, by_native[native.thread]), _choose(python, ~by_native[python.thread])
    )
    near = np.concatenate([near, np.zeros(len(joined.frames) - len(near))])
    cpu = charge_rest(joined, timeline)
    serving = _serving(case)
    running = timeline.states() == State.ON_CPU
    found: Parts = {}
    for serves, group in ((True, SERVING), (False, BACKGROUND)):
        mine = serving[cpu.thread] == serves
        sums = sum_by(cpu.stack[mine], cpu.ns[mine], len(cpu.frames))
        whole = float(timeline.ns[running & (serving[timeline.thread] == serves)].sum())
        # Few samples of a thread that ran a little may stand for more than it ran.
        sums *= min(1.0, whole / max(float(sums.sum()), 1.0)) if samples.frames else 1.0
        _add(found, group, cpu.frames, (sums, sums * near))
        _add_rest(found, (group, NOT_SEEN), whole - float(sums.sum()))
    return found


def sum_off_cpu(case: Case) -> Parts:
    """How long the service's threads were off the CPUs, by the stack with which each left."""
    samples = read_samples(case.aligned, OFF, PREEMPTED)
    table = case.aligned.table("native_samples")
    wanted = np.array([one in (OFF, PREEMPTED) for one in table.text("kind")], dtype=bool)
    return _sum_samples(case, samples, table.where(wanted), NOT_SEEN)


def sum_wall(case: Case) -> Parts:
    """The time of the service's threads on the wall's clock, running or not."""
    table = case.aligned.table("wall_samples")
    return _sum_samples(case, read_wall(case.aligned), table, ON_CPU)


def sum_host(case: Case) -> Parts:
    """The CPU time of all processes of the host, as it was sampled."""
    names = {owner.pid: owner.name for owner in case.owners}
    names |= {one.pid: one.name for one in case.aligned.header.target.processes}
    samples = case.native_samples
    found: Parts = {}
    for pid in np.unique(samples.pid).tolist():
        mine = samples.where(samples.pid == pid)
        group = f"{names.get(pid) or 'process'} ({pid})" if pid > 0 else "kernel"
        _add(found, group, samples.frames, _weigh(mine))
    return found


def tell_quality(case: Case, of: str) -> tuple[str, ...]:
    """How good the stacks of a profile are, as sentences; none where there are Python's only."""
    aligned = case.aligned
    if of == "wall":
        samples = read_wall(aligned)
    elif of == "off-cpu":
        samples = read_samples(aligned, OFF, PREEMPTED)
    else:
        samples = case.native_samples
    if of != "host":
        samples = samples.where(_is_ours(case, samples.pid))
    return tuple(_word_quality(samples))


def _word_quality(samples: Samples) -> Iterable[str]:
    count = len(samples.stack)
    if not count:
        return
    counts = np.bincount(samples.grade, minlength=len(Grade)).tolist()
    words = ("exact", "near (~)", "native only")
    graded = [
        f"{to_percent(part / count)} {word}"
        for part, word in zip(counts, words, strict=True)
        if part
    ]
    if counts[Grade.NATIVE] == count:
        yield f"{count} samples, none with Python frames."
    else:
        yield f"{count} samples: Python frames {', '.join(graded)}."
    cut = int((samples.end > 0).sum())
    if cut:
        yield f"{to_percent(cut / count)} of the stacks do not reach the thread's root."
    if still := int(samples.is_open.sum()):
        yield f"{still} waits were not over at the end: their time is a lower bound."


def _sum_samples(case: Case, samples: Samples, table: Frame, rest: str) -> Parts:
    """Samples of the service by group; what has no stack is shown as `rest`."""
    serving = case.serving
    found: Parts = {}
    seen = _are_serving(samples.pid, samples.tid, serving)
    ours = _is_ours(case, samples.pid)
    weights = np.maximum(table.integers("weight_ns"), 0).astype(np.float64)
    all_serving = _are_serving(table.integers("pid"), table.integers("tid"), serving)
    all_ours = _is_ours(case, table.integers("pid"))
    for serves, group in ((True, SERVING), (False, BACKGROUND)):
        mine = samples.where(ours & (seen == serves))
        _add(found, group, samples.frames, _weigh(mine))
        whole = float(weights[all_ours & (all_serving == serves)].sum())
        _add_rest(found, (group, rest), whole - float(mine.weight_ns.sum()))
    return found


def _weigh(samples: Samples) -> tuple[Reals, Reals]:
    """The time of each stack, and that of it whose Python frames are near."""
    weights = samples.weight_ns.astype(np.float64)
    is_near = samples.grade == Grade.NEAR
    count = len(samples.frames)
    return (
        sum_by(samples.stack, weights, count),
        sum_by(samples.stack[is_near], weights[is_near], count),
    )


def _near_ratios(samples: Samples) -> Reals:
    whole, near = _weigh(samples)
    return near / np.maximum(whole, 1.0)


def _add(
    found: Parts, group: str, frames: tuple[tuple[Function, ...], ...], sums: tuple[Reals, Reals]
) -> None:
    rows = zip(frames, sums[0].tolist(), sums[1].tolist(), strict=True)
    for stack, ns, near_ns in rows:
        if ns > 0 and stack:
            key = (group, stack[::-1])
            before = found.get(key, (0.0, 0.0))
            found[key] = (before[0] + ns, before[1] + near_ns)


def _add_rest(found: Parts, names: tuple[str, str], ns: float) -> None:
    """Time without a stack, of a group, under a name of its own."""
    if ns >= LEAST_NS:
        found[names[0], (Function(names[1], ""),)] = (ns, 0.0)


def _choose(cpu: CpuByStack, mask: Masks) -> CpuByStack:
    columns = (cpu.thread[mask], cpu.slot[mask], cpu.stack[mask], cpu.ns[mask])
    return CpuByStack(cpu.frames, *columns)


def _serving(case: Case) -> Masks:
    return np.array([thread in case.serving for thread in case.timeline.threads], dtype=bool)


def _are_serving(pid: Integers, tid: Integers, serving: frozenset[tuple[int, int]]) -> Masks:
    pairs = zip(pid.tolist(), tid.tolist(), strict=True)
    return np.array([one in serving for one in pairs], dtype=bool)


def _is_ours(case: Case, pid: Integers) -> Masks:
    pids = {one for one, _ in case.timeline.threads} | case.aligned.service_pids
    return np.isin(pid, sorted(pids))
