"""Writing logs takes the time of requests."""

from __future__ import annotations

from collections.abc import Iterator

from perfkit.analysis.areas import LOGGING
from perfkit.analysis.case import Case
from perfkit.analysis.rules._hot_finding import judge_area
from perfkit.analysis.rules._rule import Rule
from perfkit.analysis.states import State
from perfkit.findings import Finding, Rejection


def find(case: Case) -> Iterator[Finding | Rejection]:
    """Time: what is hot in slow requests. Mechanism: it is in a library that writes logs."""
    yield judge_area(case, RULE, LOGGING, "writing logs")


RULE = Rule(
    id="logging_overhead",
    family="python",
    parent="hot_function",
    cell=("cpu", "utilisation"),
    state=State.ON_CPU,
    needs=("thread_runs.run_ns",),
    sources=("threads",),
    absent="threads of the service",
    excludes=("fsync_in_path", "hot_function"),
    summary="Writing logs takes the time of requests.",
    meaning=(
        "A line of a log costs 5 to 20 microseconds in Python: a record is made, formatted and\n"
        "written, each by a call to the kernel. A request that writes a thousand of them, since a\n"
        "level was left at debug or something goes wrong in a loop, takes ten milliseconds more."
    ),
    detection=(
        "Time: as for hot_function: CPU of the serving threads that slow requests have and quick\n"
        "ones lack, or, with --slow, the most of all.\n"
        "Mechanism: 60 % of it or more lies below the entry of a library that writes logs\n"
        "(Python's logging, loguru, spdlog, glog).\n"
        "Not this: lines that are flushed to the disk one by one are fsync_in_path. Threads that\n"
        "wait for the one that writes are lock_contention, with logging as what the holder does."
    ),
    fix=(
        "raise the level, or log once a request what is now logged in a loop; write from a queue\n"
        "on a thread of its own (logging.handlers.QueueHandler)"
    ),
    verify="the part of the CPU time spent writing logs is a few per cent",
    find=find,
)
