"""Requests that take several times the usual time, and whose CPU time is spent while they last.

Of connections with one question each the kernel tells when it was asked and answered. A function
that makes a few of the requests costly is met on a CPU while one of those is in flight, and hardly
ever else; one that all of them need is met at any time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perfkit.analysis._hot import Candidate, share_with, spend
from perfkit.analysis.areas import to_area
from perfkit.analysis.case import Case
from perfkit.analysis.columns import Integers, Masks, sum_by
from perfkit.analysis.intervals import Share
from perfkit.analysis.short_connections import ShortConnections, read_short_connections
from perfkit.analysis.stacks import FRAMES, Function, read_stacks

LONG_RATIO = 2.0
REQUESTS_MIN = 100
# Of a connection each, or what the others took is not known.
KNOWN_RATIO_MIN = 0.8
# So few are chance, so many are the usual ones; and they must hold a part of the time in flight.
LONG_COUNT_MIN, LONG_COUNT_MAX = 0.03, 0.4
LONG_TIME_MIN = 0.35
# Where one of them is nearly always in flight, what runs meanwhile says nothing.
COVERED_MAX = 0.75
# Met so often, nearly always while one is in flight, and so many times as often as else.
MET_MIN = 8
INSIDE_MIN = 0.8
RATE_RATIO_MIN = 4.0
# The ages of data tick, every 1 to 10 ms; and notices are read so late, HEAR_INTERVAL_NS.
TICK_NS = 8_000_000
LATE_NS = 40_000_000
# The deepest of those that have nearly as much of that as any.
DEEPEST_RATIO = 0.5


@dataclass(frozen=True)
class LongRequests:
    """The requests that take long, and the function that they have and the others lack.

    `share` is the function's, of the ledger to judge by. `ratio` is how many of the requests they
    are, `long_ns` what one of them takes on average and `usual_ns` the median of all;
    `inside_ratio` is the part of the function's CPU time that was met while one was in flight,
    which is `covered_ratio` of the window.
    """

    candidate: Candidate
    share: Share
    ratio: float
    long_ns: float
    usual_ns: float
    inside_ratio: float
    covered_ratio: float


@dataclass(frozen=True)
class _Met:
    """The CPU time for which a function was met, and how often; and of it while one was long."""

    count: int
    ns: float
    inside_ns: float
    depth: int

    def clear_ns(self, covered_ratio: float) -> float:
        """What it has in long requests beyond so many times what it has at other times; 0: not."""
        outside_ns = self.ns - self.inside_ns
        usual_ns = outside_ns * covered_ratio / (1.0 - covered_ratio)
        if self.count < MET_MIN or self.inside_ns < INSIDE_MIN * self.ns:
            return 0.0
        return max(0.0, self.inside_ns - RATE_RATIO_MIN * usual_ns)


def find_long(case: Case) -> LongRequests | None:
    """None where the requests' times are not known one by one, or nothing stands out."""
    requests = read_short_connections(case.aligned, "accepted")
    took_ns = requests.answered_ns - requests.asked_ns
    if len(took_ns) < max(REQUESTS_MIN, KNOWN_RATIO_MIN * case.requests.answer_count):
        return None
    usual_ns = float(np.median(took_ns))
    is_long = took_ns > max(LONG_RATIO * usual_ns, usual_ns + 2 * TICK_NS)
    ratio = float(is_long.mean())
    held = float(took_ns[is_long].sum()) / max(float(took_ns.sum()), 1.0)
    if not LONG_COUNT_MIN <= ratio <= LONG_COUNT_MAX or held < LONG_TIME_MIN:
        return None
    spans = _Spans(requests, is_long)
    covered_ratio = spans.covered_ns(case) / case.window_ns
    found = None if covered_ratio > COVERED_MAX else _choose(_meet(case, spans), covered_ratio)
    spent = spend(case)
    candidate = next((one for one in spent.named if found and one.function == found[0]), None)
    if found is None or candidate is None:
        return None
    return LongRequests(
        candidate=candidate,
        share=share_with(case, spent, candidate.block_ns),
        ratio=ratio,
        long_ns=float(took_ns[is_long].mean()),
        usual_ns=usual_ns,
        inside_ratio=found[1].inside_ns / found[1].ns,
        covered_ratio=covered_ratio,
    )


def _choose(met: dict[Function, _Met], covered_ratio: float) -> tuple[Function, _Met] | None:
    clear = {function: one.clear_ns(covered_ratio) for function, one in met.items()}
    least = max(DEEPEST_RATIO * max(clear.values(), default=0.0), 1.0)
    leading = [(function, one) for function, one in met.items() if clear[function] >= least]
    return max(leading, key=lambda pair: (pair[1].depth, pair[1].ns, pair[0]), default=None)


class _Spans:
    """When at least one long request was in flight: spans that do not overlap, in time."""

    def __init__(self, requests: ShortConnections, is_long: Masks) -> None:
        begin = requests.asked_ns[is_long] - LATE_NS - TICK_NS
        end = requests.answered_ns[is_long] + TICK_NS
        order = np.argsort(begin, kind="stable")
        begin, last = begin[order], np.maximum.accumulate(end[order])
        opens = np.concatenate([[True], begin[1:] > last[:-1]])
        closes = np.concatenate([opens[1:], [True]])
        self._begin, self._end = begin[opens], last[closes]

    def covered_ns(self, case: Case) -> float:
        """How much of the window they cover."""
        axis = case.aligned.axis
        begin, end = (np.clip(one, axis.start_ns, axis.end_ns) for one in (self._begin, self._end))
        return float((end - begin).sum())

    def contain(self, instants: Integers) -> Masks:
        """Which instants lie in one of them."""
        at = np.searchsorted(self._begin, instants, side="right") - 1
        inside: Masks = (at >= 0) & (instants <= self._end[np.maximum(at, 0)])
        return inside


def _meet(case: Case, spans: _Spans) -> dict[Function, _Met]:
    """Each function of the serving threads' Python stacks, and when it was met.

    A stretch begins with the look before; the CPU time that it stands for ends with its last one.
    """
    stacks = read_stacks(case.aligned, FRAMES)
    threads = zip(stacks.pid.tolist(), stacks.tid.tolist(), strict=True)
    serving = np.array([one in case.serving for one in threads], dtype=bool)
    inside = spans.contain(stacks.begin + np.maximum(stacks.run_ns, 0))
    found: dict[Function, _Met] = {}
    ran = serving & (stacks.run_ns > 0)
    stack, ns = stacks.stack[ran], stacks.run_ns[ran].astype(np.float64)
    parts = (np.ones(len(ns)), ns, ns * inside[ran])
    sums = zip(*(sum_by(stack, one, len(stacks.frames)).tolist() for one in parts), strict=True)
    for frames, (count, whole_ns, inside_ns) in zip(stacks.frames, sums, strict=True):
        told = map(to_area, reversed(frames))
        depths = {one: depth for depth, one in enumerate(told) if count}
        for function, depth in depths.items():
            one = found.get(function, _Met(0, 0.0, 0.0, 0))
            found[function] = _Met(
                one.count + int(count),
                one.ns + whole_ns,
                one.inside_ns + inside_ns,
                max(one.depth, depth),
            )
    return found
