"""Requests wait for their own flushes to the disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from perfkit.analysis.case import Case
from perfkit.analysis.columns import Masks, sum_by
from perfkit.analysis.compare import SHARE_GATE, passes_gate
from perfkit.analysis.intervals import Share
from perfkit.analysis.rules._rule import Rule, make_finding
from perfkit.analysis.states import FLUSH, IDLE_STATES, State
from perfkit.findings import Culprit, Evidence, Finding, Rejection
from perfkit.units import to_percent

# A disk that takes longer than this for a flush is slow for everybody; spinning ones need 10 to 20.
FLUSH_NORMAL_NS = 30e6
# Seen flushing in this part of the blocks, it belongs to the requests and is no daily chore.
BLOCKS_RATIO_MIN = 0.5
# In a block it is seen where it takes this part; less is what counting leaves behind.
BLOCK_SHARE_MIN = 0.02
# Threads that are busy for so much longer than requests are in flight flush after the answer.
OUTSIDE_RATIO_MAX = 0.25


@dataclass(frozen=True)
class _Disk:
    """What the disks did in the window: mean time of a flush (-1: none told), and the flushes."""

    flush_ns: float
    flush_count: int


def find(case: Case) -> Iterator[Finding | Rejection]:
    """Time: serving threads blocked in fsync and its like. Mechanism: the disk's own flush time."""
    rows = _flush_rows(case)
    share = case.share_of(rows)
    blocks = case.ledger.block_ns(rows) > BLOCK_SHARE_MIN * case.whole_blocks
    persistence = float(blocks.mean()) if len(blocks) else 0.0
    disk = _read_disk(case)
    if not passes_gate(share) or persistence < BLOCKS_RATIO_MIN:
        yield _reject(share, persistence)
        return
    outside = _outside_ratio(case)
    if outside > OUTSIDE_RATIO_MAX:
        yield Rejection(
            RULE.id,
            "time that threads are busy beyond the requests in flight, of that in flushes",
            outside,
            OUTSIDE_RATIO_MAX,
            "ratio",
            "states of the threads, TCP_INFO ages of accepted sockets",
            "they may flush after the answer has been sent",
        )
        return
    if disk.flush_ns > FLUSH_NORMAL_NS:
        yield Rejection(
            RULE.id,
            "mean time of a flush of the disks",
            disk.flush_ns / 1e6,
            FLUSH_NORMAL_NS / 1e6,
            "ms",
            "/proc/diskstats, time flushing",
            f"the disk is slow for everybody; {to_percent(share.value)} of the time is in flushes",
        )
        return
    yield _finding(case, rows, share, disk)


def _flush_rows(case: Case) -> Masks:
    flushes = [index for index, label in enumerate(case.ledger.labels) if label.flush]
    return np.isin(case.ledger.label, flushes)


def _outside_ratio(case: Case) -> float:
    """How much longer threads are busy than requests are in flight, of the time in flushes.

    Measured: -0.7 and less where each request flushes, 0.7 to 5 where threads do it after the
    answer. 0 where requests cannot be counted: then their threads are all there is to judge by.
    """
    if not case.counts_requests:
        return 0.0
    timeline = case.timeline
    states, labels = timeline.states(), timeline.labels
    mine = np.array([one in case.serving for one in timeline.threads], dtype=bool)[timeline.thread]
    busy = mine & ~np.isin(states, [int(one) for one in (*IDLE_STATES, State.HANDOFF_WAIT)])
    flushes = mine & np.array([bool(one.flush) for one in labels], dtype=bool)[timeline.label]
    beyond_ns = float(timeline.ns[busy].sum()) - float(case.counted_blocks.sum())
    return max(0.0, beyond_ns) / max(float(timeline.ns[flushes].sum()), 1.0)


