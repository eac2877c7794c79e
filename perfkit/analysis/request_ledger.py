"""The ledger of the requests in flight: what they wait for, block by block.

What busy threads do is what the requests that they carry wait for. Only what exceeds the busy
threads, max(0, in flight - busy threads), is charged further: to pending peers, else to the queue
for the busy threads, that is to what those do meanwhile, and while none is busy, to a wait that is
not seen from outside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from perfkit.analysis.align import BLOCK_NS, SLOTS_PER_BLOCK, Axis
from perfkit.analysis.columns import Integers, Reals, sum_by
from perfkit.analysis.ledger import Ledger
from perfkit.analysis.requests import Peer, Requests
from perfkit.analysis.states import Label, Labels, State

# A wait for another thread carries no request of its own: that thread does.
_CARRIED_BY_OTHERS = State.HANDOFF_WAIT
# Questions pending beyond this multiple of the requests in flight were asked side by side.
SIDE_BY_SIDE_RATIO = 1.3
IDLE_SEEN_MIN = 0.05
# Met so often, the number in flight is known to a fifth; 2 s of the window are one stretch at most.
MET_COUNT_MIN = 30.0
EVENED_BLOCKS_MAX = 8

_Part = tuple[Integers, Integers, Integers, Reals]


def request_ledger(threads: Ledger, requests: Requests, idle: Reals) -> Ledger:
    """Books the time of the requests in flight; `idle` is how idle the threads are, per block.

    Both sides are held against one another per block, and evened out over as many as it takes to
    know the requests in flight: polls are too few in a slot, and the excess of a noisy figure over
    an exact one is never negative.
    """
    axis = threads.axis
    labels = Labels(threads.labels)
    carried = _carried(threads)
    in_flight_ns = axis.sum_blocks(requests.in_flight * axis.slot_ns)
    is_told = float(requests.arrivals.sum()) > 0
    gap_ns = requests.arrival_gap_ns
    width = _blocks_to_know(in_flight_ns, gap_ns) if is_told else EVENED_BLOCKS_MAX
    wanted_ns = _even_out(in_flight_ns, _by_block(axis, carried[0], carried[3]), width)
    kept = _fit(axis, carried, _quick_first(axis, requests, labels), wanted_ns)
    excess_ns = np.maximum(wanted_ns - _by_block(axis, kept[0], kept[3]), 0.0)
    pending = _charge_peers(axis, kept, requests, excess_ns, labels)
    left_ns = np.maximum(excess_ns - _by_block(axis, pending[0], pending[3]), 0.0)
    unread_ns = axis.sum_blocks(requests.unread * axis.slot_ns)
    queue = _Queue(left_ns, np.minimum(unread_ns, left_ns), idle)
    queued = _charge_queue(axis, kept, queue, labels)
    parts = [kept, pending, queued]
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    inferred = np.repeat([False, True, True], [len(part[0]) for part in parts])
    some = columns[3] >= 1.0
    slot, thread, label, ns = (column[some] for column in columns)
    return Ledger(
        "requests", axis, threads.threads, labels.all(), slot, thread, label, ns, inferred[some]
    )


def _by_block(axis: Axis, slot: Integers, ns: Reals) -> Reals:
    return sum_by(slot // SLOTS_PER_BLOCK, ns, axis.block_count)


def _blocks_to_know(in_flight_ns: Reals, gap_ns: float) -> int:
    """Over how many blocks requests are met in flight so often that their number is known.

    Each is met once a gap, so n meetings leave an error of n ** -0.5 of it (Poisson).
    """
    met_per_block = float(in_flight_ns.mean()) / gap_ns if gap_ns > 0 else MET_COUNT_MIN
    wanted = MET_COUNT_MIN / max(met_per_block, MET_COUNT_MIN / EVENED_BLOCKS_MAX)
    return max(1, math.ceil(wanted))


def _even_out(in_flight_ns: Reals, busy_ns: Reals, width: int) -> Reals:
    """In flight per block where what is too much in some blocks and too little in others cancels.

    Over each `width` blocks the sum stays what it was.
    """
    starts = np.arange(0, len(busy_ns), width)
    group = np.arange(len(busy_ns)) // width

    def left(part: Reals, other: Reals) -> Reals:
        mine, theirs = (np.add.reduceat(one, starts) for one in (part, other))
        return np.asarray(part * (np.maximum(mine - theirs, 0.0) / np.maximum(mine, 1.0))[group])

    over, under = np.maximum(in_flight_ns - busy_ns, 0.0), np.maximum(busy_ns - in_flight_ns, 0.0)
    return np.asarray(busy_ns + left(over, under) - left(under, over))


def _carried(threads: Ledger) -> _Part:
    states = np.array([label.state for label in threads.labels], dtype=np.int64)[threads.label]
    some = states != _CARRIED_BY_OTHERS
    return threads.slot[some], threads.thread[some], threads.label[some], threads.ns[some]


def _slowest_first(axis: Axis, requests: Requests) -> list[Peer]:
    return sorted(requests.peers, key=lambda peer: (-peer.wait_per_answer_ns(axis), peer.name))


def _quick_first(axis: Axis, requests: Requests, labels: Labels) -> list[int]:
    """The labels of peers that are asked side by side, the quickest first, the slowest left out.

    A request that asks several at once waits for the last answer: the others cost it nothing.
    """
    pending_ns = sum(float((peer.pending * axis.slot_ns).sum()) for peer in requests.peers)
    in_flight_ns = float((requests.in_flight * axis.slot_ns).sum())
    if pending_ns <= SIDE_BY_SIDE_RATIO * in_flight_ns:
        return []
    quick = _slowest_first(axis, requests)[:0:-1]
    return [labels.index(Label(State.PEER_WAIT, peer.name)) for peer in quick]


def _fit(axis: Axis, part: _Part, cut_first: list[int], wanted_ns: Reals) -> _Part:
    """Cuts the busy rows down to the requests in flight: some labels first, then all alike."""
    slot, thread, label, ns = part
    ns = ns.copy()
    block = slot // SLOTS_PER_BLOCK
    for number in cut_first:
        mine = label == number
        over = np.maximum(_by_block(axis, slot, ns) - wanted_ns, 0.0)
        there = _by_block(axis, slot[mine], ns[mine])
        left = 1.0 - np.minimum(over, there) / np.maximum(there, 1.0)
        ns[mine] *= left[block[mine]]
    busy = _by_block(axis, slot, ns)
    scale = np.minimum(1.0, wanted_ns / np.maximum(busy, 1.0))
    return slot, thread, label, ns * scale[block]


def _charge_peers(
    axis: Axis, kept: _Part, requests: Requests, excess_ns: Reals, labels: Labels
) -> _Part:
    """Charges the excess to pending sockets that no thread waits on, of the slowest peer first."""
    slots = np.arange(axis.slot_count)
    left_ns = excess_ns.copy()
    parts: list[_Part] = []
    for peer in _slowest_first(axis, requests):
        number = labels.index(Label(State.PEER_WAIT, peer.name))
        covered = kept[2] == number
        waited = _by_block(axis, kept[0][covered], kept[3][covered])
        asked = _by_block(axis, slots, peer.pending * axis.slot_ns)
        charged = np.minimum(left_ns, np.maximum(asked - waited, 0.0))
        left_ns -= charged
        parts.append(_new_rows(np.flatnonzero(charged >= 1.0), charged, number))
    return _stack(parts)


@dataclass(frozen=True)
class _Queue:
    """What is in flight beyond the busy threads and their peers, per block; of it, unread."""

    excess_ns: Reals
    unread_ns: Reals
    idle: Reals


def _charge_queue(axis: Axis, kept: _Part, queue: _Queue, labels: Labels) -> _Part:
    """Charges what is left to what the busy threads did in that block, since it queues for them.

    Nobody queues while no thread is busy, but bytes that nobody has read do, however short the
    moments are in which the threads are. Where the threads idle meanwhile the rest is a wait not
    seen, such as a timer of an event loop; where they do not it is a queue of unknown cause.
    """
    slot, thread, label, ns = kept
    busy = _by_block(axis, slot, ns)
    excess_ns = queue.excess_ns
    queued_ns = np.maximum(excess_ns * np.minimum(1.0, busy / BLOCK_NS), queue.unread_ns)
    queued_ns = np.where(busy >= 1.0, queued_ns, 0.0)
    factor = queued_ns / np.maximum(busy, 1.0)
    unseen_ns = np.where(queue.idle >= IDLE_SEEN_MIN, excess_ns - queued_ns, 0.0)
    lonely_ns = excess_ns - queued_ns - unseen_ns
    return _stack(
        [
            (slot, thread, label, ns * factor[slot // SLOTS_PER_BLOCK]),
            _new_rows(
                np.flatnonzero(lonely_ns >= 1.0), lonely_ns, labels.index(Label(State.QUEUE_WAIT))
            ),
            _new_rows(
                np.flatnonzero(unseen_ns >= 1.0), unseen_ns, labels.index(Label(State.UNSEEN_WAIT))
            ),
        ]
    )


def _new_rows(block: Integers, ns: Reals, label: int) -> _Part:
    """Rows without a thread, one for each of the blocks."""
    nobody = np.full(len(block), -1, dtype=np.int64)
    number = np.full(len(block), label, dtype=np.int64)
    return block * SLOTS_PER_BLOCK, nobody, number, ns[block]


def _stack(parts: list[_Part]) -> _Part:
    empty = np.empty(0, dtype=np.int64)
    parts = parts or [(empty, empty, empty, np.empty(0))]
    slot, thread, label, ns = (np.concatenate(column) for column in zip(*parts, strict=True))
    return slot, thread, label, ns
