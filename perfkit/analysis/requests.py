"""Requests in flight, answers, and who is waited for: from the sockets, without cooperation.

In flight = accepted sockets that hold a request (see exchanges.py). Pending at a peer = outgoing
sockets that wait for its answer. Connections that lived too briefly to be polled are counted from
the kernel's notice of their end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perfkit.analysis.align import Aligned, Axis
from perfkit.analysis.columns import Frame, Integers, Masks, Reals, sum_by
from perfkit.analysis.exchanges import (
    PENDING,
    SETTLED,
    UNDETERMINED,
    Exchanges,
    acknowledged_states,
    answers_between,
    counted_states,
    message_lengths,
    near_miss_states,
    one_way,
    read_exchanges,
    strict_states,
)
from perfkit.analysis.states import POLL, RECEIVE

LISTEN = 10
MILLISECOND_NS = 1_000_000


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

    def wait_per_answer_ns(self, axis: Axis) -> float:
        """Mean time for which one question to this peer was pending; no answers: the whole wait."""
        waited = float((self.pending * axis.slot_ns).sum())
        return waited / max(self.answer_count, 1.0)


@dataclass(frozen=True)
class Requests:
    """Per slot: requests in flight, sockets undecided, questions taken in; and the peers.

    `counted` is False where the service has no accepted TCP socket: then only its threads tell.
    """

    counted: bool
    in_flight: Reals
    undetermined: Reals
    arrivals: Reals
    answer_count: float
    unread: Reals
    accept_queue: Reals
    peers: tuple[Peer, ...]
    one_way_count: int

    @property
    def undetermined_share(self) -> float:
        """How much of the possible in-flight time could not be decided, 0..1."""
        total = float(self.in_flight.sum() + self.undetermined.sum())
        return float(self.undetermined.sum()) / total if total > 0 else 0.0


def read_requests(aligned: Aligned) -> Requests:
    """Counts the requests of the window."""
    axis = aligned.axis
    runs, sockets = aligned.table("socket_runs"), aligned.table("sockets")
    roles = dict(zip(sockets.integers("socket_index").tolist(), sockets.text("role"), strict=True))
    role = np.array([roles.get(index, "") for index in runs.integers("socket_index").tolist()])
    accepted = runs.where(role == "accepted") if len(runs) else runs
    rows = read_exchanges(accepted, asked_by_peer=True)
    readers = _reader_waits(aligned)
    state, one_way_rows = _states(rows, _inodes(sockets), readers)
    closed = _Closed.read(
        aligned, set(zip(sockets.text("local"), sockets.text("peer"), strict=True))
    )
    gaps = answers_between(rows, message_lengths(rows).question)
    arrivals = _spread_counts(axis, *gaps) + closed.arrivals(axis)
    answered = _grown(rows.socket, rows.answered) + closed.count
    in_flight = _mean(axis, rows, state == PENDING) + closed.in_flight(axis)
    return Requests(
        counted=len(rows.socket) > 0 or closed.count > 0,
        in_flight=in_flight,
        undetermined=_mean(axis, rows, state == UNDETERMINED),
        arrivals=arrivals,
        answer_count=float(arrivals.sum()) if answered > 0 else 0.0,
        unread=_mean(axis, rows, rows.unread > 0),
        accept_queue=_accept_queue(axis, runs.where(role == "listener") if len(runs) else runs),
        peers=_read_peers(aligned, runs.where(role == "outgoing") if len(runs) else runs, readers),
        one_way_count=len(set(rows.socket[one_way_rows].tolist())),
    )


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
    """
    if not len(rows.socket):
        return np.zeros(axis.slot_count)
    same_next = np.append(rows.same_socket_as_before()[1:], False)
    same_before = rows.same_socket_as_before()
    middle_next = np.where(same_next, (rows.end + np.roll(rows.begin, -1)) // 2, rows.end)
    middle_before = np.where(same_before, (rows.begin + np.roll(rows.end, 1)) // 2, rows.begin)
    return axis.sum_slots(middle_before[mask], middle_next[mask]) / axis.slot_ns


def _spread_counts(axis: Axis, begin: Integers, end: Integers, count: Reals) -> Reals:
    index, slot, overlap = axis.spread(begin, np.maximum(end, begin + 1))
    share = overlap / np.maximum(end - begin, 1)[index]
    return sum_by(slot, share * count[index], axis.slot_count)


def _grown(socket: Integers, counter: Integers) -> int:
    """How much a counter grew, summed over sockets (rows sorted by socket and time)."""
    same = socket[1:] == socket[:-1]
    return int(np.maximum(np.diff(counter), 0)[same].sum())


def _accept_queue(axis: Axis, listeners: Frame) -> Reals:
    queue = listeners.integers("receive_queue_bytes")
    begin, end = listeners.integers("start_ns"), listeners.integers("end_ns")
    index, slot, overlap = axis.spread(begin, end)
    weights = overlap * np.maximum(queue[index], 0)
    return sum_by(slot, weights, axis.slot_count) / axis.slot_ns


@dataclass(frozen=True)
class _Closed:
    """Accepted connections that began and ended between polls: one question each."""

    end: Integers
    received_age: Integers
    sent_age: Integers

    @staticmethod
    def read(aligned: Aligned, polled: set[tuple[str, str]]) -> _Closed:
        table = aligned.table("socket_closed")
        fresh = [
            role == "accepted" and (local, peer) not in polled
            for role, local, peer in zip(
                table.text("role"), table.text("local"), table.text("peer"), strict=True
            )
        ]
        table = table.where(np.array(fresh, dtype=bool))
        table = table.where(table.integers("data_segments_in") > 0)
        ages = [table.integers(name) for name in ("last_received_ms", "last_sent_ms")]
        return _Closed(table.integers("t_ns"), *(age * MILLISECOND_NS for age in ages))

    @property
    def count(self) -> int:
        return len(self.end)

    def in_flight(self, axis: Axis) -> Reals:
        begin = self.end - self.received_age
        return axis.sum_slots(begin, np.maximum(self.end - self.sent_age, begin)) / axis.slot_ns

    def arrivals(self, axis: Axis) -> Reals:
        begin = self.end - self.received_age
        return _spread_counts(axis, begin, begin + 1, np.ones(len(self.end)))


def _read_peers(
    aligned: Aligned, outgoing: Frame, readers: dict[int, list[tuple[int, int]]]
) -> tuple[Peer, ...]:
    sockets = aligned.table("sockets")
    columns = (sockets.integers("socket_index").tolist(), sockets.text("peer"))
    peer_of = dict(zip(*columns, strict=True))
    names = np.array([peer_of[index] for index in outgoing.integers("socket_index").tolist()])
    peers = []
    for name in sorted(set(names.tolist())):
        frame = outgoing.where(names == name).sorted_by("socket_index", "start_ns")
        rows = read_exchanges(frame, asked_by_peer=False)
        state, silent = _states(rows, _inodes(sockets), readers)
        if silent.all():
            continue
        per_question = message_lengths(rows).question
        socket = rows.socket
        waiting = state == PENDING
        polls = frame.integers("tick_count")
        grown = {
            metric: _grown(socket, frame.integers(metric))
            for metric in ("retransmits", "out_of_order", "rwnd_limited_us")
        }
        peers.append(
            Peer(
                name=name,
                pending=_mean(aligned.axis, rows, waiting),
                answer_count=float(answers_between(rows, per_question)[2].sum()),
                poll_count=int(polls[waiting].sum()),
                rtt_us=_median(frame.integers("rtt_us")),
                min_rtt_us=_median(frame.integers("min_rtt_us")),
                segment_count=_grown(socket, rows.asked) + _grown(socket, rows.answered),
                **grown,
            )
        )
    return tuple(peers)


def _median(values: Integers) -> float:
    known = values[values >= 0]
    return float(np.median(known)) if len(known) else -1.0
