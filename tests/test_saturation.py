"""Load and pools at their limit: scripted threads beside scripted connections."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from simulate import MS, RUNNING, WAIT_FOR_CPU, Step, make_capture, make_table, simulate_rows
from test_requests import Load, _events, _rows
from test_rules import read

from perfkit.analysis import analyse
from perfkit.analysis.case import build_case
from perfkit.analysis.saturation import cost_ratio, find_stages, read_queue, work_in_turn
from perfkit.analysis.states import State
from perfkit.findings import Finding, Rejection, Report
from perfkit.model import Capture, Table

# test_requests makes connections from this instant on.
START_NS = 1_000_000_000_000
SECONDS = 8.0
EPOLL, FUTEX, RECV, NANOSLEEP = 232, 202, 45, 35
WORD = 0x7F0000001000
WAYS, ASK = ("in", "out"), ("out", "in")
CROWD = Load(service_ms=60, think_ms=0, connections=6)


@dataclass
class World:
    """Tables in the making, with the strings that their text columns share."""

    strings: list[str] = field(default_factory=list)
    tables: dict[str, Table] = field(default_factory=dict)

    def add(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Adds a table of these rows."""
        self.tables[name] = make_table(name, rows, self.strings)

    def add_threads(self, *scripts: list[Step]) -> None:
        """One thread for each cycle, which it repeats for the whole window."""
        rows = []
        for number, cycle in enumerate(scripts):
            length_ns = sum(step.duration_ns for step in cycle)
            steps = cycle * int(SECONDS * 1e9 / length_ns)
            rows += simulate_rows(steps, tid=100 + number, start_ns=START_NS, seed=number)
        self.add("thread_runs", rows)
        plain = {"nice": 0, "policy": 0, "cpus_allowed": "0-1"}
        threads = [{"pid": 100, "tid": 100 + number} | plain for number in range(len(scripts))]
        self.add("threads", [thread | {"name": "serve"} for thread in threads])

    def add_requests(self, load: Load) -> None:
        """The connections of a load."""
        rows: list[dict[str, Any]] = []
        sockets = []
        for index in range(load.connections):
            rows += _rows(index, _events(load, SECONDS, seed=index), SECONDS)
            ends = {"local": "127.0.0.1:80", "peer": f"127.0.0.1:{2000 + index}"}
            sockets.append(
                {"socket_index": index, "inode": 1000 + index, "role": "accepted"} | ends
            )
        self.add("socket_runs", rows)
        self.add("sockets", sockets)

    def capture(self) -> Capture:
        """The capture of this world."""
        strings = tuple(self.strings)
        return make_capture(self.tables, start_ns=START_NS, seconds=SECONDS, strings=strings)

    def report(self) -> Report:
        """The report on it."""
        return analyse(self.capture())


def world(load: Load, *scripts: list[Step]) -> World:
    """A service with these threads and this load."""
    made = World()
    made.add_threads(*scripts)
    made.add_requests(load)
    return made


def find(report: Report, cause: str) -> Finding | Rejection:
    """What the report says of a cause: found, or ruled out."""
    said: list[Finding | Rejection] = [*report.causes, *report.ruled_out]
    return next(one for one in said if one.id == cause)


BUSY = [Step(RUNNING, 95 * MS), Step(EPOLL, 2 * MS)]


def test_thread_that_never_pauses_while_requests_wait_is_saturation() -> None:
    """A loop that computes all the time, with six requests at it, has more load than it can do."""
    report = world(CROWD, BUSY).report()

    assert [cause.id for cause in report.causes] == ["load_saturation"]
    assert "thread 100 (serve)" in report.causes[0].title
    assert report.causes[0].share == pytest.approx(5 / 6, abs=0.08)


