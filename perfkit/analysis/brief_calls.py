"""Calls over connections that the service opens for one question: told by the kernel's notice of
their end.

They live too briefly for polls, and a thread that waits on one waits on a socket that nothing
names. The notice (SKNLGRP_INET_TCP_DESTROY) tells the peer and the ages of the last data each way,
which are the question's and the answer's instants; so what such threads wait for is known together,
if not one by one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from perfkit.analysis.align import SLOTS_PER_BLOCK, Aligned, Axis
from perfkit.analysis.columns import Frame, Integers, Reals, sum_by
from perfkit.analysis.short_connections import MILLISECOND_NS, QUESTION_SEGMENTS_MAX
from perfkit.analysis.states import UNKNOWN_PEER, Label, Labels, State
from perfkit.analysis.timeline import Timeline


@dataclass(frozen=True)
class BriefCalls:
    """One call each, in the order of `closed`: to which peer, when asked, and when answered.

    `peer` numbers `peers`, which are sorted by name. `closed` holds the rows of `socket_closed`.
    """

    peers: tuple[str, ...]
    peer: Integers
    asked_ns: Integers
    answered_ns: Integers
    closed: Frame

    def of(self, name: str) -> BriefCalls:
        """The calls to one peer."""
        mine = self.peer == (self.peers.index(name) if name in self.peers else -1)
        return replace(
            self,
            peer=self.peer[mine],
            asked_ns=self.asked_ns[mine],
            answered_ns=self.answered_ns[mine],
            closed=self.closed.where(mine),
        )

    @property
    def sockets(self) -> Integers:
        """The sockets of those that were polled all the same; -1 of the others."""
        return self.closed.integers("socket_index")

    def pending(self, axis: Axis) -> Reals:
        """How many waited for their answer, on average in each slot."""
        return axis.sum_slots(self.asked_ns, self.answered_ns) / axis.slot_ns

    def answers(self, axis: Axis) -> Reals:
        """Questions per slot."""
        return axis.spread_counts(self.asked_ns, self.asked_ns + 1, np.ones(len(self.asked_ns)))


def read_brief_calls(aligned: Aligned) -> BriefCalls:
    """Reads them from `socket_closed`."""
    table = aligned.table("socket_closed")
    outgoing = np.array([role == "outgoing" for role in table.text("role")], dtype=bool)
    segments = table.integers("data_segments_out")
    table = table.where(outgoing & (segments > 0) & (segments <= QUESTION_SEGMENTS_MAX))
    end = table.integers("t_ns")
    asked = end - np.maximum(table.integers("last_sent_ms"), 0) * MILLISECOND_NS
    answered = end - np.maximum(table.integers("last_received_ms"), 0) * MILLISECOND_NS
    # Nothing ever came: the answer was waited for until the end.
    answered = np.where(table.integers("data_segments_in") > 0, answered, end)
    peers = tuple(sorted(set(table.text("peer"))))
    number = {name: index for index, name in enumerate(peers)}
    peer = np.array([number[name] for name in table.text("peer")], dtype=np.int64)
    return BriefCalls(peers, peer, asked, np.maximum(answered, asked), table)


def name_brief_peers(timeline: Timeline, calls: BriefCalls) -> Timeline:
    """Charges waits for peers that are not known to those that brief calls waited for meanwhile.

    Of each block at most as much as the calls of the block waited; what exceeds it stays unknown,
    and where calls waited longer they share what there is alike.
    """
    labels = Labels(timeline.labels)
    unknown = labels.index(Label(State.PEER_WAIT, UNKNOWN_PEER))
    mine = timeline.label == unknown
    if not len(calls.peers) or not mine.any():
        return timeline
    block = timeline.slot[mine] // SLOTS_PER_BLOCK
    shares = _shares(
        timeline.axis, sum_by(block, timeline.ns[mine], timeline.axis.block_count), calls
    )
    numbers = [labels.index(Label(State.PEER_WAIT, name)) for name in calls.peers]
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
    slots = np.arange(axis.slot_count)
    waited = np.array(
        [
            sum_by(
                slots // SLOTS_PER_BLOCK,
                calls.of(name).pending(axis) * axis.slot_ns,
                axis.block_count,
            )
            for name in calls.peers
        ]
    )
    whole: Reals = np.maximum(np.maximum(unknown_ns, waited.sum(axis=0)), 1.0)
    return np.asarray(waited / whole)
