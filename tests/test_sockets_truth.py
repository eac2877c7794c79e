"""Requests in flight, told from the sockets alone, against what real servers and clients logged."""

from __future__ import annotations

import subprocess
import time
from array import array
from collections.abc import Callable

import pytest
from exchange import (
    BUSY,
    CLIENT,
    IDLE,
    SERVER,
    TIED,
    Poll,
    decide,
    decide_strictly,
    decide_usual_tie,
    mean_in_flight,
    read_log,
    read_polls,
    segments_per_message,
)
from msgspec import Struct
from msgspec.structs import replace

from perfkit import _native
from perfkit.collectors._proc import list_descriptors
from perfkit.collectors.sockets import to_socket_inodes
from perfkit.host import Host
from perfkit.model import Rows

ACCEPTED = 2
Spawn = Callable[..., "subprocess.Popen[str]"]


class Load(Struct, frozen=True):
    """A server and its clients; `per_second` 0 is a closed loop without think time."""

    kind: str
    service_s: float
    connections: int
    per_second: float
    request_bytes: int = 100
    answer_bytes: str = "100"  # sizes in turn, "+" between
    parts: int = 1  # segments that a request is sent in


class Outcome(Struct, frozen=True):
    """Mean requests in flight: as told from the sockets, as the server and the client logged."""

    told: float
    undetermined: float
    server: float
    client: float


def measure(spawn: Spawn, load: Load, seconds: float) -> Outcome:
    """Samples a loaded server, then asks both sides for the truth at the instants of the polls."""
    size = str(load.request_bytes)
    server = spawn(SERVER, load.kind, str(load.service_s), size, load.answer_bytes)
    port, rate = server.first_line, str(load.per_second)  # type: ignore[attr-defined]
    numbers = (str(load.connections), rate, size, load.answer_bytes, str(load.parts))
    client = spawn(CLIENT, port, *numbers)
    time.sleep(0.4)
    sampler = _native.SocketSampler(None, budget_ratio=0.05)
    sampler.set_inodes(array("q", to_socket_inodes(list_descriptors(Host(), server.pid))).tobytes())
    time.sleep(seconds)
    sampler.stop()
    logs = read_log(server), read_log(client)

    runs, _, polls, (identities, _, _) = sampler.take()
    instants = array("q", polls[0][0]).tolist()[2:]  # by the third poll all are known
    index, role = (array("q", identities[0][place]) for place in (0, 3))
    accepted = {i for i, r in zip(index, role, strict=True) if r == ACCEPTED}
    rows = [row for row in read_polls([Rows("socket_runs", *runs)]) if row.socket in accepted]
    ticks = dict.fromkeys((BUSY, IDLE, TIED), 0)
    for row, verdict in zip(rows, decide(rows), strict=True):
        ticks[verdict] += sum(row.start_ns <= t <= row.end_ns for t in instants)
    means = (mean_in_flight(log, instants) for log in logs)
    return Outcome(ticks[BUSY] / len(instants), ticks[TIED] / len(instants), *means)


def check(outcome: Outcome) -> None:
    """A request is in flight between the server's instants and the client's: 10 % around that."""
    assert 0.9 * outcome.server <= outcome.told + outcome.undetermined
    assert outcome.told <= 1.1 * outcome.client


@pytest.mark.system
@pytest.mark.parametrize(
    "load",
    [
        Load("threads", 0.02, 8, 0),
        Load("asyncio", 0.02, 8, 0),
        Load("asyncio", 0.1, 40, 120),
        Load("threads", 0.02, 8, 0, answer_bytes="100+100000"),
    ],
    ids=str,
)
def test_requests_in_flight_are_told_within_ten_percent(spawn: Spawn, load: Load) -> None:
    """Sockets tell requests in flight as the server and the client saw them."""
    outcome = measure(spawn, load, 2.0)

    check(outcome)


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.parametrize("kind", ["threads", "asyncio"])
@pytest.mark.parametrize(
    "load",
    [
        Load("", 0.02, 20, 60),
        Load("", 0.1, 40, 120),
        Load("", 0.02, 8, 0),
        Load("", 0.002, 4, 0),
        Load("", 0.02, 20, 60, answer_bytes="100000"),
        Load("", 0.02, 8, 0, answer_bytes="100000"),
        Load("", 0.02, 20, 60, answer_bytes="100+100000"),
        Load("", 0.02, 8, 0, answer_bytes="100+100000"),
        Load("", 0.02, 20, 60, request_bytes=200, parts=2),
        Load("", 0.02, 8, 0, request_bytes=200, parts=2),
        Load("", 0.002, 4, 0, request_bytes=200, parts=2),
    ],
    ids=str,
)
def test_requests_in_flight_hold_on_many_loads(spawn: Spawn, load: Load, kind: str) -> None:
    """Open and closed loop, one and several segments, fast and slow answers: within 10 %."""
    outcome = measure(spawn, replace(load, kind=kind), 10.0)
    print(f"\n{kind} {load}: {outcome}")

    check(outcome)


def to_poll(sent_ms: int, received_ms: int, **more: int) -> Poll:
    """A row with these ages, one segment each way."""
    values = {"ack_ms": received_ms, "segments_out": 1, "segments_in": 1} | more
    names = ("socket", "start_ns", "end_ns", "unread", "unacked")
    values = dict.fromkeys(names, 0) | values
    return Poll(tick_count=1, sent_ms=sent_ms, received_ms=received_ms, **values)


@pytest.mark.parametrize(
    ("poll", "verdict"),
    [
        (to_poll(8, 4), BUSY),
        (to_poll(4, 8), IDLE),
        (to_poll(4, 8, unread=1), BUSY),
        (to_poll(4, 4), TIED),
        (to_poll(4, 4, unacked=1), IDLE),
        (to_poll(8, 8, ack_ms=4), IDLE),
        (to_poll(8, 8, segments_in=0, segments_out=0), IDLE),
        (to_poll(8, 8, segments_out=0), BUSY),
    ],
)
def test_one_row_tells_who_spoke_last(poll: Poll, verdict: int) -> None:
    """Unread bytes, ages, an unacked answer and a younger acknowledgement decide, in this order."""
    assert decide_strictly(poll) == verdict


@pytest.mark.parametrize(
    ("near_misses", "verdict"),
    [
        ([(8, 4)] * 3 + [(4, 24)], BUSY),
        ([(4, 8)] * 3 + [(90, 4)], IDLE),
        ([(8, 4)] * 3 + [(4, 8)], TIED),
        ([(8, 4)] * 2 + [(4, 24)], TIED),
        ([], TIED),
    ],
)
def test_near_misses_tell_what_ties_are(near_misses: list[tuple[int, int]], verdict: int) -> None:
    """Ties are of the kind that also occurs one jiffy apart, if it clearly outnumbers the other."""
    assert decide_usual_tie([to_poll(*ages) for ages in near_misses]) == verdict


def test_messages_are_measured_in_the_shorter_ones_segments() -> None:
    """Three segments out for each one in: a question counts 1, an answer 3."""
    polls = [to_poll(4, 4, segments_in=n, segments_out=3 * n) for n in (1, 3, 8)]

    assert segments_per_message(polls) == (1.0, 3.0)


def test_ties_are_counted_from_the_nearest_clear_row() -> None:
    """Without a usual kind, a question more than answers since a clear row is a request."""
    polls = [
        to_poll(4, 24, segments_in=5, segments_out=5),
        to_poll(4, 4, segments_in=9, segments_out=8),
        to_poll(4, 4, segments_in=10, segments_out=10),
    ]

    assert decide(polls) == [IDLE, BUSY, IDLE]
