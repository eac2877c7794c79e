"""Calls over connections of one question: to whom, how long, and who waited for them."""

from __future__ import annotations

from itertools import cycle

import pytest
from simulate import MS, Step, make_capture, make_table, simulate_rows

from perfkit.analysis.align import align
from perfkit.analysis.case import Case, build_case
from perfkit.analysis.requests import read_requests
from perfkit.analysis.states import UNKNOWN_PEER, State
from perfkit.model import Capture

START_NS = 1_000_000_000_000
SECONDS = 10.0
RECEIVE, POLL, NANOSLEEP = 45, 7, 35
COUNTERS = ("rtt_us", "min_rtt_us", "retransmits", "out_of_order", "rwnd_limited_us")
SLOW, QUICK = "10.0.0.1:80", "10.0.0.2:80"
Row = dict[str, int | str | float]


def closed(at_ms: float, peer: str, wait_ms: int, **more: int | str) -> Row:
    """One connection that ended `at_ms` into the window, just after its answer had come."""
    row: Row = {
        "t_ns": START_NS + int(at_ms * MS),
        "role": "outgoing",
        "peer": peer,
        "socket_index": -1,
        "inode": -1,
        "last_sent_ms": wait_ms,
        "last_received_ms": 0,
        "data_segments_out": 1,
        "data_segments_in": 1,
        **dict.fromkeys(COUNTERS, 0),
    }
    return row | more


def calls(slow_ms: int = 80, quick_ms: int = 20) -> list[Row]:
    """One thread's calls, in turn to the slow and the quick peer, with nothing between them."""
    rows, at_ms = [], 0.0
    for peer, wait_ms in cycle(((SLOW, slow_ms), (QUICK, quick_ms))):
        at_ms += wait_ms
        if at_ms > SECONDS * 1000:
            return rows
        rows.append(closed(at_ms, peer, wait_ms))
    return rows


def capture_of(steps: list[Step], rows: list[Row], kind: str = "socket") -> Capture:
    """A service of one thread that does `steps`, and connections that ended."""
    strings: list[str] = []
    threads = simulate_rows(steps, tid=100, start_ns=START_NS)
    fds: list[Row] = [{"pid": 100, "fd": 9, "kind": kind, "path": "", "inode": 0, "t_ns": START_NS}]
    members: list[Row] = [
        {"pid": 100, "tid": 100, "moved_ns": row["moved_ns"], "fd": 9, "inode": row["fd_inode"]}
        for row in threads
        if row["syscall"] == POLL
    ]
    tables = {
        "thread_runs": make_table("thread_runs", [{"pid": 100, **row} for row in threads], strings),
        "fds": make_table("fds", fds, strings),
    }
    if members:
        tables["poll_members"] = make_table("poll_members", members, strings)
    if rows:
        tables["socket_closed"] = make_table("socket_closed", rows, strings)
    return make_capture(tables, start_ns=START_NS, seconds=SECONDS, strings=tuple(strings))


def waits(syscall: int, wait_ms: int, *, is_lasting: bool = False) -> list[Step]:
    """Waits on descriptor 9, each time another socket, with a moment of work between them."""
    count = int(SECONDS * 1000 / wait_ms)
    steps = []
    for place in range(count):
        inode = 7 if is_lasting else 1000 + place
        steps.append(Step(syscall, wait_ms * MS - MS, 9, fd_inode=inode))
        steps.append(Step(-2, MS))
    return steps


def share(case: Case, culprit: str) -> float:
    """The share of the thread's busy time that went to waits for a peer."""
    return case.threads.share(State.PEER_WAIT, culprit)


def test_unknown_waits_go_to_the_peers_that_were_called_meanwhile() -> None:
    """Each peer gets its part, and hardly anything is left unknown."""
    case = build_case(capture_of(waits(RECEIVE, 50), calls()))

    assert share(case, SLOW) == pytest.approx(0.8, abs=0.05)
    assert share(case, QUICK) == pytest.approx(0.2, abs=0.05)
    assert share(case, UNKNOWN_PEER) < 0.06


def test_what_calls_do_not_explain_stays_unknown() -> None:
    """Where only the calls to one peer are told, no more than these is charged to it."""
    slow = [row for row in calls() if row["peer"] == SLOW]

    case = build_case(capture_of(waits(RECEIVE, 50), slow))

    assert share(case, SLOW) == pytest.approx(0.8, abs=0.05)
    assert share(case, UNKNOWN_PEER) == pytest.approx(0.2, abs=0.06)


def test_calls_of_others_to_the_same_peer_add_nothing() -> None:
    """Twice as many calls as the service can have made are charged to what it waited."""
    case = build_case(capture_of(waits(RECEIVE, 50), calls() * 2))

    assert share(case, SLOW) + share(case, QUICK) <= 1.0
    assert share(case, SLOW) == pytest.approx(0.8, abs=0.05)


@pytest.mark.parametrize(
    ("kind", "is_lasting", "expected"),
    [("socket", False, 1.0), ("pipe", False, 0.0), ("socket", True, 0.0)],
)
def test_poll_on_one_brief_socket_waits_for_a_peer(
    kind: str, is_lasting: bool, expected: float
) -> None:
    """A client with a time limit polls before it reads; on a pipe, or for ever, threads idle."""
    steps = waits(POLL, 50, is_lasting=is_lasting)

    case = build_case(capture_of(steps, [], kind))

    assert share(case, UNKNOWN_PEER) == pytest.approx(expected, abs=0.05)


def test_peers_are_compared_by_their_brief_calls() -> None:
    """Mean wait per answer, and how many there were, of each peer."""
    aligned = align(capture_of(waits(RECEIVE, 50), calls()))

    peers = {peer.name: peer for peer in read_requests(aligned).peers}

    found = {name: peer.wait_per_answer_ns(aligned.axis) / MS for name, peer in peers.items()}
    assert found == pytest.approx({SLOW: 80, QUICK: 20}, rel=0.02)
    assert [round(peer.answer_count) for peer in peers.values()] == [100, 100]


def test_call_without_an_answer_waited_until_its_end() -> None:
    """Nothing came back before the connection was given up."""
    rows = [closed(5000, SLOW, 2000, data_segments_in=0, last_received_ms=-1)]
    aligned = align(capture_of([Step(NANOSLEEP, int(SECONDS * 1e9))], rows))

    peer = read_requests(aligned).peers[0]

    assert peer.wait_per_answer_ns(aligned.axis) / MS == pytest.approx(2000)


def test_connection_of_many_questions_is_no_brief_call() -> None:
    """One that was kept open is told by its polls, not by its end."""
    rows = [closed(5000, SLOW, 50, data_segments_out=30, data_segments_in=30)]

    found = read_requests(align(capture_of([Step(NANOSLEEP, int(SECONDS * 1e9))], rows)))

    assert found.peers == ()
