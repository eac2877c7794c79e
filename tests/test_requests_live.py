"""Requests in flight and answers per second of whole recordings, against what both sides logged."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

import pytest
from exchange import CLIENT, SERVER, read_log
from msgspec import Struct
from msgspec.structs import replace

from perfkit.agent.record import RecordOptions, record
from perfkit.analysis.align import align
from perfkit.analysis.requests import read_requests
from perfkit.codec import decode

Spawn = Callable[..., "subprocess.Popen[str]"]
pytestmark = pytest.mark.system

LIGHT_IN_FLIGHT = 2.0


class Load(Struct, frozen=True):
    """A server and its clients; `per_second` 0 is a closed loop without think time."""

    kind: str
    service_s: float
    connections: int
    per_second: float
    answer_bytes: str = "100"
    parts: int = 1


class Outcome(Struct, frozen=True):
    """Means over the window: told by the analysis, logged by the server, logged by the client."""

    told: float
    server: float
    client: float
    told_rate: float
    client_rate: float
    undetermined_share: float


def _measure(spawn: Spawn, load: Load, seconds: float) -> Outcome:
    server = spawn(SERVER, load.kind, str(load.service_s), "200", load.answer_bytes)
    port = server.first_line  # type: ignore[attr-defined]
    numbers = (str(load.connections), str(load.per_second), "200", load.answer_bytes)
    client = spawn(CLIENT, port, *numbers, str(load.parts))
    time.sleep(0.4)
    capture = decode(record(RecordOptions(pid=server.pid, seconds=seconds, probe=False)))
    served, asked = read_log(server), read_log(client)

    requests = read_requests(align(capture))
    clock = capture.header.clock
    window = (clock.start_ns, clock.end_ns)
    inside = [1 for _, end in asked if window[0] <= end < window[1]]
    return Outcome(
        told=float(requests.in_flight.mean()),
        server=_mean(served, window),
        client=_mean(asked, window),
        told_rate=requests.answer_count / seconds,
        client_rate=len(inside) / seconds,
        undetermined_share=requests.undetermined_share,
    )


def _mean(log: list[tuple[int, int]], window: tuple[int, int]) -> float:
    held = sum(max(0, min(end, window[1]) - max(begin, window[0])) for begin, end in log)
    return held / (window[1] - window[0])


def _check(outcome: Outcome) -> None:
    """A request is in flight between the server's instants and the client's: 10 % around that."""
    assert 0.9 * outcome.server <= outcome.told <= 1.1 * outcome.client, outcome
    assert outcome.told_rate == pytest.approx(outcome.client_rate, rel=0.10), outcome


@pytest.mark.usefixtures("full_rate")
def test_a_recording_counts_requests_within_ten_percent(spawn: Spawn) -> None:
    """A loaded event loop: in flight and answers per second as both sides logged them.

    About 5 are in flight, and 160 looks know their mean to 3.5 % (one sigma).
    """
    _check(_measure(spawn, Load("asyncio", 0.05, 20, 100), 8.0))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["threads", "asyncio"])
@pytest.mark.parametrize(
    "load",
    [
        Load("", 0.02, 20, 60),
        Load("", 0.1, 40, 120),
        Load("", 0.02, 8, 0),
        Load("", 0.1, 8, 0),
        Load("", 0.02, 20, 60, answer_bytes="100000"),
        Load("", 0.02, 8, 0, answer_bytes="100000"),
        Load("", 0.02, 8, 0, answer_bytes="100+100000"),
        Load("", 0.02, 20, 60, parts=2),
        Load("", 0.02, 8, 0, parts=2),
    ],
    ids=str,
)
def test_recordings_count_requests_of_many_loads(spawn: Spawn, load: Load, kind: str) -> None:
    """Open and closed loop, one and several segments: in flight and rate within 10 %.

    Where about one is in flight it takes 30 s to know their mean to 4 % (one sigma).
    """
    is_light = 0 < load.per_second * load.service_s < LIGHT_IN_FLIGHT
    outcome = _measure(spawn, replace(load, kind=kind), 30.0 if is_light else 10.0)
    print(f"\n{kind} {load}: {outcome}")

    _check(outcome)
