"""One function takes the time, named; more of it than in the quick parts of the same window."""

from __future__ import annotations

from collections.abc import Iterator

from perfkit.analysis._grown import (
    AGAINST_REST_MIN,
    GROWN_SHARE_MIN,
    GROWTH_MIN,
    LATENCY_GROWTH_MIN,
    has_grown,
    was_halted,
)
from perfkit.analysis._hot import (
    COUNTED_HERTZ_MIN,
    Candidate,
    Hot,
    Uneven,
    counted_hertz,
    find_grown,
    find_largest,
    find_uneven,
    tells_blocks,
)
from perfkit.analysis._long_requests import LongRequests, find_long
from perfkit.analysis.case import Case
from perfkit.analysis.collecting import reject_for_collecting
from perfkit.analysis.compare import SHARE_GATE, SHARE_LOW_GATE, passes_gate
from perfkit.analysis.descriptors import retried_ratio
from perfkit.analysis.own_code import look_around
from perfkit.analysis.rules._rule import Rule, make_finding
from perfkit.analysis.states import State
from perfkit.findings import Culprit, Evidence, Finding, Rejection
from perfkit.units import to_percent

# A process that fails and tries again burns CPU time by that.
RETRIED_RATIO_MAX = 0.5
# What a function calls, or who calls it, is told from this part of its time on.
AROUND_RATIO_MIN = 0.3
SOURCE = "Python stacks, schedstat"
SOURCE_NATIVE = "native stacks, schedstat"
SOURCE_THREADS = "schedstat; there are no stacks"


def find(case: Case) -> Iterator[Finding | Rejection]:
    """Time: CPU of serving threads and what waits behind it. Mechanism: its cost per request."""
    retried = retried_ratio(case)
    if retried >= RETRIED_RATIO_MAX:
        yield _retried(retried)
        return
    hot = find_grown(case)
    finding = _find(case, hot)
    if finding is None:
        is_untold = case.counts_requests and not tells_blocks(case)
        yield _untold(case) if is_untold else _reject(hot)
        return
    behind = reject_for_collecting(case, finding)
    yield behind or finding
    if behind is None:
        yield from _look_alikes(case)


def _find(case: Case, hot: Hot | None) -> Finding | None:
    """What grew, else what long requests have, else what is uneven, else what is largest."""
    if hot is not None and has_grown(hot) and not was_halted(case):
        return _finding(case, hot, is_grown=True)
    long = None if was_halted(case) else find_long(case)
    if long is not None and passes_gate(long.share):
        return _long_finding(case, long)
    uneven = None if was_halted(case) else find_uneven(case)
    if uneven is not None and passes_gate(uneven.hot.share):
        return _uneven_finding(case, uneven)
    largest = find_largest(case) if case.said_slow else None
    if largest is not None and passes_gate(largest.share):
        return _finding(case, largest, is_grown=False)
    return None


def _untold(case: Case) -> Rejection:
    return Rejection(
        RULE.id,
        "how often the answers of a connection were counted",
        counted_hertz(case),
        COUNTED_HERTZ_MIN,
        "hertz",
        "sock_diag",
        "what a request costs from moment to moment is not known",
    )


def _retried(ratio: float) -> Rejection:
    return Rejection(
        RULE.id,
        "CPU time of processes without a descriptor, of the service's",
        ratio,
        RETRIED_RATIO_MAX,
        "ratio",
        "schedstat, /proc/PID/fd",
        "what fails for want of one is tried again: fd_exhausted comes first",
    )


def _reject(hot: Hot | None) -> Rejection:
    if hot is None:
        return Rejection(
            RULE.id, "functions that grew", 0, 1, "", SOURCE, "no requests, or none grew"
        )
    name, rest = hot.candidate.name, f"everything else grew x{hot.rest_ratio:.1f}"
    source = _source(hot.candidate)
    cost = f"CPU per request of {name}, slow parts of the window against quick ones"
    share = f"share of time that goes with {name}"
    tests = (
        (cost, hot.ratio, GROWTH_MIN, "x", f"that is {to_percent(hot.share.value)} of the time"),
        (f"{cost}, as that of all else", hot.ratio / hot.rest_ratio, AGAINST_REST_MIN, "x", rest),
        (share, hot.share.value, SHARE_GATE, "ratio", f"it grew x{hot.ratio:.1f}"),
        (f"{share}, at the least", hot.share.low, SHARE_LOW_GATE, "ratio", "it varies"),
        (
            "part of the slow requests' extra time on a CPU or behind it",
            hot.grown_share,
            GROWN_SHARE_MIN,
            "ratio",
            "they wait for something else",
        ),
        (
            "time of a request, slow parts of the window against quick ones",
            hot.latency_ratio,
            LATENCY_GROWTH_MIN,
            "x",
            "requests are not slower for it",
        ),
        ("part of the window in which it was not halted", 0.0, 1.0, "ratio", "it stood still"),
    )
    metric, observed, limit, unit, why = next(one for one in tests if one[1] <= one[2])
    return Rejection(RULE.id, metric, observed, limit, unit, source, why)


