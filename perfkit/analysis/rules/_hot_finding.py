"""The function that the requests' CPU time goes to, and what proves it: for three rules.

`hot_function` names it; where its time is an area's (perfkit.analysis.areas), another rule does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from msgspec import structs

from perfkit.analysis._grown import has_grown, was_halted
from perfkit.analysis._hot import (
    Candidate,
    Hot,
    area_share,
    find_grown,
    find_largest,
)
from perfkit.analysis._long_requests import LongRequests, find_long
from perfkit.analysis._uneven import Uneven, find_uneven
from perfkit.analysis.areas import Inside, find_inside
from perfkit.analysis.case import Case
from perfkit.analysis.collecting import reject_for_collecting
from perfkit.analysis.compare import SHARE_GATE, passes_gate
from perfkit.analysis.descriptors import retried_ratio
from perfkit.analysis.intervals import Share
from perfkit.analysis.own_code import look_around
from perfkit.analysis.rules._rule import Rule, make_finding
from perfkit.analysis.stacks import Function
from perfkit.findings import Culprit, Evidence, Finding, Rejection
from perfkit.units import to_percent

# A process that fails and tries again burns CPU time by that.
RETRIED_RATIO_MAX = 0.5
# What a function calls, or who calls it, is told from this part of its time on.
AROUND_RATIO_MIN = 0.3
# One function calls for an area's work where so much of it is; else many do.
CALLER_RATIO_MIN = 0.5
MEANT = "if these requests are meant to cost more, nothing is wrong (--against RUN tells)"
SOURCE = "Python stacks, schedstat"
SOURCE_NATIVE = "native stacks, schedstat"
SOURCE_THREADS = "schedstat; there are no stacks"


@dataclass(frozen=True)
class HotFound:
    """What a rule needs to report it; `verb` goes on after the function's name.

    `may_be_meant` where nothing says that these requests were ever cheaper: no alarm then.
    """

    candidate: Candidate
    verb: str
    share: Share
    confidence: float
    evidence: tuple[Evidence, ...]
    may_be_meant: bool = False


def find_hot(case: Case) -> HotFound | None:
    """What grew, else what long requests have, else what is uneven, else what is largest.

    None where nothing does, or its time is that of processes that fail and try again.
    """
    if retried_ratio(case) >= RETRIED_RATIO_MAX:
        return None
    halted = was_halted(case)
    hot = None if halted else find_grown(case)
    if hot is not None and has_grown(hot):
        return _found(case, hot, is_grown=True)
    long = None if halted else find_long(case)
    if long is not None and passes_gate(long.share):
        return _found_long(case, long)
    uneven = None if halted else find_uneven(case)
    if uneven is not None and passes_gate(uneven.hot.share):
        return _found_uneven(case, uneven)
    largest = find_largest(case) if case.said_slow else None
    if largest is not None and passes_gate(largest.share):
        return _found(case, largest, is_grown=False)
    return None


def find_area(case: Case, found: HotFound) -> Inside | None:
    """The area that the function's time is spent in; None where it is the function's own."""
    function = found.candidate.function
    return find_inside(case, function) if function is not None else None


def judge_area(case: Case, rule: Rule, area: Function, doing: str) -> Finding | Rejection:
    """The finding of a rule that is about one area, `doing` in words; else what rejects it."""
    found = find_hot(case)
    inside = find_area(case, found) if found is not None else None
    if found is None or inside is None or inside.area != area:
        return _reject_area(case, rule, area, doing)
    is_one = inside.caller is not None and inside.caller_ratio >= CALLER_RATIO_MIN
    caller = inside.caller if is_one else None
    who = f" called for by {caller.words}" if caller is not None else ""
    part = Evidence(
        f"part of the CPU time of {found.candidate.name} spent {doing}",
        inside.ratio,
        None,
        "ratio",
        inside.source,
    )
    finding = make_finding(
        case,
        rule,
        title=f"{doing.capitalize()}{who} {found.verb}",
        share=found.share,
        confidence=found.confidence,
        culprit=Culprit("function", caller.words) if caller is not None else Culprit("none"),
        evidence=(*found.evidence, part),
    )
    return reject_for_collecting(case, finding) or as_meant(finding, found)


def as_meant(finding: Finding, found: HotFound) -> Finding:
    """The finding as a warning that says so, where its requests may be meant to be dear."""
    if not found.may_be_meant:
        return finding
    return structs.replace(finding, severity="warn", fix=f"{finding.fix}; {MEANT}")


def _reject_area(case: Case, rule: Rule, area: Function, doing: str) -> Rejection:
    """It takes little, or no more of the slow requests than of the others."""
    share = area_share(case, area)
    if share.value <= SHARE_GATE:
        metric = f"share of time {doing}, or behind it"
        return Rejection(
            rule.id, metric, share.value, SHARE_GATE, "ratio", SOURCE, "that is little"
        )
    metric = "functions that take more in slow requests, and most of it so"
    why = f"{to_percent(share.value)} of the time goes there, in slow requests as in others"
    return Rejection(rule.id, metric, 0, 1, "", SOURCE, why)


def _found(case: Case, hot: Hot, *, is_grown: bool) -> HotFound:
    source = source_of(hot.candidate)
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
    return HotFound(
        hot.candidate,
        "takes the CPU time in slow requests" if is_grown else "takes most of the CPU time",
        hot.share,
        (0.85 if is_grown else 0.7) - (0.0 if hot.candidate.kind == "function" else 0.15),
        tuple(evidence),
    )


def _found_long(case: Case, long: LongRequests) -> HotFound:
    name = long.candidate.name
    return HotFound(
        long.candidate,
        "takes the CPU time of the requests that take long",
        long.share,
        0.85,
        (
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


def _found_uneven(case: Case, uneven: Uneven) -> HotFound:
    candidate = uneven.hot.candidate
    source = source_of(candidate)
    return HotFound(
        candidate,
        "takes the CPU time, and a few requests take most of it",
        uneven.hot.share,
        0.75 if candidate.kind == "function" else 0.6,
        (
            Evidence(
                "CPU of one of the costly requests, at the least",
                uneven.costly_ns / 1e6,
                None,
                "ms",
                "schedstat against answers, spread over the blocks of the window",
            ),
            Evidence("CPU of a mean request", uneven.mean_ns / 1e6, None, "ms", "schedstat"),
            Evidence(
                f"CPU time of {candidate.name} in the window",
                float(candidate.block_ns.sum()) / 1e9,
                None,
                "s",
                source,
            ),
            *_around(case, candidate),
        ),
        may_be_meant=True,
    )


def source_of(candidate: Candidate) -> str:
    """What told its CPU time."""
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
