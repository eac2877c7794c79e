"""Calls over connections that the service opens for one question each.

A thread that waits on such a connection waits on a socket that nothing names, since it lives too
briefly to be listed. The notices of their ends (short_connections.py) tell whom they led to and
when, so what such threads wait for is known together, if not one by one.
"""

from __future__ import annotations

import numpy as np

from perfkit.analysis.align import SLOTS_PER_BLOCK, Aligned, Axis
from perfkit.analysis.columns import Reals, sum_by
from perfkit.analysis.short_connections import ShortConnections, read_short_connections
from perfkit.analysis.states import UNKNOWN_PEER, Label, Labels, State
from perfkit.analysis.timeline import Timeline

BriefCalls = dict[str, ShortConnections]


def read_brief_calls(aligned: Aligned) -> BriefCalls:
    """The calls by peer, in the order of their names."""
    calls = read_short_connections(aligned, "outgoing")
    peers = np.array(calls.closed.text("peer"), dtype=str)
    return {str(name): calls.where(peers == name) for name in np.unique(peers)}


def name_brief_peers(timeline: Timeline, calls: BriefCalls) -> Timeline:
    """Charges waits for peers that are not known to those that brief calls waited for meanwhile.

    Of each block at most as much as the calls of the block waited; what exceeds it stays unknown,
    and where calls waited longer they share what there is alike.
    """
    labels = Labels(timeline.labels)
    unknown = labels.index(Label(State.PEER_WAIT, UNKNOWN_PEER))
    mine = timeline.label == unknown
    if not calls or not mine.any():
        return timeline
    block = timeline.slot[mine] // SLOTS_PER_BLOCK
    shares = _shares(
        timeline.axis, sum_by(block, timeline.ns[mine], timeline.axis.block_count), calls
    )
    numbers = [labels.index(Label(State.PEER_WAIT, name)) for name in calls]
    parts = [(unknown, 1.0 - shares.sum(axis=0)), *zip(numbers, shares, strict=True)]
    rest = ~mine
    thread, slot, label, ns = (
        np.concatenate(pieces)
        for pieces in (
            (timeline.thread[rest], *(timeline.thread[mine] for _ in parts)),
            (timeline.slot[rest], *(timeline.slot[mine] for _ in parts)),
            (timeline.label[rest], *(np.full(len(block), number) for number, _ in parts)),
            (timeline.ns[rest], *(timeline.ns[mine] * share[block] for _, share in parts)),
        )
    )
    some = ns > 0
    order = np.lexsort((label[some], slot[some], thread[some]))
    columns = (column[some][order] for column in (thread, slot, label, ns))
    return Timeline(timeline.axis, timeline.threads, labels.all(), *columns)


def _shares(axis: Axis, unknown_ns: Reals, calls: BriefCalls) -> Reals:
    """Per peer and block, what share of the unknown waits is its; shape (peers, blocks)."""
    waited = np.array(
        [axis.sum_blocks(mine.in_flight(axis) * axis.slot_ns) for mine in calls.values()]
    )
    whole: Reals = np.maximum(np.maximum(unknown_ns, waited.sum(axis=0)), 1.0)
    return np.asarray(waited / whole)
