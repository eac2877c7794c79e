"""Requests in flight from socket ages and counts, against simulated connections."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from msgspec.structs import replace
from simulate import MS, make_capture, make_table

from perfkit.analysis.align import align
from perfkit.analysis.requests import Requests, read_requests
from perfkit.model import Capture, Table

START_NS = 1_000_000_000_000
JIFFY_MS = 4
POLL_NS = 50 * MS
FIN_WAIT2 = 5


@dataclass(frozen=True)
class Load:
    """How a simulated client asks: times in ms, exponential think time (0 = none), segments."""

    service_ms: float
    think_ms: float
    request_segments: int = 1
    answer_segments: tuple[int, int] = (1, 1)
    connections: int = 20


def _events(load: Load, seconds: float, seed: int) -> list[tuple[float, str, int]]:
    """(time in ms, "in" or "out", segments) of one connection."""
    chance = random.Random(seed)
    events = []
    time_ms = chance.uniform(0, load.service_ms + load.think_ms)
    while time_ms < seconds * 1000:
        events.append((time_ms, "in", load.request_segments))
        time_ms += load.service_ms * chance.uniform(0.6, 1.4)
        events.append((time_ms, "out", chance.randint(*load.answer_segments)))
        time_ms += chance.expovariate(1 / load.think_ms) if load.think_ms else 0.2
    return events


def _rows(
    index: int, events: list[tuple[float, str, int]], seconds: float
) -> list[dict[str, int | str]]:
    """What the sampler records of one connection: a row per change, ages in whole jiffies."""
    rows: list[dict[str, int | str]] = []
    chance = random.Random(index)
    position, counts, last_ms = 0, {"in": 0, "out": 0}, {"in": 0.0, "out": 0.0}
    time_ns = int(chance.uniform(0, POLL_NS))
    while time_ns < seconds * 1e9:
        now_ms = time_ns / MS
        while position < len(events) and events[position][0] <= now_ms:
            at_ms, way, segments = events[position]
            counts[way] += segments
            last_ms[way] = at_ms
            position += 1
        row = _row(index, START_NS + time_ns, counts, now_ms, last_ms)
        if rows and all(
            rows[-1][key] == row[key] for key in ("data_segments_in", "data_segments_out")
        ):
            rows[-1]["end_ns"] = row["end_ns"]
        else:
            rows.append(row)
        time_ns += int(POLL_NS * chance.uniform(0.9, 1.1))
    return rows


def _row(
    index: int, t_ns: int, counts: dict[str, int], now_ms: float, last_ms: dict[str, float]
) -> dict[str, int | str]:
    ages = {
        way: JIFFY_MS * (int(now_ms // JIFFY_MS) - int(at // JIFFY_MS))
        for way, at in last_ms.items()
    }
    return {
        "socket_index": index,
        "start_ns": t_ns,
        "end_ns": t_ns,
        "tick_count": 1,
        "state": 1,
        "receive_queue_bytes": 0,
        "data_segments_in": counts["in"],
        "data_segments_out": counts["out"],
        "last_received_ms": ages["in"],
        "last_sent_ms": ages["out"],
    }


def _capture(load: Load, seconds: float) -> tuple[Capture, float, float]:
    """A capture of the load, the true mean of requests in flight, and the answers per second."""
    rows, sockets, held_ms, answers = [], [], 0.0, 0
    for index in range(load.connections):
        events = _events(load, seconds, seed=index)
        rows += _rows(index, events, seconds)
        sockets.append(
            {"socket_index": index, "inode": 1000 + index, "local": "127.0.0.1:80"}
            | {"peer": f"127.0.0.1:{2000 + index}", "role": "accepted"}
        )
        for (begin, _, _), (end, _, _) in zip(events[::2], events[1::2], strict=False):
            held_ms += min(end, seconds * 1000) - begin
            answers += end < seconds * 1000
    strings: list[str] = []
    tables = {
        "socket_runs": make_table("socket_runs", rows, strings),
        "sockets": make_table("sockets", sockets, strings),
    }
    capture = make_capture(tables, start_ns=START_NS, seconds=seconds, strings=tuple(strings))
    return capture, held_ms / (seconds * 1000), answers / seconds


def _count(capture: Capture) -> Requests:
    return read_requests(align(capture))


LOADS = {
    "open loop, fast": Load(service_ms=5, think_ms=300),
    "open loop, 20 ms": Load(service_ms=20, think_ms=200),
    "open loop, 100 ms": Load(service_ms=100, think_ms=400),
    "closed loop, 20 ms": Load(service_ms=20, think_ms=0, connections=8),
    "closed loop, 5 ms": Load(service_ms=5, think_ms=0, connections=8),
    "two segments a request": Load(service_ms=20, think_ms=100, request_segments=2),
    "answers of 3 segments": Load(service_ms=20, think_ms=100, answer_segments=(3, 3)),
    "answers of 2 to 6 segments": Load(service_ms=20, think_ms=100, answer_segments=(2, 6)),
    "closed loop, 2 to 6 segments": Load(
        service_ms=20, think_ms=0, answer_segments=(2, 6), connections=8
    ),
}


@pytest.mark.parametrize("name", LOADS)
def test_requests_in_flight_are_within_ten_percent(name: str) -> None:
    """Requests in flight and answers per second match the truth of each load within 10 %."""
    capture, in_flight, rate = _capture(LOADS[name], 10.0)

    requests = _count(capture)

    assert requests.in_flight.mean() == pytest.approx(in_flight, rel=0.10, abs=0.05)
    assert requests.answer_count / 10 == pytest.approx(rate, rel=0.10)


def test_connection_that_the_service_closed_holds_no_request() -> None:
    """A keep-alive that the service ended, and the client did not, waits for nobody's answer."""
    load = LOADS["open loop, 20 ms"]
    capture, in_flight, _ = _capture(load, 10.0)
    unknown = dict.fromkeys(
        ("data_segments_in", "data_segments_out", "last_received_ms", "last_sent_ms"), -1
    )
    strings = list(capture.strings)
    closed = {"socket_index": 99, "start_ns": START_NS, "end_ns": START_NS + 10**10} | unknown
    closed |= {"state": FIN_WAIT2, "tick_count": 200, "receive_queue_bytes": 0}
    rows = make_table("socket_runs", [closed], strings)
    socket = {"socket_index": 99, "inode": 0, "local": "127.0.0.1:80", "peer": "127.0.0.1:9"}
    sockets = make_table("sockets", [socket | {"role": "accepted"}], strings)
    tables = capture.tables | {
        "socket_runs": _join(capture.tables["socket_runs"], rows),
        "sockets": _join(capture.tables["sockets"], sockets),
    }

    requests = _count(replace(capture, tables=tables, strings=tuple(strings)))

    assert requests.in_flight.mean() == pytest.approx(in_flight, rel=0.10, abs=0.05)


def _join(first: Table, second: Table) -> Table:
    packed = tuple(a + b for a, b in zip(first.packed, second.packed, strict=True))
    return replace(first, packed=packed, row_count=first.row_count + second.row_count)
