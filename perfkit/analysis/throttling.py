"""When each cgroup's CPU quota had stopped it, from cpu.stat read at the thread tick.

The kernel books throttled time when it lets the tasks run again, summed over CPUs, so a growth by
`delta` seen at `t` means: throttled in `[t - min(delta, period), t]` (kernel/sched/fair.c,
unthrottle_cfs_rq), or up to one tick earlier, since it may have been booked right after the tick
before. Sums are never subtracted from one another; intervals are overlapped instead, and no thread
is charged more of one growth than a thread can have been stopped for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perfkit.analysis.align import Aligned
from perfkit.analysis.columns import Frame, Integers, Reals, sum_by

DEFAULT_PERIOD_US = 100_000
DEFAULT_TICK_NS = 10_000_000
PERIOD_LIMIT_US = 1_000_000_000


@dataclass(frozen=True)
class Quota:
    """One cgroup with a quota, and how often it was stopped in the window."""

    path: str
    quota_us: int
    period_us: int
    is_own: bool
    period_count: int
    throttled_count: int
    throttled_ns: int

    @property
    def cpu_limit(self) -> float:
        """CPUs that the quota allows on average."""
        return self.quota_us / max(self.period_us, 1)

    @property
    def throttled_ratio(self) -> float:
        """The share of its periods in which it was stopped."""
        return self.throttled_count / max(self.period_count, 1)


@dataclass(frozen=True)
class Spans:
    """When one cgroup was throttled, growth by growth; `limit` is the most per thread."""

    path: str
    begin: Integers
    end: Integers
    limit: Integers


@dataclass(frozen=True)
class Throttling:
    """The throttled spans of the service's cgroups and their ancestors."""

    spans: tuple[Spans, ...]
    quotas: tuple[Quota, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """The cgroups that were throttled at all."""
        return tuple(spans.path for spans in self.spans)

    def overlap(
        self, begin: Integers, end: Integers, index: Integers, piece_begin: Integers, piece: Reals
    ) -> tuple[Reals, Integers]:
        """How much of each piece of some waits was throttled, and by which cgroup most.

        Piece i lies in the wait `index[i]`, from `piece_begin[i]` on for `piece[i]` ns.
        """
        if not self.spans or not len(index):
            return np.zeros(len(index)), np.zeros(len(index), dtype=np.int64)
        each = np.array([_charge(spans, begin, end) for spans in self.spans])
        worst = np.argmax(each[:, :, 0], axis=0)
        scale = each[worst, np.arange(len(begin)), 1]
        covered = np.zeros(len(index))
        for number, spans in enumerate(self.spans):
            mine = worst[index] == number
            union = _merge(np.column_stack([spans.begin, spans.end]))
            first = piece_begin[mine].astype(np.float64)
            covered[mine] = _covered(union, first, first + piece[mine])
        throttled = np.minimum(covered * scale[index], piece)
        return throttled, worst[index]


def read_throttling(aligned: Aligned) -> Throttling:
    """Dates back the growth of throttled time in `cgroup_ticks`."""
    described = _latest_groups(aligned)
    ticks = aligned.table("cgroup_ticks").sorted_by("cgroup_index", "t_ns")
    looks = np.sort(aligned.table("sampler_ticks").integers("t_ns"))
    groups = ticks.integers("cgroup_index")
    spans, quotas = [], []
    for group in sorted(set(groups.tolist())):
        rows = ticks.where(groups == group)
        path, quota_us, period_us, is_own = described.get(group, ("", -1, 100_000, False))
        period_us = min(period_us, PERIOD_LIMIT_US) if period_us > 0 else DEFAULT_PERIOD_US
        found = _read_spans(rows, path, period_us * 1000, looks)
        if len(found.end):
            spans.append(found)
        names = ("period_count", "throttled_count", "throttled_ns")
        grown = (_grown(rows.integers(name)) for name in names)
        quotas.append(Quota(path, quota_us, period_us, is_own, *grown))
    return Throttling(tuple(spans), tuple(quotas))


def _read_spans(rows: Frame, path: str, period_ns: int, looks: Integers) -> Spans:
    """One span per growth of a group's throttled time; `looks` are the sampler's ticks."""
    time, throttled = rows.integers("t_ns"), rows.integers("throttled_ns")
    delta = np.diff(throttled)
    grown = delta > 0
    end, delta = time[1:][grown], delta[grown]
    before = end - DEFAULT_TICK_NS
    if len(looks):
        place = np.searchsorted(looks, end - DEFAULT_TICK_NS // 2, side="left") - 1
        before = np.where(place >= 0, looks[np.maximum(place, 0)], before)
    latest = np.clip(before, end - period_ns, end)
    limit = np.minimum(delta, period_ns + end - latest)
    return Spans(path, latest - np.minimum(delta, period_ns), end, limit)


def _charge(spans: Spans, begin: Integers, end: Integers) -> Reals:
    """For each wait: its throttled ns (each growth up to its limit), and that over the overlap."""
    first = np.searchsorted(spans.end, begin, side="right")
    earliest = np.minimum.accumulate(spans.begin[::-1])[::-1]
    last = np.searchsorted(earliest, end, side="left")
    counts = np.maximum(last - first, 0)
    wait = np.repeat(np.arange(len(begin)), counts)
    span = np.arange(len(wait)) - np.repeat(np.cumsum(counts) - counts, counts) + first[wait]
    overlap = np.minimum(end[wait], spans.end[span]) - np.maximum(begin[wait], spans.begin[span])
    overlap = np.maximum(overlap, 0)
    charged = sum_by(wait, np.minimum(overlap, spans.limit[span]).astype(float), len(begin))
    union = _merge(np.column_stack([spans.begin, spans.end]))
    covered = _covered(union, begin.astype(np.float64), end.astype(np.float64))
    return np.column_stack([charged, np.minimum(1.0, charged / np.maximum(covered, 1.0))])


def _latest_groups(aligned: Aligned) -> dict[int, tuple[str, int, int, bool]]:
    groups = aligned.table("cgroups").sorted_by("t_ns")
    names = ("cgroup_index", "quota_us", "period_us", "is_own")
    columns = [groups.integers(name).tolist() for name in names]
    return {
        index: (path, quota_us, period_us, own == 1)
        for path, index, quota_us, period_us, own in zip(groups.text("path"), *columns, strict=True)
    }


def _grown(counter: Integers) -> int:
    return int(max(0, counter[-1] - counter[0])) if len(counter) else 0


def _merge(spans: Integers) -> Integers:
    """Joins overlapping spans into disjoint ones, ascending."""
    order = spans[np.argsort(spans[:, 0], kind="stable")]
    furthest = np.maximum.accumulate(order[:, 1])
    fresh = np.concatenate([[True], order[1:, 0] > furthest[:-1]])
    first = np.flatnonzero(fresh)
    last = np.concatenate([first[1:], [len(order)]]) - 1
    return np.column_stack([order[first, 0], furthest[last]])


def _covered(spans: Integers, begin: Reals, end: Reals) -> Reals:
    """How much of each [begin, end) the disjoint spans cover."""
    edges = spans.reshape(-1).astype(np.float64)
    lengths = np.diff(spans, axis=1).reshape(-1).astype(np.float64)
    total = np.concatenate([[0.0], np.repeat(np.cumsum(lengths), 2)])[: len(edges)]
    covered: Reals = np.interp(end, edges, total) - np.interp(begin, edges, total)
    return covered
