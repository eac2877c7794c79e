"""Requests in flight, answers, and who is waited for: from the sockets, without cooperation.

In flight = accepted sockets that hold a request (see exchanges.py). Pending at a peer = outgoing
sockets that wait for its answer. Connections that lived too briefly to be polled are counted from
the kernel's notice of their end.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from perfkit.analysis.align import Aligned, Axis
from perfkit.analysis.brief_calls import BriefCalls, read_brief_calls
from perfkit.analysis.columns import Frame, Integers, Masks, Reals, sum_by
from perfkit.analysis.exchanges import (
    PENDING,
    SETTLED,
    UNDETERMINED,
    Exchanges,
    acknowledged_states,
    answers_between,
    counted_states,
    grown,
    message_lengths,
    near_miss_states,
    one_way,
    read_exchanges,
    streamed_states,
    strict_states,
)
from perfkit.analysis.short_connections import (
    MILLISECOND_NS,
    ShortConnections,
    read_short_connections,
)
from perfkit.analysis.states import POLL, RECEIVE

PEER_LIMIT = 256
# A connection is seen at the latest so long after it was accepted (collectors/sockets.py).
DISCOVERY_NS = 300_000_000
# A wait that is known from its end counts as if it had been polled at this pace.
POLL_NS = 50_000_000


@dataclass(frozen=True)
class Peer:
    """What the service asked of one peer in the window."""

    name: str
    pending: Reals
    answer_count: float
    poll_count: int
    rtt_us: float
    min_rtt_us: float
    retransmits: int
    out_of_order: int
    rwnd_limited_us: int
    segment_count: int
    answers: Reals

    def wait_per_answer_ns(self, axis: Axis) -> float:
        """Mean time for which one question to this peer was pending; no answers: the whole wait."""
        waited = float((self.pending * axis.slot_ns).sum())
        return waited / max(self.answer_count, 1.0)


@dataclass(frozen=True)
class Requests:
    """Per slot: requests in flight, sockets undecided, questions taken in; and the peers.

    `counted` is False where the service has no accepted TCP socket: then only its threads tell.
    `timed` is False where the ages of their data are refused: then no request was seen, if any.
    `arrival_gap_ns` is how far apart a socket's counts were read, on average over the questions:
    their times are known to no finer, which is seconds where thousands of sockets are read in turn.
    `calls` are those over connections of one question, of which `peers` tell too.
    """

    counted: bool
    timed: bool
    in_flight: Reals
    undetermined: Reals
    arrivals: Reals
    arrival_gap_ns: float
    answer_count: float
    unread: Reals
    accept_queue: Reals
    peers: tuple[Peer, ...]
    calls: BriefCalls
    one_way_count: int

    @property
    def undetermined_share(self) -> float:
        """How much of the possible in-flight time could not be decided, 0..1."""
        total = float(self.in_flight.sum() + self.undetermined.sum())
        return float(self.undetermined.sum()) / total if total > 0 else 0.0


def read_requests(aligned: Aligned) -> Requests:
    """Counts the requests of the window."""
    axis = aligned.axis
    calls = read_brief_calls(aligned)
    called = [index for mine in calls.values() for index in mine.sockets.tolist()]
    sockets = aligned.table("sockets")
    closed = read_short_connections(aligned, "accepted")
    listeners, accepted, outgoing = _by_role(aligned.table("socket_runs"), sockets)
    polled = ~np.isin(accepted.integers("socket_index"), closed.sockets)
    lasting = outgoing.where(~np.isin(outgoing.integers("socket_index"), called))
    rows = read_exchanges(accepted.where(polled), asked_by_peer=True)
    readers = _reader_waits(aligned)
    state, silent = _states(rows, _inodes(sockets), readers)
    arrivals = _arrivals(axis, rows) + closed.arrivals(axis)
    answered = grown(rows.socket, rows.answered) + closed.count
    return Requests(
        counted=len(rows.socket) > 0 or closed.count > 0,
        timed=bool(np.any((rows.asked_age >= 0) | (rows.answered_age >= 0))) or closed.count > 0,
        in_flight=_mean(axis, rows, state == PENDING) + closed.in_flight(axis),
        undetermined=_mean(axis, rows, state == UNDETERMINED),
        arrivals=arrivals,
        arrival_gap_ns=_arrival_gap_ns(rows, closed.count),
        answer_count=float(arrivals.sum()) if answered > 0 else 0.0,
        unread=_mean(axis, rows, (rows.unread > 0) & ~silent),
        accept_queue=_accept_queue(axis, listeners),
        peers=_add_calls(axis, _read_peers(aligned, lasting, readers), calls),
        calls=calls,
        one_way_count=len(set(rows.socket[silent].tolist())),
    )


def _by_role(runs: Frame, sockets: Frame) -> tuple[Frame, Frame, Frame]:
    """The rows of the listeners, of accepted and of outgoing sockets."""
    roles = dict(zip(sockets.integers("socket_index").tolist(), sockets.text("role"), strict=True))
    role = np.array(
        [roles.get(one, "") for one in runs.integers("socket_index").tolist()], dtype=str
    )
    listeners, accepted, outgoing = (
        runs.where(role == name) for name in ("listener", "accepted", "outgoing")
    )
    return listeners, accepted, outgoing


def _states(
    rows: Exchanges, inode_of: dict[int, int], readers: dict[int, list[tuple[int, int]]]
) -> tuple[Integers, Masks]:
    """Decides every row, and marks those of one-way sockets, on which nothing is pending."""
    state = strict_states(rows)
    # Unread bytes are a question not yet taken up, or an answer that has arrived.
    state[rows.unread > 0] = PENDING if rows.asked_by_peer else SETTLED
    state = acknowledged_states(rows, state)
    state = _read_states(rows, state, inode_of, readers)
    state = counted_states(rows, near_miss_states(rows, state))
    state = streamed_states(rows, state)
    silent = one_way(rows)
    state[silent] = SETTLED
    return state, silent


def _read_states(
    rows: Exchanges,
    decided: Integers,
    inode_of: dict[int, int],
    readers: dict[int, list[tuple[int, int]]],
) -> Integers:
    """Settles ties by threads seen receiving: for a question, or on outgoing ones for an answer."""
    state = decided.copy()
    for index in np.flatnonzero(decided == UNDETERMINED).tolist():
        inode = inode_of.get(int(rows.socket[index]), 0)
        for begin, end in readers.get(inode, ()):
            if begin <= rows.end[index] and end >= rows.begin[index]:
                state[index] = SETTLED if rows.asked_by_peer else PENDING
                break
    return state


def _inodes(sockets: Frame) -> dict[int, int]:
    columns = (sockets.integers("socket_index").tolist(), sockets.integers("inode").tolist())
    return dict(zip(*columns, strict=True))


def _reader_waits(aligned: Aligned) -> dict[int, list[tuple[int, int]]]:
    """When some thread was blocked receiving from (or polling) a single socket, by its inode."""
    runs = aligned.table("thread_runs")
    wanted = np.isin(runs.integers("syscall"), list(RECEIVE | POLL))
    runs = runs.where(wanted & (runs.integers("fd_inode") > 0))
    waits: dict[int, list[tuple[int, int]]] = {}
    columns = [runs.integers(name).tolist() for name in ("fd_inode", "moved_ns", "end_ns")]
    for inode, begin, end in zip(*columns, strict=True):
        waits.setdefault(inode, []).append((begin, end))
    return waits


def _mean(axis: Axis, rows: Exchanges, mask: Masks) -> Reals:
    """How many sockets are in the masked state, on average in each slot.

    Between two polls a changed socket counts half for the state before and half for the one after.
    The first row of a socket that was opened in the window is dated back to its question.
    """
    if not len(rows.socket):
        return np.zeros(axis.slot_count)
    same_before = rows.same_socket_as_before()
    same_next = np.append(same_before[1:], False)
    middle_next = np.where(same_next, (rows.end + np.roll(rows.begin, -1)) // 2, rows.end)
    middle_before = np.where(same_before, (rows.begin + np.roll(rows.end, 1)) // 2, rows.begin)
    asked_ns = rows.begin - np.maximum(rows.asked_age, 0) * MILLISECOND_NS
    middle_before = np.where(_opened_in(axis, rows), asked_ns, middle_before)
    return axis.sum_slots(middle_before[mask], middle_next[mask]) / axis.slot_ns


def _opened_in(axis: Axis, rows: Exchanges) -> Masks:
    """Marks the first rows of sockets that were opened in the window, with a question on them."""
    marked: Masks = ~rows.same_socket_as_before()
    marked &= (rows.begin > axis.start_ns + DISCOVERY_NS) & (rows.asked > 0)
    return marked


def _arrivals(axis: Axis, rows: Exchanges) -> Reals:
    """Questions per slot: between polls, and before the first poll of sockets opened meanwhile."""
    per_question = message_lengths(rows).question
    opened = _opened_in(axis, rows)
    asked_ns = rows.begin[opened] - np.maximum(rows.asked_age[opened], 0) * MILLISECOND_NS
    first = (asked_ns, asked_ns + 1, rows.asked[opened] / per_question)
    return axis.spread_counts(*answers_between(rows, per_question)) + axis.spread_counts(*first)


def _arrival_gap_ns(rows: Exchanges, closed_count: int) -> float:
    """The mean time between the polls that count a question; none for sockets closed meanwhile."""
    begin, end, count = answers_between(rows, message_lengths(rows).question)
    return float(((end - begin) * count).sum()) / max(float(count.sum()) + closed_count, 1.0)


def _accept_queue(axis: Axis, listeners: Frame) -> Reals:
    queue = listeners.integers("receive_queue_bytes")
    begin, end = listeners.integers("start_ns"), listeners.integers("end_ns")
    index, slot, overlap = axis.spread(begin, end)
    weights = overlap * np.maximum(queue[index], 0)
    return sum_by(slot, weights, axis.slot_count) / axis.slot_ns


def _read_peers(
    aligned: Aligned, outgoing: Frame, readers: dict[int, list[tuple[int, int]]]
) -> tuple[Peer, ...]:
    sockets = aligned.table("sockets")
    columns = (sockets.integers("socket_index").tolist(), sockets.text("peer"))
    peer_of = dict(zip(*columns, strict=True))
    names = [peer_of[index] for index in outgoing.integers("socket_index").tolist()]
    # Peers that change most often are asked most; the rest together cannot be a cause.
    asked = Counter(names).most_common(PEER_LIMIT)
    known = sorted(name for name, _ in asked)
    number = {name: index for index, name in enumerate(known)}
    group = np.array([number.get(name, len(known)) for name in names], dtype=np.int64)
    order = np.argsort(group, kind="stable")
    edges = np.searchsorted(group[order], np.arange(len(known) + 1))
    inodes = _inodes(sockets)
    peers = []
    for name, first, last in zip(known, edges, edges[1:], strict=False):
        frame = outgoing.take(order[first:last]).sorted_by("socket_index", "start_ns")
        rows = read_exchanges(frame, asked_by_peer=False)
        state, silent = _states(rows, inodes, readers)
        if not silent.all():
            peers.append(_to_peer(aligned.axis, name, frame, rows, state == PENDING))
    return tuple(peers)


def _add_calls(axis: Axis, peers: tuple[Peer, ...], calls: BriefCalls) -> tuple[Peer, ...]:
    """Adds to what was polled of each peer the calls over connections of their own."""
    polled = {peer.name: peer for peer in peers}
    brief = {name: _to_brief_peer(axis, name, mine) for name, mine in calls.items()}
    both = [_join(polled[name], brief[name]) if name in polled else brief[name] for name in brief]
    others = [peer for peer in peers if peer.name not in brief]
    return tuple(sorted((*others, *both), key=lambda peer: peer.name))


def _to_brief_peer(axis: Axis, name: str, calls: ShortConnections) -> Peer:
    pending, answers, closed = calls.in_flight(axis), calls.arrivals(axis), calls.closed

    def total(*metrics: str) -> int:
        return sum(int(np.maximum(closed.integers(metric), 0).sum()) for metric in metrics)

    return Peer(
        name=name,
        pending=pending,
        answers=answers,
        answer_count=float(answers.sum()),
        poll_count=round(float((pending * axis.slot_ns).sum()) / POLL_NS),
        rtt_us=_median(closed.integers("rtt_us")),
        min_rtt_us=_median(closed.integers("min_rtt_us")),
        retransmits=total("retransmits"),
        out_of_order=total("out_of_order"),
        rwnd_limited_us=total("rwnd_limited_us"),
        segment_count=total("data_segments_in", "data_segments_out"),
    )


def _join(one: Peer, other: Peer) -> Peer:
    """What was seen of one peer in two ways; round trips as on its lasting connections."""
    return replace(
        one,
        pending=one.pending + other.pending,
        answers=one.answers + other.answers,
        answer_count=one.answer_count + other.answer_count,
        poll_count=one.poll_count + other.poll_count,
        retransmits=one.retransmits + other.retransmits,
        out_of_order=one.out_of_order + other.out_of_order,
        rwnd_limited_us=one.rwnd_limited_us + other.rwnd_limited_us,
        segment_count=one.segment_count + other.segment_count,
    )


def _to_peer(axis: Axis, name: str, frame: Frame, rows: Exchanges, waiting: Masks) -> Peer:
    resent, out_of_order, limited_us = (
        grown(rows.socket, frame.integers(metric))
        for metric in ("retransmits", "out_of_order", "rwnd_limited_us")
    )
    arrivals = _arrivals(axis, rows)
    return Peer(
        name=name,
        pending=_mean(axis, rows, waiting),
        answers=arrivals,
        answer_count=float(arrivals.sum()),
        poll_count=int(frame.integers("tick_count")[waiting].sum()),
        rtt_us=_median(frame.integers("rtt_us")),
        min_rtt_us=_median(frame.integers("min_rtt_us")),
        retransmits=resent,
        out_of_order=out_of_order,
        rwnd_limited_us=limited_us,
        segment_count=grown(rows.socket, rows.asked) + grown(rows.socket, rows.answered),
    )


def _median(values: Integers) -> float:
    known = values[values >= 0]
    return float(np.median(known)) if len(known) else -1.0
