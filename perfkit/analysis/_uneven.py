"""Requests of unequal cost: what makes a few of them costly, told by the spread over the window.

Where each request costs the same, CPU time follows the answers from block to block.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perfkit.analysis._hot import (
    COST_FLOOR_NS,
    DEEPEST_RATIO,
    Candidate,
    Hot,
    Spent,
    answered_blocks,
    share_with,
    spend,
    tells_blocks,
)
from perfkit.analysis.case import Case
from perfkit.analysis.columns import Reals
from perfkit.analysis.compare import SHARE_GATE

# A few requests cost most: measured 1.5 to 3.2 where one of four handlers costs 24 ms more, at most
# 0.7 where all are alike (three servers, docs/benchmarks.md), 1.3 where work piles up.
UNEVEN_RATIO_MIN = 1.4
UNEVEN_NS_MIN = 2e6
UNEVEN_ANSWERS_MIN = 100.0
# A machine that is slower for moments makes all code dearer: the function must be so beyond the
# rest, and there must be a rest to tell. In blocks of dear requests against the others it was 1.08
# and 1.11 times as dear where only the machine had changed, 1.44 and more where requests had.
UNEVEN_AGAINST_REST_MIN = 1.25
REST_RATIO_MIN = 0.1
# Or less uneven, where what makes them so stands out: in units of the mean, it varies with all CPU
# time by so much more than the rest does. Measured 1.7 to 2.3 in the runs of an uneven service that
# vary by 1.1 to 1.4 times the mean, below 0.1 where all are alike and vary as much.
UNEVEN_CLEAR_RATIO_MIN = 1.0
STANDS_OUT_MIN = 1.0
STANDS_OUT_REST_MIN = 0.25


@dataclass(frozen=True)
class Uneven:
    """A few requests cost most: what one of them costs, and a mean one, and who is hot in them."""

    hot: Hot
    costly_ns: float
    mean_ns: float


def find_uneven(case: Case) -> Uneven | None:
    """What makes a few requests costly; None where all cost about the same, or that is not known.

    Where each request costs the same, CPU time per block follows the answers; where a part p costs
    x and the others next to nothing, the variance of what is left over is (1 - p) x times the mean
    (a compound Poisson sum, given the count). Both a block and two of them must say so, since
    answers are counted with an error of a few; and CPU time itself must vary as much, since where
    it is at its limit only the answers do.
    """
    spent = spend(case)
    axis = case.aligned.axis
    answers = answered_blocks(case, axis.sum_blocks(case.requests.arrivals))
    if not tells_blocks(case) or answers.sum() < UNEVEN_ANSWERS_MIN or not spent.named:
        return None
    mean_ns = float(spent.whole_ns.sum() / answers.sum())
    excess_ns = min(_excess_ns(spent.whole_ns, answers, width) for width in (1, 2))
    if excess_ns < max(UNEVEN_CLEAR_RATIO_MIN * mean_ns, UNEVEN_NS_MIN):
        return None
    rest = spent.whole_ns - mean_ns * answers
    # What takes less cannot pass as a cause: with few samples such a one leads by chance.
    named = [one for one in spent.named if spent.part_of(one) > SHARE_GATE]
    together = [float((_beyond(one.block_ns, answers) * rest).sum()) for one in named]
    least = max(DEEPEST_RATIO * max(together, default=0.0), 1.0)
    leading = [one for one, much in zip(named, together, strict=True) if much >= least]
    best = max(leading, key=lambda one: (one.depth, one.own_ns, one.name), default=None)
    if best is None or not _is_dearer_than_rest(best, spent.attributed_ns, answers, rest):
        return None
    if excess_ns < UNEVEN_RATIO_MIN * mean_ns and not _stands_out(best, spent, answers):
        return None
    cost_ns = float(best.block_ns.sum()) / max(float(answers.sum()), 1.0)
    hot = Hot(best, cost_ns, cost_ns, 1.0, 1.0, share_with(case, spent, best.block_ns))
    return Uneven(hot, mean_ns + excess_ns, mean_ns)


def _beyond(block_ns: Reals, answers: Reals) -> Reals:
    """CPU time per block less what as many answers cost on average."""
    return np.asarray(block_ns - answers * (block_ns.sum() / max(float(answers.sum()), 1.0)))


def _is_dearer_than_rest(
    one: Candidate, attributed_ns: Reals, answers: Reals, residual_ns: Reals
) -> bool:
    """Whether dear blocks are so by this function more than by everything else.

    Of a thread that cannot be told: what it computes for whom is not known.
    """
    rest_ns = np.maximum(attributed_ns - one.block_ns, 0.0)
    if one.function is None or rest_ns.sum() < REST_RATIO_MIN * attributed_ns.sum():
        return one.function is None
    dear = residual_ns > np.median(residual_ns)

    def growth(ns: Reals) -> float:
        costs = [
            float(ns[part].sum()) / max(float(answers[part].sum()), 1.0) + COST_FLOOR_NS
            for part in (dear, ~dear)
        ]
        return costs[0] / costs[1]

    return growth(one.block_ns) >= UNEVEN_AGAINST_REST_MIN * growth(rest_ns)


def _stands_out(one: Candidate, spent: Spent, answers: Reals) -> bool:
    """Whether this function varies with all CPU time much more than the rest does."""
    rest_ns = np.maximum(spent.attributed_ns - one.block_ns, 0.0)
    if rest_ns.sum() < STANDS_OUT_REST_MIN * spent.attributed_ns.sum():
        return False
    return all(
        _varies_with(one.block_ns, spent.whole_ns, answers, width)
        >= STANDS_OUT_MIN + _varies_with(rest_ns, spent.whole_ns, answers, width)
        for width in (1, 2)
    )


def _varies_with(part_ns: Reals, whole_ns: Reals, answers: Reals, width: int) -> float:
    """How much a part of the CPU time varies with all of it, beyond what answers explain.

    Covariance per so many blocks, over both means and per answer. For what every request has alike
    it is 0; for what a part p of them has, at x, it is (1 - p) x over the mean cost of a request;
    where the machine is slower for moments it is the same for every part.
    """
    part, whole, came = (_fold(one, width) for one in (part_ns, whole_ns, answers))
    means = float(part.mean()) * float(whole.mean())
    varied = (_beyond(part, came) * _beyond(whole, came)).mean()
    return float(varied) * float(came.mean()) / means if means > 0 else 0.0


def _fold(values: Reals, width: int) -> Reals:
    """Sums of so many blocks each; the last block is seldom a whole one and left out."""
    count = (len(values) - 1) // width * width
    return np.asarray(values[:count].reshape(-1, width).sum(axis=1))


def _excess_ns(block_ns: Reals, answers: Reals, width: int) -> float:
    """Variance over mean of CPU time per so many blocks, beyond what answers in them explain."""
    ns, came = _fold(block_ns, width), _fold(answers, width)
    varied = min(float(_beyond(ns, came).var()), float(ns.var()))
    return varied / max(float(ns.mean()), 1.0)