def _finding(case: Case, hot: Hot, *, is_grown: bool) -> Finding:
    source = _source(hot.candidate)
    name = hot.candidate.name
    evidence = [
        Evidence(
            f"CPU per request of {name}" + (" in slow parts of the window" if is_grown else ""),
            hot.slow_ns / 1e6,
            hot.quick_ns / 1e6 if is_grown else None,
            "ms",
            f"{source}, against the quick parts" if is_grown else source,
        ),
        Evidence(
            "CPU time of it in the window",
            float(hot.candidate.block_ns.sum()) / 1e9,
            None,
            "s",
            source,
        ),
        *_around(case, hot.candidate),
    ]
    verb = "takes the CPU time in slow requests" if is_grown else "takes most of the CPU time"
    is_function = hot.candidate.kind == "function"
    return make_finding(
        case,
        RULE,
        title=f"{name} {verb}",
        share=hot.share,
        confidence=(0.85 if is_grown else 0.7) - (0.0 if is_function else 0.15),
        culprit=Culprit("function" if is_function else "thread", name),
        evidence=tuple(evidence),
    )


def _long_finding(case: Case, long: LongRequests) -> Finding:
    name = long.candidate.name
    return make_finding(
        case,
        RULE,
        title=f"{name} takes the CPU time of the requests that take long",
        share=long.share,
        confidence=0.85,
        culprit=Culprit("function", name),
        evidence=(
            Evidence(
                f"time of one of the {to_percent(long.ratio)} of requests that take long",
                long.long_ns / 1e6,
                long.usual_ns / 1e6,
                "ms",
                "TCP_INFO ages at the end of each connection, against the median",
            ),
            Evidence(
                f"part of the CPU time of {name} while one of those is in flight",
                long.inside_ratio,
                long.covered_ratio,
                "ratio",
                f"{SOURCE}, against the part of the window",
            ),
            *_around(case, long.candidate),
        ),
    )


def _uneven_finding(case: Case, uneven: Uneven) -> Finding:
    candidate = uneven.hot.candidate
    is_function = candidate.kind == "function"
    source = _source(candidate)
    return make_finding(
        case,
        RULE,
        title=f"{candidate.name} takes the CPU time, and a few requests take most of it",
        share=uneven.hot.share,
        confidence=0.75 if is_function else 0.6,
        culprit=Culprit("function" if is_function else "thread", candidate.name),
        evidence=(
            Evidence(
                "CPU of one of the costly requests, of a mean one",
                uneven.costly_ns / 1e6,
                uneven.mean_ns / 1e6,
                "ms",
                "schedstat against answers, spread over the blocks of the window",
            ),
            Evidence(
                f"CPU time of {candidate.name} in the window",
                float(candidate.block_ns.sum()) / 1e9,
                None,
                "s",
                source,
            ),
            *_around(case, candidate),
        ),
    )


def _source(candidate: Candidate) -> str:
    if candidate.function is None:
        return SOURCE_THREADS
    return SOURCE_NATIVE if candidate.function.kind else SOURCE


def _around(case: Case, candidate: Candidate) -> Iterator[Evidence]:
    """What the native stacks say of a function: where below it the time is spent, who calls it."""
    if candidate.function is None:
        return
    found = look_around(case, candidate.function)
    for words, ratio, verb in (
        (found.leaf, found.leaf_ratio, "spent in"),
        (found.caller, found.caller_ratio, "when called by"),
    ):
        if words and ratio >= AROUND_RATIO_MIN:
            metric = f"part of its CPU time {verb} {words}"
            yield Evidence(metric, ratio, None, "ratio", "native stacks")


def _look_alikes(case: Case) -> Iterator[Rejection]:
    throttled = case.share(State.THROTTLED)
    if not passes_gate(throttled):
        yield Rejection(
            "cpu_throttled",
            "share of time throttled",
            throttled.value,
            SHARE_GATE,
            "ratio",
            "cpu.stat",
            "its threads run, they are not stopped",
        )


RULE = Rule(
    id="hot_function",
    family="python",
    parent="",
    cell=("cpu", "utilisation"),
    state=State.ON_CPU,
    needs=("thread_runs.run_ns",),
    sources=("threads",),
    absent="threads of the service",
    excludes=("gil_contention", "host_cpu_saturated", "cpu_throttled"),
    summary="One function takes the time.",
    meaning=(
        "One function of the request's path uses much more CPU than it did in other parts of the\n"
        "same window, or, where you said that the service is slow (--slow), the most of all.\n"
        "In Python the requests on other threads wait for it too: one thread runs at a time."
    ),
    detection=(
        "Time: CPU of the serving threads, exact by schedstat, shared among the functions that\n"
        "they were seen in, and the waits for the interpreter or a CPU that stand behind it.\n"
        "Python stacks tell the functions; of threads without, native ones, and of these the\n"
        "service's own code is named, not what it calls in the C library or the kernel.\n"
        "Mechanism: its CPU per request in the slowest third of the window is at least twice\n"
        "that in the quickest third, and grew more than everything else did; and of what slow\n"
        "requests take longer, 30 % or more is time on a CPU or behind its own threads.\n"
        "Or: a part of the requests, each over a connection of its own, takes twice the usual\n"
        "time and more, and it runs while one of those is in flight, and hardly ever else.\n"
        "Or: a few requests cost most of the CPU time, by its spread over the window, and it is\n"
        "hot when they come.\n"
        "Not this: a function that costs the same throughout is what the service does. A thread\n"
        "that serves nobody is gil_contention or busy_poll_thread. What a process without a\n"
        "descriptor burns to try again is fd_exhausted."
    ),
    fix="look at what the named function was given in the slow requests, and make it do less",
    verify="its CPU per request is the same in slow and in quick parts of the window",
    find=find,
)