@pytest.mark.parametrize("busy_ms", [20, 40, 60])
def test_more_load_well_within_limits_is_silent(busy_ms: int) -> None:
    """Twice and three times the load is no cause while the thread still pauses."""
    load = Load(service_ms=busy_ms / 4, think_ms=200, connections=busy_ms // 4)
    thread = [Step(RUNNING, busy_ms * MS), Step(EPOLL, (100 - busy_ms) * MS)]

    report = world(load, thread).report()

    assert (report.verdict.state, report.causes) == ("healthy", ())
    assert isinstance(find(report, "load_saturation"), Rejection)


def test_busy_thread_without_a_queue_is_silent() -> None:
    """A thread that always computes for its one client is slow work, not too much of it."""
    report = world(Load(service_ms=60, think_ms=0, connections=1), BUSY).report()

    said = find(report, "load_saturation")
    assert isinstance(said, Rejection)
    assert "wait for each other" in said.metric


def test_requests_that_wait_behind_nothing_are_not_saturation() -> None:
    """Where no part of the service is at its limit, a queue has another reason."""
    idle = [Step(RUNNING, 30 * MS), Step(EPOLL, 70 * MS)]

    said = find(world(CROWD, idle).report(), "load_saturation")

    assert isinstance(said, Rejection)
    assert said.observed < said.limit


def test_waits_for_a_cpu_that_others_hold_rule_saturation_out() -> None:
    """A thread that others keep from running is not at its limit by itself."""
    made = world(CROWD, [Step(RUNNING, 30 * MS), Step(WAIT_FOR_CPU, 65 * MS), Step(EPOLL, 2 * MS)])
    made.add(
        "owners",
        [
            {"t_ns": START_NS + second * 10**9, "interval_ns": 10**9, "run_ns": 10**9}
            | {"pid": 900, "name": "job", "cgroup": "/job", "nice": 0, "policy": 0}
            | {"cpus_allowed": "0-1", "role": "other", "parent_pid": 1, "relation": ""}
            | {"weight": -1, "target_weight": -1}
            for second in range(1, int(SECONDS) + 1)
        ],
    )

    report = made.report()

    assert report.causes[0].id == "cpu_contention_neighbour"
    said = find(report, "load_saturation")
    assert isinstance(said, Rejection)
    assert "that others hold" in said.metric


def in_turn(mine: int) -> list[Step]:
    """A thread of two that work one at a time, and wait on one word for their next turn."""
    work, wait = Step(RUNNING, 40 * MS), Step(FUTEX, 40 * MS, arg0=WORD)
    lead = [Step(FUTEX, 1 * MS, arg0=WORD)]
    return [*lead, *([work, wait] if mine == 0 else [wait, work])]


def test_pool_with_one_job_at_a_time_is_a_stage_and_no_lock() -> None:
    """Two threads that only work in turn share no lock: their step is at its limit."""
    made = world(CROWD, in_turn(0), in_turn(1))

    case = build_case(made.capture())

    assert case.share(State.LOCK_WAIT).value == 0
    assert find_stages(case)[0].words == "a step that 2 threads run in turn"
    assert made.report().causes[0].id == "load_saturation"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("blur", "is_in_turn"), [(0.0, True), (0.1, True), (1.0, False)])
def test_step_in_turn_is_told_through_blurred_samples(
    seed: int, blur: float, is_in_turn: bool
) -> None:
    """What late samples book to two threads at once is little beside what chance would."""
    chance = np.random.default_rng(seed)
    first = chance.random(200)
    at_will = chance.random(200)
    second = np.where(chance.random(200) < blur, at_will, 1.0 - first)

    assert work_in_turn([first, second]) == is_in_turn


