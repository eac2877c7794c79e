"""The ledger: where the service's time went, and to whom it is charged.

Two ledgers over the same blocks. *Threads* books the busy time of the serving threads. *Requests*
(request_ledger.py) books the time that requests were in flight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from perfkit.analysis.align import SLOTS_PER_BLOCK, Axis
from perfkit.analysis.columns import Integers, Masks, Reals, sum_by
from perfkit.analysis.states import IDLE_STATES, Label, State
from perfkit.analysis.timeline import Timeline


@dataclass(frozen=True)
class Ledger:
    """Rows (slot, thread, label) -> ns; `thread` is -1 where a request waits without a thread.

    `inferred` marks rows that are charged by rule (a queue, a hand-off), not seen in a thread.
    """

    kind: Literal["requests", "threads"]
    axis: Axis
    threads: tuple[tuple[int, int], ...]
    labels: tuple[Label, ...]
    slot: Integers
    thread: Integers
    label: Integers
    ns: Reals
    inferred: Masks

    def total_ns(self) -> float:
        """All time booked."""
        return float(self.ns.sum())

    def block_ns(self, mask: Masks | None = None) -> Reals:
        """The booked time per block, of the masked rows or of all."""
        slot, ns = (self.slot, self.ns) if mask is None else (self.slot[mask], self.ns[mask])
        return sum_by(slot // SLOTS_PER_BLOCK, ns, self.axis.block_count)

    def rows_where(self, state: State, culprit: str | None = None) -> Masks:
        """Marks the rows of a state (and a culprit)."""
        wanted = [
            index
            for index, label in enumerate(self.labels)
            if label.state is state and (culprit is None or label.culprit == culprit)
        ]
        return np.isin(self.label, wanted)

    def share(self, state: State, culprit: str | None = None) -> float:
        """The share of all booked time that went to a state (and a culprit), 0..1."""
        total = self.total_ns()
        return float(self.ns[self.rows_where(state, culprit)].sum()) / total if total > 0 else 0.0

    def by_culprit(self, state: State) -> dict[str, float]:
        """The booked ns of a state per culprit, largest first."""
        sums: dict[str, float] = {}
        totals = sum_by(self.label, self.ns, len(self.labels))
        for label, ns in zip(self.labels, totals.tolist(), strict=True):
            if label.state is state and ns > 0:
                sums[label.culprit] = sums.get(label.culprit, 0.0) + ns
        return dict(sorted(sums.items(), key=lambda item: (-item[1], item[0])))


def idle_ratio(timeline: Timeline, serving: Masks) -> Reals:
    """How idle the threads are that do the work, 0..1 per block.

    Each serving thread counts by the work that it does in the window: an acceptor that mostly
    waits, or an executor that is hardly used, is no free capacity.
    """
    states = timeline.states()
    mine = serving[timeline.thread]
    idle = mine & np.isin(states, [int(state) for state in IDLE_STATES])
    busy = mine & ~idle & (states != State.HANDOFF_WAIT)
    count = len(timeline.threads)
    weight = sum_by(timeline.thread[busy], timeline.ns[busy], count)
    weight = weight / max(float(weight.sum()), 1.0)
    block = timeline.slot // SLOTS_PER_BLOCK
    ns = timeline.ns * weight[timeline.thread]
    whole = sum_by(block[mine], ns[mine], timeline.axis.block_count)
    return sum_by(block[idle], ns[idle], timeline.axis.block_count) / np.maximum(whole, 1.0)


def thread_ledger(timeline: Timeline, serving: Masks) -> Ledger:
    """Books the busy time of the serving threads."""
    states = timeline.states()
    busy = ~np.isin(states, [int(state) for state in IDLE_STATES])
    kept = busy & serving[timeline.thread]
    return Ledger(
        "threads",
        timeline.axis,
        timeline.threads,
        timeline.labels,
        timeline.slot[kept],
        timeline.thread[kept],
        timeline.label[kept],
        timeline.ns[kept],
        np.zeros(int(kept.sum()), dtype=bool),
    )
