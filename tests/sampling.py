"""Runs the thread sampler in tests and gives its rows as plain values."""

from __future__ import annotations

import time
from array import array
from collections import defaultdict
from types import SimpleNamespace

from perfkit import _native
from perfkit.collectors import threads

MET_COLUMNS = ("pid", "tid", "start_ticks", "nice", "policy", "first_seen_ns", "name0", "name1")
COLUMNS = {
    schema.name: tuple(column.name for column in schema.columns)
    for schema in (
        threads.THREAD_RUNS,
        threads.POLL_MEMBERS,
        threads.SAMPLER_TICKS,
        threads.CGROUP_TICKS,
    )
}
COLUMNS |= {"thread_runs_open": COLUMNS["thread_runs"], "threads_met": MET_COLUMNS}
Row = SimpleNamespace


def to_rows(taken: dict[str, _native.ThreadRows]) -> dict[str, list[Row]]:
    """Unpacks what a take handed over, with the names of the columns."""
    return {
        name: [
            Row(**dict(zip(COLUMNS[name], values, strict=True)))
            for values in zip(*(array("q", column) for column in columns), strict=True)
        ]
        for name, (columns, _, _) in taken.items()
    }


def sample(pids: list[int], seconds: float, **options: float) -> dict[str, list[Row]]:
    """Samples processes for a while, to the end."""
    sampler = _native.ThreadSampler("/proc", pids, **options)  # type: ignore[arg-type]
    time.sleep(seconds)
    assert sampler.stop()
    return to_rows(sampler.take())


def by_thread(runs: list[Row]) -> dict[int, list[Row]]:
    """The rows of each thread, in order of time."""
    found = defaultdict(list)
    for row in sorted(runs, key=lambda row: int(row.moved_ns)):
        found[row.tid].append(row)
    return dict(found)
