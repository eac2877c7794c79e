"""How many of the descriptors that they may have the processes of the service had open."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perfkit.analysis.case import Case
from perfkit.analysis.columns import Masks, Reals
from perfkit.analysis.compare import passes_gate
from perfkit.analysis.intervals import Share, share_of_blocks
from perfkit.analysis.states import State

EXHAUSTED_RATIO = 0.98


@dataclass(frozen=True)
class Use:
    """How far one process came toward its limit."""

    pid: int
    open_count: int
    limit: int

    @property
    def ratio(self) -> float:
        """Open descriptors per descriptor allowed."""
        return self.open_count / self.limit

    @property
    def is_exhausted(self) -> bool:
        """Whether it had none left."""
        return self.ratio >= EXHAUSTED_RATIO


def read_uses(case: Case) -> list[Use]:
    """The largest use that each process of the service came to, nearest to its limit first."""
    table = case.aligned.table("descriptors")
    columns = [table.integers(name).tolist() for name in ("pid", "open_count", "soft_limit")]
    highest: dict[int, Use] = {}
    for pid, open_count, limit in zip(*columns, strict=True):
        use = Use(pid, open_count, limit)
        if limit > 0 and (pid not in highest or use.ratio > highest[pid].ratio):
            highest[pid] = use
    return sorted(highest.values(), key=lambda use: (-use.ratio, use.pid))


def share_without(case: Case, pids: frozenset[int]) -> Share:
    """Timed waits of the full processes' threads, and connections that wait to be accepted."""
    if not pids:
        return Share(0.0, 0.0, 0.0)
    axis = case.aligned.axis
    queued = axis.sum_blocks(case.requests.accept_queue * axis.slot_ns)
    waited = case.ledger.block_ns(pauses(case, pids))
    whole: Reals = case.whole_blocks + queued
    return share_of_blocks(waited + queued, whole)


def pauses(case: Case, pids: frozenset[int]) -> Masks:
    """Timed waits of these processes' threads; those that queue for such a thread come with it."""
    ledger = case.ledger
    full = np.array([pid in pids for pid, _ in ledger.threads] + [False], dtype=bool)
    mine: Masks = ledger.rows_where(State.TIMER_WAIT) & full[ledger.thread]
    return mine


def retried_ratio(case: Case) -> float:
    """The part of the serving threads' CPU time that processes without a descriptor used.

    They fail and try again, as an accept loop does at EMFILE, and what they burn is no cause of its
    own. Missing: 0 where no process is without, or where nobody waits for that.
    """
    full = frozenset(use.pid for use in read_uses(case) if use.is_exhausted)
    if not passes_gate(share_without(case, full)):
        return 0.0
    timeline = case.timeline
    serving = np.array([thread in case.serving for thread in timeline.threads], dtype=bool)
    theirs = np.array([pid in full for pid, _ in timeline.threads], dtype=bool)
    running = (timeline.states() == State.ON_CPU) & serving[timeline.thread]
    mine = running & theirs[timeline.thread]
    return float(timeline.ns[mine].sum()) / max(float(timeline.ns[running].sum()), 1.0)