def _read_disk(case: Case) -> _Disk:
    """Flushes of all disks between the first and the last reading."""
    table = case.aligned.table("disks").sorted_by("t_ns")
    ends: dict[str, list[tuple[int, int]]] = {}
    columns = (table.integers("flushes").tolist(), table.integers("flush_ns").tolist())
    for device, flushes, flush_ns in zip(table.text("device"), *columns, strict=True):
        if flushes >= 0:
            ends.setdefault(device, []).append((flushes, flush_ns))
    count = sum(max(0, told[-1][0] - told[0][0]) for told in ends.values())
    spent_ns = sum(max(0, told[-1][1] - told[0][1]) for told in ends.values())
    return _Disk(spent_ns / count if count else -1.0, count)


def _reject(share: Share, persistence: float) -> Rejection:
    return Rejection(
        RULE.id,
        "share of time in fsync and its like",
        share.value,
        SHARE_GATE,
        "ratio",
        "system calls of the serving threads",
        f"flushes were seen in {to_percent(persistence)} of the blocks of the window",
    )


def _finding(case: Case, rows: Masks, share: Share, disk: _Disk) -> Finding:
    path = _main_path(case, rows)
    callers = _caller_count(case)
    evidence = [
        Evidence("share of time in flushes", share.value, None, "ratio", "fsync, fdatasync, ..."),
        Evidence("serving threads that flush", callers, 0, "", "thread_runs, system call numbers"),
    ]
    if disk.flush_count:
        source = f"/proc/diskstats, {disk.flush_count} flushes"
        evidence.append(
            Evidence("mean time of a flush of the disks", disk.flush_ns / 1e6, None, "ms", source)
        )
    return make_finding(
        case,
        RULE,
        title=f"Requests wait until {path or 'a file'} is flushed to the disk",
        share=share,
        confidence=0.85 if disk.flush_count else 0.75,
        culprit=Culprit("file", path) if path else Culprit("none"),
        evidence=tuple(evidence),
    )


def _main_path(case: Case, rows: Masks) -> str:
    """The file that most of the flushing is of; "" where none is known."""
    ledger = case.ledger
    totals = sum_by(ledger.label[rows], ledger.ns[rows], len(ledger.labels))
    paths: dict[str, float] = {}
    for label, ns in zip(ledger.labels, totals.tolist(), strict=True):
        if ns > 0 and label.flush:
            paths[label.culprit] = paths.get(label.culprit, 0.0) + ns
    return max(sorted(paths), key=lambda path: paths[path], default="")


def _caller_count(case: Case) -> int:
    runs = case.aligned.table("thread_runs")
    runs = runs.where(np.isin(runs.integers("syscall"), list(FLUSH)))
    pairs = zip(runs.integers("pid").tolist(), runs.integers("tid").tolist(), strict=True)
    return len(case.serving & set(pairs))


RULE = Rule(
    id="fsync_in_path",
    family="disk",
    parent="",
    cell=("disk", "saturation"),
    state=State.DISK_WAIT,
    needs=("thread_runs.syscall",),
    sources=("threads",),
    absent="threads of the service",
    excludes=("disk_contention_neighbour",),
    summary="Requests wait for their own flushes to the disk.",
    meaning=(
        "The service calls fsync (or fdatasync, msync, sync) while it handles a request, and goes\n"
        "on only when the disk says that everything is safe. Even on a fast disk a few flushes a\n"
        "request cost more than the rest of it."
    ),
    detection=(
        "Time: serving threads blocked in those calls, in at least half of the window's blocks.\n"
        "Mechanism: the calls are made by the threads that serve, on a named file, while the disk\n"
        "needs no longer for a flush than disks do (below 30 ms).\n"
        "Not this: a disk that is slow for everybody, or threads that flush after they have\n"
        "answered: they are busy for longer than requests are in flight."
    ),
    fix=(
        "flush once for several requests (group commit), or from a thread of its own; or let the\n"
        "answer not wait for it, if losing the last moments is acceptable"
    ),
    verify="the share of time in flushes falls under 8 %",
    find=find,
)
