"""When each cgroup's CPU quota had stopped it, from cpu.stat read at the thread tick.

The kernel books throttled time when it lets the tasks run again, summed over CPUs, so a growth by
`delta` seen at `t` means: throttled in `[t - min(delta, period), t]` (kernel/sched/fair.c,
unthrottle_cfs_rq). Sums are never subtracted from one another; intervals are overlapped instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perfkit.analysis.align import Aligned
from perfkit.analysis.columns import Integers, Reals

DEFAULT_PERIOD_NS = 100_000_000


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
class Throttling:
    """The throttled spans of the service's cgroups and their ancestors.

    `paths[i]` belongs to `spans[i]`: disjoint, ascending rows of (begin_ns, end_ns).
    """

    paths: tuple[str, ...]
    spans: tuple[Integers, ...]
    quotas: tuple[Quota, ...]

    def overlap(self, begin: Reals, end: Reals) -> tuple[Reals, Integers]:
        """For each interval: the ns in which any cgroup was throttled, and which one most."""
        if not self.paths or not len(begin):
            return np.zeros(len(begin)), np.zeros(len(begin), dtype=np.int64)
        each = np.array([_covered(spans, begin, end) for spans in self.spans])
        union = _merge(np.concatenate(self.spans))
        return _covered(union, begin, end), np.argmax(each, axis=0)


def read_throttling(aligned: Aligned) -> Throttling:
    """Dates back the growth of throttled time in `cgroup_ticks`."""
    described = _latest_groups(aligned)
    ticks = aligned.table("cgroup_ticks").sorted_by("cgroup_index", "t_ns")
    index, time = ticks.integers("cgroup_index"), ticks.integers("t_ns")
    throttled = ticks.integers("throttled_ns")
    paths, spans, quotas = [], [], []
    for group in sorted(set(index.tolist())):
        rows = index == group
        path, quota_us, period_us, is_own = described.get(group, ("", -1, 100_000, False))
        period_ns = period_us * 1000 if period_us > 0 else DEFAULT_PERIOD_NS
        delta = np.diff(throttled[rows])
        grown = delta > 0
        end = time[rows][1:][grown]
        if len(end):
            paths.append(path)
            spans.append(_merge(np.column_stack([end - np.minimum(delta[grown], period_ns), end])))
        quotas.append(
            Quota(
                path,
                quota_us,
                period_us,
                is_own,
                _grown(ticks.integers("period_count")[rows]),
                _grown(ticks.integers("throttled_count")[rows]),
                _grown(throttled[rows]),
            )
        )
    return Throttling(tuple(paths), tuple(spans), tuple(quotas))


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
