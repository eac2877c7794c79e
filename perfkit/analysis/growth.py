"""What requests take longer for, held against a reference: the fast part of the window, or a run.

One computation for both: booked time per answer by (state, culprit), in some spans of time and in
others. A span is as many blocks as hold enough answers to say how long a request takes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from perfkit.analysis.align import BLOCK_NS, SLOTS_PER_BLOCK
from perfkit.analysis.case import Case
from perfkit.analysis.columns import Masks, Reals, sum_by
from perfkit.analysis.intervals import NORMAL_90
from perfkit.analysis.states import State

# A span has so many answers on average, and so many polls that found a request in flight.
ANSWERS_PER_SPAN = 20.0
SEEN_PER_SPAN = 15.0
SPAN_BLOCKS_MAX = 8
SPANS_MIN = 8
SLOW_SPANS_MIN = 2
FAST_PART_MIN = 0.25
# Two parts explain this much of the spread of log response times in noise alone (normal, two
# halves: 2/pi), and for few spans as much more; that was reached by 1 in 100 of 2,000 drawings.
NOISE_EXPLAINED = 2 / np.pi
NOISE_FEW_SPANS = 0.85
SLOWER_MIN = 1.5
# Asked more, not slower: the load differs by this while a request costs no more than that.
LOAD_RATIO = 2.0
SAME_COST_RATIO = 1.25
# What is said to have grown: beyond its interval, and of weight.
GROWN_FLOOR_NS = 500_000.0
GROWN_PART_MIN = 0.1
GROWN_LIMIT = 5
RESAMPLE_COUNT = 200
_SEED = 1

Key = tuple[State, str]


@dataclass(frozen=True)
class Spans:
    """Booked time per (key, span), and per span the answers, the CPU time and the length.

    `gap_ns` is how far apart a request in flight is met; 0 where its times are exact.
    """

    keys: tuple[Key, ...]
    ns: Reals
    answers: Reals
    cpu_ns: Reals
    length_ns: float
    gap_ns: float = 0.0

    def take(self, chosen: Masks) -> Spans:
        """Some of the spans."""
        return Spans(
            self.keys,
            self.ns[:, chosen],
            self.answers[chosen],
            self.cpu_ns[chosen],
            self.length_ns,
            self.gap_ns,
        )

    def per_answer(self, ns: Reals) -> float:
        """Some of the time, per answer."""
        return float(ns.sum()) / max(float(self.answers.sum()), 1.0)

    @property
    def latency_ns(self) -> float:
        """How long a request takes, on average."""
        return self.per_answer(self.ns)

    @property
    def rate(self) -> float:
        """Answers per second."""
        return float(self.answers.sum()) / max(len(self.answers) * self.length_ns / 1e9, 1e-9)


@dataclass(frozen=True)
class Grown:
    """The time per answer that went to one key, before and now; the interval is of the growth."""

    key: Key
    reference_ns: float
    observed_ns: float
    low_ns: float
    high_ns: float

    @property
    def more_ns(self) -> float:
        """By how much it grew."""
        return self.observed_ns - self.reference_ns


def read_spans(case: Case) -> Spans | None:
    """Cuts the window into spans; None where requests are not counted, or are too few."""
    axis, ledger = case.aligned.axis, case.ledger
    if not case.counts_requests or case.requests.answer_count < 1:
        return None
    answers = axis.sum_blocks(case.requests.arrivals)
    per_block = float(answers.mean())
    seen = case.ledger.total_ns() / BLOCK_NS / axis.block_count * SLOTS_PER_BLOCK
    wanted = max(ANSWERS_PER_SPAN / max(per_block, 0.01), SEEN_PER_SPAN / max(seen, 0.01))
    size = int(min(max(np.ceil(wanted), 1), SPAN_BLOCKS_MAX))
    count = axis.block_count // size
    if count < 1:
        return None
    keys = tuple(sorted({(label.state, label.culprit) for label in ledger.labels}))
    number = {key: index for index, key in enumerate(keys)}
    of_label = np.array([number[one.state, one.culprit] for one in ledger.labels], dtype=np.int64)
    span = ledger.slot // (SLOTS_PER_BLOCK * size)
    kept = span < count
    place = of_label[ledger.label[kept]] * count + span[kept]
    ns = sum_by(place, ledger.ns[kept], len(keys) * count).reshape(len(keys), count)
    threads = case.threads
    running = threads.rows_where(State.ON_CPU)
    cpu = sum_by(threads.slot[running] // (SLOTS_PER_BLOCK * size), threads.ns[running], count + 1)[
        :count
    ]
    summed = answers[: count * size].reshape(count, size).sum(axis=1)
    length_ns = float(size * BLOCK_NS)
    return Spans(keys, ns, np.asarray(summed), cpu, length_ns, case.requests.arrival_gap_ns)


def split_fast(spans: Spans) -> tuple[Spans, Spans] | None:
    """The fast and the slow spans; None where response times are of one kind.

    The order of the spans plays no part, so a fault that comes and goes is seen too.
    """
    busy = spans.ns.sum(axis=0)
    known = (busy > 0) | (spans.answers > 0)
    spans, busy = spans.take(known), busy[known]
    count = len(busy)
    if count < SPANS_MIN:
        return None
    took = np.log(np.maximum(busy / np.maximum(spans.answers, 0.5), GROWN_FLOOR_NS))
    order = np.sort(took)
    spread = float(((took - took.mean()) ** 2).sum())
    cuts = range(max(2, round(FAST_PART_MIN * count)), count - SLOW_SPANS_MIN + 1)
    parts = [(order[:at], order[at:]) for at in cuts]
    explained = [
        len(low) * len(high) / count * float(high.mean() - low.mean()) ** 2 for low, high in parts
    ]
    best = int(np.argmax(explained))
    low, high = parts[best]
    if explained[best] < (NOISE_EXPLAINED + NOISE_FEW_SPANS / np.sqrt(count)) * spread:
        return None
    if spread <= 0 or high.mean() - low.mean() < np.log(SLOWER_MIN):
        return None
    is_slow = took > low[-1]
    return spans.take(~is_slow), spans.take(is_slow)


def merge_strangers(spans: Spans, other: Spans) -> tuple[Spans, Spans]:
    """Both with one list of keys; a state whose culprits never are the same has none.

    Ports and thread numbers differ from run to run, while what is waited for does not.
    """
    common = set(spans.keys) & set(other.keys)
    known = {state for state, _ in common}
    return _rename(spans, other, known), _rename(other, spans, known)


def _rename(spans: Spans, other: Spans, known: set[State]) -> Spans:
    def named(key: Key) -> Key:
        return key if key[0] in known else (key[0], "")

    keys = tuple(sorted({named(key) for key in (*spans.keys, *other.keys)}))
    ns = np.zeros((len(keys), len(spans.answers)))
    for key, row in zip(spans.keys, spans.ns, strict=True):
        ns[keys.index(named(key))] += row
    return replace(spans, keys=keys, ns=ns)


def asked_more(slow: Spans, fast: Spans) -> bool:
    """Whether there is more load at the same cost for each request: asked more, not slower."""
    more = slow.rate >= LOAD_RATIO * fast.rate
    cost, before = slow.per_answer(slow.cpu_ns), fast.per_answer(fast.cpu_ns)
    return more and cost <= SAME_COST_RATIO * before


def find_growth(slow: Spans, fast: Spans) -> tuple[Grown, ...]:
    """What the slow spans have beyond the fast ones and beyond noise, most first."""
    lows, highs = _intervals(slow, fast)
    excess_ns = slow.latency_ns - fast.latency_ns
    floor_ns = max(GROWN_FLOOR_NS, GROWN_PART_MIN * excess_ns)
    found = []
    for index, key in enumerate(slow.keys):
        before, now = fast.per_answer(fast.ns[index]), slow.per_answer(slow.ns[index])
        if lows[index] > 0 and now - before >= floor_ns:
            found.append(Grown(key, before, now, float(lows[index]), float(highs[index])))
    return tuple(sorted(found, key=lambda one: (-one.more_ns, one.key))[:GROWN_LIMIT])


def _intervals(slow: Spans, fast: Spans) -> tuple[Reals, Reals]:
    """90 % intervals of the growth of each key: by drawing spans of both parts again.

    A few spans hardly differ by chance, so never narrower than how often requests were met allows.
    """
    drawn = [_draw(part) for part in (slow, fast)]
    low, high = np.percentile(drawn[0] - drawn[1], [5.0, 95.0], axis=1)
    grown = np.array(
        [
            slow.per_answer(now) - fast.per_answer(then)
            for now, then in zip(slow.ns, fast.ns, strict=True)
        ]
    )
    reach = NORMAL_90 * np.sqrt(_met_variance(slow) + _met_variance(fast))
    return np.minimum(low, grown - reach), np.maximum(high, grown + reach)


def _met_variance(spans: Spans) -> Reals:
    """Of the time per answer of each key: a request in flight is met once a gap (Poisson)."""
    answers = max(float(spans.answers.sum()), 1.0)
    return np.asarray(spans.ns.sum(axis=1) * spans.gap_ns / answers**2)


def _draw(spans: Spans) -> Reals:
    count = len(spans.answers)
    places = np.random.default_rng(_SEED).integers(0, count, (RESAMPLE_COUNT, count))
    answers = np.maximum(spans.answers[places].sum(axis=1), 1.0)
    return np.asarray(spans.ns[:, places].sum(axis=2) / answers)
