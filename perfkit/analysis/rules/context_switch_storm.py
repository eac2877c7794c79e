"""Threads of the service hand work back and forth, and the switches take the time."""

from __future__ import annotations

import math
from collections.abc import Iterator

from perfkit.analysis.case import Case
from perfkit.analysis.compare import SHARE_GATE, SHARE_LOW_GATE
from perfkit.analysis.rules._rule import Rule, make_finding
from perfkit.analysis.states import State
from perfkit.analysis.storms import SLICES_HERTZ_MIN, SOURCE, Storm, find_storm
from perfkit.findings import Culprit, Evidence, Finding, Rejection
from perfkit.units import to_percent

# An answer of a service that asks a dozen peers and a pool of threads takes 10 to 40.
SLICES_PER_ANSWER_MIN = 100.0
# The waits of a loop between two messages of its clients are not for threads of its own.
OWN_RATIO_MIN = 0.3
# Whoever flushes, or asks peers, hundreds of times for each answer switches as often. Measured 0.00
# where steps are handed over (seven captures), 0.50 and more where a request flushes (eleven).
AWAY_RATIO_MAX = 0.36
FUNCTION_RATIO_MIN = 0.4
CONFIDENCE = 0.85


def find(case: Case) -> Iterator[Finding | Rejection]:
    """Time: CPU in the storm, what waits behind it. Mechanism: switches per answer, both ends."""
    storm = find_storm(case)
    if storm is None:
        metric = "threads that are put on a CPU a thousand times a second and more, for moments"
        yield Rejection(RULE.id, metric, 0, 1, "threads", SOURCE, "there are no two")
        return
    yield _reject(storm) or _finding(case, storm)


def _reject(storm: Storm) -> Rejection | None:
    per_answer = "times that its threads are put on a CPU for each answer"
    shares = "share of time in which threads hand work over"
    own = "part of their waits that threads of the service may end"
    tests = (
        (shares, storm.share.value, SHARE_GATE, "ratio"),
        (f"{shares}, at the least", storm.share.low, SHARE_LOW_GATE, "ratio"),
        (per_answer, storm.slices_per_answer, SLICES_PER_ANSWER_MIN, ""),
        (own, storm.own_ratio, OWN_RATIO_MIN, "ratio"),
    )
    why = f"{len(storm.names)} threads, {storm.slice_ns / 1000:.0f} us until they wait"
    if math.isnan(storm.slices_per_answer):
        metric = "answers that were counted"
        why = "what is handed over for one of them is not known"
        return Rejection(RULE.id, metric, 0, 1, "", "sock_diag", why)
    for metric, observed, limit, unit in tests:
        if observed <= limit:
            return Rejection(RULE.id, metric, observed, limit, unit, SOURCE, why)
    if storm.away_ratio > AWAY_RATIO_MAX:
        metric = "part of the time around it that goes to peers, the disk, timers and locks"
        return Rejection(
            RULE.id, metric, storm.away_ratio, AWAY_RATIO_MAX, "ratio", SOURCE, f"for these: {why}"
        )
    return None


def _finding(case: Case, storm: Storm) -> Finding:
    function = storm.function if storm.function_ratio >= FUNCTION_RATIO_MIN else None
    where = f" in {function.words}" if function is not None else ""
    culprit = Culprit("function", function.words) if function is not None else None
    evidence = [
        Evidence(
            "times that threads are put on a CPU for each answer",
            storm.slices_per_answer,
            SLICES_PER_ANSWER_MIN,
            "",
            SOURCE,
        ),
        Evidence(
            f"times a second that {storm.names[0]} is put on a CPU, while it lasts",
            storm.slices_hertz,
            SLICES_HERTZ_MIN,
            "hertz",
            SOURCE,
        ),
        Evidence(
            "CPU time until it waits again, on average",
            storm.slice_ns / 1e6,
            None,
            "ms",
            SOURCE,
        ),
        Evidence(
            "part of the waits that another thread of the service may end",
            storm.own_ratio,
            None,
            "ratio",
            "system calls, futex addresses",
        ),
    ]
    if function is not None:
        metric = f"part of their CPU time in {function.words}"
        evidence.append(Evidence(metric, storm.function_ratio, None, "ratio", "Python stacks"))
    return make_finding(
        case,
        RULE,
        title=(
            f"{len(storm.names)} threads hand work back and forth{where}, "
            f"{storm.slices_per_answer:.0f} switches an answer, for "
            f"{to_percent(storm.share.value)} of the time"
        ),
        share=storm.share,
        confidence=CONFIDENCE,
        culprit=culprit or Culprit("thread", storm.names[0]),
        evidence=tuple(evidence),
    )


RULE = Rule(
    id="context_switch_storm",
    family="native",
    parent="",
    cell=("cpu", "saturation"),
    state=State.HANDOFF_WAIT,
    needs=("thread_runs.slice_count",),
    sources=("threads",),
    absent="threads of the service",
    excludes=("gil_contention", "lock_contention", "hot_function"),
    summary="Threads hand work back and forth, and the switches take the time.",
    meaning=(
        "Each step of a request goes to another thread and its result comes back: for work of\n"
        "some microseconds each way costs as much again, a wake-up, a switch and cold caches.\n"
        "In Python the interpreter's lock changes hands each time as well."
    ),
    detection=(
        "Time: CPU of the serving threads while they are put on a CPU 1,000 times a second and\n"
        "more, for at most 0.05 ms each time, and what waits for them or for a CPU behind them.\n"
        "Mechanism: two threads or more do that, 100 times and more for each answer; 30 % of the\n"
        "waits seen may be ended by a thread of the service (futexes, the interpreter, pipes),\n"
        "and at most 36 % of the time goes to peers, the disk, timers and locks instead.\n"
        "Not this: a loop that wakes for each message of its clients or peers; hundreds of\n"
        "flushes, or of questions to peers, for each answer. Threads that wait for one that\n"
        "computes are gil_contention or lock_contention."
    ),
    fix="hand over many steps at once, or do small ones where they arise",
    verify="an answer takes a few dozen switches",
    find=find,
)
