"""One function takes the time, named; more of it than in the quick parts of the same window."""

from __future__ import annotations

from collections.abc import Iterator

from perfkit.analysis._grown import (
    AGAINST_REST_MIN,
    GROWN_SHARE_MIN,
    LATENCY_GROWTH_MIN,
    least_growth,
)
from perfkit.analysis._hot import COUNTED_HERTZ_MIN, Hot, counted_hertz, find_grown, tells_blocks
from perfkit.analysis.areas import FEW_RATIO_MIN
from perfkit.analysis.case import Case
from perfkit.analysis.collecting import reject_for_collecting
from perfkit.analysis.compare import SHARE_GATE, SHARE_LOW_GATE, passes_gate
from perfkit.analysis.descriptors import retried_ratio
from perfkit.analysis.rules._hot_finding import (
    RETRIED_RATIO_MAX,
    SOURCE,
    HotFound,
    as_meant,
    find_area,
    find_hot,
    source_of,
)
from perfkit.analysis.rules._rule import Rule, make_finding
from perfkit.analysis.states import State
from perfkit.findings import Culprit, Finding, Rejection
from perfkit.units import to_percent


def find(case: Case) -> Iterator[Finding | Rejection]:
    """Time: CPU of serving threads and what waits behind it. Mechanism: its cost per request."""
    retried = retried_ratio(case)
    if retried >= RETRIED_RATIO_MAX:
        yield _retried(retried)
        return
    found = find_hot(case)
    if found is None:
        is_untold = case.counts_requests and not tells_blocks(case)
        yield _untold(case) if is_untold else _reject(find_grown(case))
        return
    finding = _finding(case, found)
    behind = reject_for_collecting(case, finding) or _reject_for_area(case, found)
    yield behind or as_meant(finding, found)
    if behind is None:
        yield from _look_alikes(case)


def _finding(case: Case, found: HotFound) -> Finding:
    candidate = found.candidate
    return make_finding(
        case,
        RULE,
        title=f"{candidate.name} {found.verb}",
        share=found.share,
        confidence=found.confidence,
        culprit=Culprit("function" if candidate.kind == "function" else "thread", candidate.name),
        evidence=found.evidence,
    )


def _reject_for_area(case: Case, found: HotFound) -> Rejection | None:
    """Where its time is that of a library's work with a cause of its own."""
    inside = find_area(case, found)
    if inside is None:
        return None
    return Rejection(
        RULE.id,
        f"part of the CPU time of {found.candidate.name} that is its own",
        1.0 - inside.ratio,
        1.0 - FEW_RATIO_MIN,
        "ratio",
        inside.source,
        f"the rest is {inside.area.name.strip('()')}: that cause comes first",
    )


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
    source = source_of(hot.candidate)
    cost = f"CPU per request of {name}, slow parts of the window against quick ones"
    share = f"share of time that goes with {name}"
    tests = (
        (
            cost,
            hot.ratio,
            least_growth(hot),
            "x",
            f"that is {to_percent(hot.share.value)} of the time",
        ),
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
        "that in the quickest third (four times where there is little else), and grew more than\n"
        "everything else did; and of what slow requests take longer, 30 % or more is time on a\n"
        "CPU or behind its own threads.\n"
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
