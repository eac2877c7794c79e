"""Workers are young: they start over and over, and requests wait until they have started."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from perfkit.analysis.align import SLOTS_PER_BLOCK
from perfkit.analysis.births import Birth, read_births
from perfkit.analysis.case import Case
from perfkit.analysis.columns import Masks, sum_by
from perfkit.analysis.compare import SHARE_GATE, passes_gate
from perfkit.analysis.intervals import Share, share_of_blocks
from perfkit.analysis.rules._rule import Rule, make_finding
from perfkit.analysis.states import State
from perfkit.findings import Culprit, Evidence, Finding, Rejection
from perfkit.units import to_percent

# Less of the window than this without any start is no reference for the rest.
QUIET_SLOTS_MIN = 20
# A process for every few requests is how the service works (CGI), not a worker that died.
STARTS_PER_ANSWER_MAX = 0.2
SOURCE = "start times of threads; /proc/PID"


@dataclass(frozen=True)
class _Starts:
    """The starts in the window, and what was in flight meanwhile and otherwise."""

    births: tuple[Birth, ...]
    starting: Masks
    in_flight: float
    in_flight_otherwise: float
    share: Share


def find(case: Case) -> Iterator[Finding | Rejection]:
    """Time: requests in flight during starts, beyond the usual. Mechanism: start times."""
    births = tuple(
        birth
        for birth in read_births(case.aligned, case.timeline)
        if birth.ended and birth.starting.any()
    )
    starts = _measure(case, births)
    if not births:
        yield _reject("processes started in the window or just before", 0, 1, "no worker is young")
    elif not case.counts_requests:
        words = f"{len(births)} processes started, but requests could not be counted"
        yield _reject("requests counted", 0, 1, words)
    elif len(births) > STARTS_PER_ANSWER_MAX * max(case.requests.answer_count, 1.0):
        per_answer = len(births) / max(case.requests.answer_count, 1.0)
        words = "processes come and go with the requests"
        yield _reject("processes started per answer", per_answer, STARTS_PER_ANSWER_MAX, words)
    elif starts is None:
        words = "starts fill the window: there is nothing to hold them against"
        yield _reject("slots without a start", _quiet_count(births), QUIET_SLOTS_MIN, words)
    elif not passes_gate(starts.share):
        words = f"{len(births)} processes started, and requests hardly waited for them"
        share = starts.share.value
        yield _reject("share of time beyond the usual during starts", share, SHARE_GATE, words)
    else:
        yield _finding(case, starts)


def _quiet_count(births: tuple[Birth, ...]) -> int:
    return int((~np.logical_or.reduce([birth.starting for birth in births])).sum())


def _measure(case: Case, births: tuple[Birth, ...]) -> _Starts | None:
    """Requests in flight during starts against the median of all other slots."""
    if not births or _quiet_count(births) < QUIET_SLOTS_MIN:
        return None
    axis = case.aligned.axis
    starting: Masks = np.logical_or.reduce([birth.starting for birth in births])
    in_flight = case.requests.in_flight
    usual = float(np.median(in_flight[~starting]))
    beyond_ns = np.where(starting, np.maximum(in_flight - usual, 0.0), 0.0) * axis.slot_ns
    block = np.arange(axis.slot_count) // SLOTS_PER_BLOCK
    part = sum_by(block, beyond_ns, axis.block_count)
    whole = sum_by(block, in_flight * axis.slot_ns, axis.block_count)
    share = share_of_blocks(part, whole)
    return _Starts(births, starting, float(in_flight[starting].mean()), usual, share)


def _reject(metric: str, observed: float, limit: float, why: str) -> Rejection:
    unit = "ratio" if metric.startswith("share") else ""
    return Rejection(RULE.id, metric, observed, limit, unit, SOURCE, why)


def _finding(case: Case, starts: _Starts) -> Finding:
    name, count = Counter(birth.name or "?" for birth in starts.births).most_common(1)[0]
    last = max((b for b in starts.births if (b.name or "?") == name), key=lambda b: b.born_ns)
    mean_s = float(np.mean([birth.starting.sum() for birth in starts.births])) * 0.05
    evidence = (
        Evidence("processes started in the window", len(starts.births), 0, "", SOURCE),
        Evidence("mean time to start", mean_s, None, "s", "until first idle, in steps of 50 ms"),
        Evidence(
            "requests in flight during starts",
            starts.in_flight,
            starts.in_flight_otherwise,
            "",
            "TCP_INFO ages, against the median of the rest of the window",
        ),
    )
    times = "once" if count == 1 else f"{count} times"
    started = to_percent(float(starts.starting.mean()))
    return make_finding(
        case,
        RULE,
        title=f"{name} started {times}, and requests wait for it ({started} of the window)",
        share=starts.share,
        confidence=0.9 if count > 1 else 0.7,
        culprit=Culprit("process", f"{name} ({last.pid})"),
        evidence=evidence,
        fix=(
            f"find out why {name} ends (its log, its exit code, the kernel's kills for memory),\n"
            "and let a new worker take requests only when it has loaded what it needs"
        ),
    )


RULE = Rule(
    id="process_restarted",
    family="load",
    parent="",
    cell=("process", "errors"),
    state=State.QUEUE_WAIT,
    needs=("thread_runs.start_ns", "processes.event"),
    sources=("threads", "processes"),
    absent="processes of the service",
    excludes=("hot_function",),
    summary="Workers are young: they start over, and requests wait for them.",
    meaning=(
        "A process of the service was started in the window or just before it, often more than\n"
        "once: it crashes, is killed for memory, or reaches its limit of requests. Until it has\n"
        "loaded its code, its models and its caches, requests wait or are slow."
    ),
    detection=(
        "Time: requests in flight while a young process of the service was starting (busy since\n"
        "its birth), beyond the median of the rest of the same window.\n"
        "Mechanism: its start time, in the window or at most 30 s before it, and later than that\n"
        "of the service.\n"
        "Not this: a service that starts a process for each request."
    ),
    fix="find out why it ends, and let a new worker take requests only when it is ready",
    verify="no process of the service is started in the window",
    find=find,
)
