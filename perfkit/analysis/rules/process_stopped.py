"""The target is stopped, traced, frozen or dumping core, so nothing in it runs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from perfkit.analysis.case import Case
from perfkit.analysis.columns import Reals
from perfkit.analysis.compare import passes_gate
from perfkit.analysis.halts import Halt, read_halts
from perfkit.analysis.intervals import Share, share_of_blocks
from perfkit.analysis.rules._names import name_process
from perfkit.analysis.rules._rule import Rule, make_finding
from perfkit.analysis.states import State
from perfkit.findings import Culprit, Evidence, Finding, Rejection
from perfkit.units import to_percent

HALTED_RATIO_MIN = 0.05
SOURCE = "state letters of its threads, /proc/PID/status, the freezer's cgroup"


def find(case: Case) -> Iterator[Finding | Rejection]:
    """Time: requests in flight while nothing runs. Mechanism: letters, tracer, freezer."""
    halts = read_halts(case.aligned, case.timeline)
    share = _share(case, halts)
    longest = halts[0].window_ratio(case.aligned.axis) if halts else 0.0
    if longest < HALTED_RATIO_MIN or not passes_gate(share):
        yield _reject(longest, share)
        return
    yield _finding(case, halts[0], share)


def _share(case: Case, halts: tuple[Halt, ...]) -> Share:
    """What was in flight while every serving process was halted, or waited on a halted thread."""
    axis = case.aligned.axis
    ratio_of = {halt.pid: halt.ratio for halt in halts}
    nothing = np.zeros(axis.slot_count)
    serving = sorted({pid for pid, _ in case.serving}) or sorted(ratio_of)
    ratios = [ratio_of.get(pid, nothing) for pid in serving]
    all_halted = np.minimum.reduce(ratios) if ratios else nothing
    halted_ns = all_halted * axis.slot_ns
    whole = case.counted_blocks
    halted_ns = halted_ns * (
        case.requests.in_flight if case.counts_requests else max(1, len(case.serving))
    )
    part = np.maximum(
        axis.sum_blocks(halted_ns),
        case.ledger.block_ns(case.ledger.rows_where(State.STOPPED)),
    )
    return _bounded(case, part, whole)


def _bounded(case: Case, part: Reals, whole: Reals) -> Share:
    """The share of the whole; where threads are judged, what was halted is part of the whole."""
    if case.counts_requests:
        return share_of_blocks(np.minimum(part, whole), whole)
    return share_of_blocks(part, np.maximum(part, whole))


def _reject(longest: float, share: Share) -> Rejection:
    return Rejection(
        RULE.id,
        "share of the window in which a process was stopped",
        longest,
        HALTED_RATIO_MIN,
        "ratio",
        SOURCE,
        f"no process was halted for long; {to_percent(share.value)} of the time went to that",
    )


def _finding(case: Case, halt: Halt, share: Share) -> Finding:
    ratio = halt.window_ratio(case.aligned.axis)
    name = name_process(case, halt.pid)
    evidence = [Evidence("share of the window halted", ratio, 0.0, "ratio", SOURCE)]
    culprit, how, fix = Culprit("process", name), "was stopped", f"kill -CONT {halt.pid}"
    fix = f"{fix} lets it go on; find out who sent it SIGSTOP or SIGTSTP"
    if halt.is_dumping:
        how, fix = "was writing a core dump", "wait for the dump, and look at it; it crashed"
    elif halt.is_frozen:
        how, fix = "was frozen with its cgroup", "thaw its cgroup (freezer.state, cgroup.freeze)"
    elif halt.tracer_pid > 0:
        tracer = f"{halt.tracer_name or '?'} ({halt.tracer_pid})"
        culprit, how = Culprit("process", tracer), f"was held by {tracer}, which traces it"
        fix = f"detach the tracer, process {halt.tracer_pid}; if it stays: kill -CONT {halt.pid}"
        evidence.append(
            Evidence("pid of its tracer", halt.tracer_pid, 0, "", "/proc/PID/status TracerPid")
        )
    return make_finding(
        case,
        RULE,
        title=f"{name} {how} for {to_percent(ratio)} of the window",
        share=share,
        confidence=0.95,
        culprit=culprit,
        evidence=tuple(evidence),
        fix=fix,
    )


RULE = Rule(
    id="process_stopped",
    family="self",
    parent="",
    cell=("process", "errors"),
    state=State.STOPPED,
    needs=("thread_runs.state_letter",),
    sources=("threads",),
    absent="threads of the service",
    excludes=("cpu_throttled",),
    summary="The process is stopped, traced, frozen, or dumping core.",
    meaning=(
        "A stopped process does nothing at all until it is told to go on: after SIGSTOP, under a\n"
        "debugger or strace, while its cgroup is frozen, or while the kernel writes its core\n"
        "dump. Requests that it holds wait, and those that come pile up."
    ),
    detection=(
        "Time: requests in flight while no serving process could run.\n"
        "Mechanism: the state letters T and t of its threads, TracerPid and CoreDumping in\n"
        "/proc/PID/status, and the state of its freezer.\n"
        "Not this: a throttled process has no such letter, and its cgroup's cpu.stat counts it."
    ),
    fix="let it go on: kill -CONT PID; or detach the tracer; or thaw its cgroup",
    verify="no thread of it is in state T or t",
    find=find,
)
