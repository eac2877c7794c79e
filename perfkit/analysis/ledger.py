"""The ledger: where the service's time went, and to whom it is charged.

Two ledgers over the same blocks. *Threads* books the busy time of the serving threads. *Requests*
books the time that requests were in flight: what busy threads do is what those requests wait for,
and only what exceeds them, max(0, in flight - busy threads), is charged to pending peers, else to
the queue for the busy threads, that is to what they do meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from perfkit.analysis.align import BLOCK_NS, SLOTS_PER_BLOCK, Axis
from perfkit.analysis.columns import Integers, Masks, Reals, sum_by
from perfkit.analysis.requests import Requests
from perfkit.analysis.states import IDLE_STATES, Label, State
from perfkit.analysis.timeline import Timeline

# Evidence of serving: this much of the window in waits for work, for a client, or for a lock.
SERVING_SHARE = 0.01
_WORKER_STATES = (
    State.IDLE_POOL,
    State.LOCK_WAIT,
    State.HANDOFF_WAIT,
    State.IDLE_CLIENT,
    State.IDLE_ACCEPT,
    State.IDLE_SELECTOR,
    State.SEND_WAIT,
)
# A wait for another thread carries no request of its own: that thread does.
_CARRIED_BY_OTHERS = State.HANDOFF_WAIT


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


def serving_threads(timeline: Timeline, *, has_requests: bool) -> Masks:
    """Marks the threads that serve requests: those ever seen waiting for work or for a client.

    A thread that only computes, sleeps or waits for the GIL is a background thread of the service.
    Without requests (batch, training) all threads serve, and so does a process's only thread.
    """
    count = len(timeline.threads)
    if not has_requests:
        return np.ones(count, dtype=bool)
    states = timeline.states()
    worker = np.isin(states, [int(state) for state in _WORKER_STATES])
    seen = sum_by(timeline.thread[worker], timeline.ns[worker], count)
    pids = [pid for pid, _ in timeline.threads]
    alone = np.array([pids.count(pid) == 1 for pid in pids], dtype=bool)
    marked: Masks = (seen >= SERVING_SHARE * timeline.axis.slot_ns.sum()) | alone
    return marked


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


def request_ledger(threads: Ledger, requests: Requests) -> Ledger:
    """Books the time of the requests in flight; empty where they could not be counted.

    Both sides are held against one another per block: polls are too few in a slot, and the excess
    of a noisy figure over an exact one is never negative.
    """
    axis = threads.axis
    states = np.array([label.state for label in threads.labels], dtype=np.int64)[threads.label]
    carrying = states != _CARRIED_BY_OTHERS
    slot, ns = threads.slot[carrying], threads.ns[carrying]
    busy_ns = _by_block(axis, slot, ns)
    wanted_ns = _by_block(axis, np.arange(axis.slot_count), requests.in_flight * axis.slot_ns)
    scale = np.minimum(1.0, wanted_ns / np.maximum(busy_ns, 1.0))[slot // SLOTS_PER_BLOCK]
    kept = (slot, threads.thread[carrying], threads.label[carrying], ns * scale)
    excess_ns = np.maximum(wanted_ns - busy_ns, 0.0)
    pending, labels = _charge_peers(threads, requests, excess_ns)
    left_ns = np.maximum(excess_ns - _by_block(axis, pending[0], pending[3]), 0.0)
    queued = _charge_queue(axis, kept, left_ns, len(labels))
    labels = (*labels, Label(State.QUEUE_WAIT))
    parts = [kept, pending, queued]
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    inferred = np.repeat([False, True, True], [len(part[0]) for part in parts])
    some = columns[3] >= 1.0
    slot, thread, label, ns = (column[some] for column in columns)
    return Ledger(
        "requests", axis, threads.threads, labels, slot, thread, label, ns, inferred[some]
    )


_Part = tuple[Integers, Integers, Integers, Reals]


def _by_block(axis: Axis, slot: Integers, ns: Reals) -> Reals:
    return sum_by(slot // SLOTS_PER_BLOCK, ns, axis.block_count)


def _charge_peers(
    threads: Ledger, requests: Requests, excess_ns: Reals
) -> tuple[_Part, tuple[Label, ...]]:
    """Charges the excess to peers, by their pending sockets that no thread waits on."""
    axis, labels = threads.axis, list(threads.labels)
    slots = np.arange(axis.slot_count)
    pending, numbers = [], []
    for peer in requests.peers:
        label = Label(State.PEER_WAIT, peer.name)
        covered = threads.rows_where(*_pair(label))
        waited = _by_block(axis, threads.slot[covered], threads.ns[covered])
        asked = _by_block(axis, slots, peer.pending * axis.slot_ns)
        pending.append(np.maximum(asked - waited, 0.0))
        if label not in labels:
            labels.append(label)
        numbers.append(labels.index(label))
    if not pending:
        empty = np.empty(0, dtype=np.int64)
        return (empty, empty, empty, np.empty(0)), tuple(labels)
    each = np.array(pending)
    total = each.sum(axis=0)
    charged = np.minimum(excess_ns, total) * each / np.maximum(total, 1.0)
    peers, block = np.nonzero(charged >= 1.0)
    nobody = np.full(len(block), -1, dtype=np.int64)
    number = np.array(numbers, dtype=np.int64)[peers]
    return (block * SLOTS_PER_BLOCK, nobody, number, charged[peers, block]), tuple(labels)


def _pair(label: Label) -> tuple[State, str]:
    return label.state, label.culprit


def _charge_queue(axis: Axis, kept: _Part, excess_ns: Reals, queue_label: int) -> _Part:
    """Charges what is left to what the busy threads did in that block.

    While no thread at all is busy nobody is queued for; that part is a queue without a reason seen.
    """
    slot, thread, label, ns = kept
    block = slot // SLOTS_PER_BLOCK
    busy = _by_block(axis, slot, ns)
    queued_for_busy = excess_ns * np.minimum(1.0, busy / BLOCK_NS)
    factor = queued_for_busy / np.maximum(busy, 1.0)
    lonely_ns = excess_ns - queued_for_busy
    lonely = np.flatnonzero(lonely_ns >= 1.0)
    return (
        np.concatenate([slot, lonely * SLOTS_PER_BLOCK]),
        np.concatenate([thread, np.full(len(lonely), -1, dtype=np.int64)]),
        np.concatenate([label, np.full(len(lonely), queue_label, dtype=np.int64)]),
        np.concatenate([ns * factor[block], lonely_ns[lonely]]),
    )