def test_connections_that_nobody_accepts_are_part_of_the_queue() -> None:
    """What waits in the listener's queue waits for the service as well."""
    made = world(Load(service_ms=60, think_ms=0, connections=1), BUSY)
    alone = read_queue(build_case(made.capture()))
    rows = [_listener(START_NS + number * 50 * MS) for number in range(int(SECONDS * 20))]
    load = Load(service_ms=60, think_ms=0, connections=1)
    events = _rows(0, _events(load, SECONDS, seed=0), SECONDS)
    made.add("socket_runs", [*events, *rows])
    ends = {"local": "127.0.0.1:80", "peer": ""}
    made.add(
        "sockets",
        [
            {"socket_index": 0, "inode": 1000, "role": "accepted"} | ends,
            {"socket_index": 1, "inode": 1001, "role": "listener"} | ends,
        ],
    )

    queue = read_queue(build_case(made.capture()))

    assert alone is not None
    assert queue is not None
    assert (alone.is_steady, queue.is_steady) == (False, True)
    assert queue.waiting_mean - alone.waiting_mean == pytest.approx(3.0, rel=0.05)


def _listener(t_ns: int) -> dict[str, Any]:
    """A listener with three connections that wait to be accepted."""
    row: dict[str, Any] = dict.fromkeys(_rows(0, [], 0.1)[0], 0)
    return row | {
        "socket_index": 1,
        "start_ns": t_ns,
        "end_ns": t_ns + 50 * MS,
        "tick_count": 1,
        "state": 10,
        "receive_queue_bytes": 3,
    }


def dearer(service_ms: float) -> World:
    """In the second half of the window each request takes `service_ms` of one thread, not 10."""
    made = World()
    half_ms = SECONDS * 500
    rows: list[dict[str, Any]] = []
    for index in range(6):
        first = np.arange(index, half_ms, 60.0).tolist()
        second = np.arange(half_ms + index, 2 * half_ms, max(60.0, service_ms)).tolist()
        asked = [(at_ms, at_ms + 10) for at_ms in first]
        asked += [(at_ms, at_ms + service_ms - 1) for at_ms in second]
        events = [(at_ms, way, 1) for pair in asked for at_ms, way in zip(pair, WAYS, strict=True)]
        rows += _rows(index, events, SECONDS)
    quick = [Step(RUNNING, 10 * MS), Step(EPOLL, 90 * MS)]
    steps = quick * int(half_ms / 100) + BUSY * int(half_ms / 97)
    made.add("thread_runs", simulate_rows(steps, tid=100, start_ns=START_NS))
    made.add("threads", [{"pid": 100, "tid": 100, "name": "serve", "cpus_allowed": "0-1"}])
    ends = {"role": "accepted", "local": "127.0.0.1:80", "peer": ""}
    made.add("sockets", [{"socket_index": n, "inode": 1000 + n} | ends for n in range(6)])
    made.add("socket_runs", rows)
    return made


def test_requests_that_cost_more_than_before_are_told_from_load() -> None:
    """CPU per request is held against the quick half of the window."""
    grown = cost_ratio(build_case(dearer(60.0).capture()))
    even = cost_ratio(build_case(world(CROWD, BUSY).capture()))

    assert grown > 4.0
    assert even == pytest.approx(1.0, abs=0.2)


LONG = Load(service_ms=400, think_ms=0, connections=8)
SLEEP, FREE = Step(NANOSLEEP, 180 * MS), Step(FUTEX, 14 * MS, arg0=WORD)
KEPT = [SLEEP, FREE, Step(RUNNING, 6 * MS)]


def test_pool_whose_workers_all_wait_is_exhausted() -> None:
    """Four workers that sleep with eight requests at hand are too few, and it says what they do."""
    report = world(LONG, KEPT, KEPT, KEPT, KEPT).report()

    assert [cause.id for cause in report.causes] == ["thread_pool_exhausted"]
    assert report.causes[0].title.startswith("All 4 workers are busy, in a timed wait for ")
    parts = {one.metric: one.observed for one in report.causes[0].evidence}
    assert parts["part of their time: in a timed wait"] == pytest.approx(0.9, abs=0.005)
    assert report.causes[0].share == pytest.approx(0.5, abs=0.05)


def test_worker_that_is_never_free_counts_as_one() -> None:
    """A worker that never comes back to its queue in the window is known by what it does."""
    report = world(LONG, KEPT, KEPT, KEPT, [Step(NANOSLEEP, 3900 * MS)]).report()

    assert report.causes[0].id == "thread_pool_exhausted"
    assert "All 4 workers" in report.causes[0].title


def test_workers_that_pause_for_want_of_descriptors_are_a_consequence() -> None:
    """With no descriptor left, what keeps the workers has a cause of its own."""
    made = world(LONG, KEPT, KEPT, KEPT, KEPT)
    use = {"pid": 100, "open_count": 100, "soft_limit": 100}
    made.add("descriptors", [{"t_ns": START_NS} | use])

    report = made.report()

    said = find(report, "thread_pool_exhausted")
    assert report.causes[0].id == "fd_exhausted"
    assert isinstance(said, Rejection)
    assert "no descriptor left" in said.metric


def test_pool_with_free_workers_is_silent() -> None:
    """As many requests in flight as workers is a pool that is large enough."""
    few = Load(service_ms=400, think_ms=400, connections=3)
    half = [Step(NANOSLEEP, 300 * MS), Step(FUTEX, 300 * MS, arg0=WORD), Step(RUNNING, 4 * MS)]

    report = world(few, half, half, half, half).report()

    assert report.causes == ()
    assert isinstance(find(report, "thread_pool_exhausted"), Rejection)


def test_workers_that_compute_are_not_too_few() -> None:
    """Where the workers need the CPU more of them would not help."""
    computing = [Step(RUNNING, 95 * MS), Step(FUTEX, 2 * MS, arg0=WORD)]

    said = find(world(LONG, computing, computing).report(), "thread_pool_exhausted")

    assert isinstance(said, Rejection)
    assert said.why == "more workers would not help: the CPU is what they need"


def asking(made: World, slow_ms: float) -> None:
    """Adds three workers' connections to two peers: one answers in `slow_ms`, one in 10 ms."""
    rows, sockets = [], []
    for index, peer in enumerate(["10.0.0.1:80"] * 3 + ["10.0.0.2:80"] * 3, start=20):
        lag, took = (0.0, slow_ms) if index < 23 else (slow_ms, 10.0)
        starts = np.arange(index, SECONDS * 1000 - 400, slow_ms + 10).tolist()
        asked = [(at_ms + lag, at_ms + lag + took) for at_ms in starts]
        events = [(at_ms, way, 1) for pair in asked for at_ms, way in zip(pair, ASK, strict=True)]
        rows += _rows(index, events, SECONDS)
        ends = {"role": "outgoing", "local": "127.0.0.1:9", "peer": peer}
        sockets.append({"socket_index": index, "inode": 1000 + index} | ends)
    for index in range(LONG.connections):
        rows += _rows(index, _events(LONG, SECONDS, seed=index), SECONDS)
        ends = {"role": "accepted", "local": "127.0.0.1:80", "peer": ""}
        sockets.append({"socket_index": index, "inode": 1000 + index} | ends)
    made.add("socket_runs", rows)
    made.add("sockets", sockets)


def test_workers_kept_by_one_slow_peer_are_its_consequence() -> None:
    """A slow peer that keeps all workers is the cause; that no worker is free follows from it."""
    made = World()
    peer = [Step(RECV, 180 * MS, arg0=9, fd_inode=1020 + number) for number in range(3)]
    made.add_threads(*([wait, FREE, Step(RUNNING, 6 * MS)] for wait in peer))
    asking(made, 180.0)

    report = made.report()

    assert [cause.id for cause in report.causes] == ["downstream_slow"]
    said = find(report, "thread_pool_exhausted")
    assert isinstance(said, Rejection)
    assert "waiting for 10.0.0.1:80, which is slow" in said.metric


@pytest.mark.parametrize("front", ["threads", "asyncio"])
def test_share_of_saturation_is_most_of_the_time(front: str) -> None:
    """On a real run far beyond capacity requests spend most of their time behind others."""
    found = analyse(read(f"load_saturation.fires.{front}")).causes[0]

    assert found.id == "load_saturation"
    assert found.share_low > 0.5
