"""Who held the CPUs while the service waited: scripted threads beside scripted others."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace
from simulate import MS, RUNNING, WAIT_FOR_CPU, Step, make_capture, make_table, simulate_rows

from perfkit.analysis import analyse
from perfkit.analysis.align import Axis
from perfkit.analysis.case import Case, build_case
from perfkit.analysis.compare import fast_wait_ns
from perfkit.analysis.contention import OWN_THREADS, parse_cpus
from perfkit.analysis.requests import Peer
from perfkit.analysis.states import State
from perfkit.findings import Rejection, Report
from perfkit.model import Capture

START_NS = 1_000_000_000
SECONDS = 8.0
RECV = 45
DEFAULTS: dict[str, int | str] = {
    "name": "job",
    "cgroup": "/job",
    "nice": 0,
    "policy": 0,
    "cpus_allowed": "0-1",
    "role": "other",
    "parent_pid": 1,
    "relation": "",
    "weight": -1,
    "target_weight": -1,
}
Owner = dict[str, int | str]


def capture_of(*owners: Owner, run_ms: int = 2, wait_ms: int = 6) -> Capture:
    """A thread that waits for a CPU for most of its time, beside others that run all the time."""
    cycle = [
        Step(WAIT_FOR_CPU, wait_ms * MS),
        Step(RUNNING, run_ms * MS),
        Step(RECV, 2 * MS, arg0=5),
    ]
    steps = cycle * int(SECONDS * 1e9 / sum(step.duration_ns for step in cycle))
    strings: list[str] = []
    rows = [row for tid in (1, 2) for row in simulate_rows(steps, tid=tid, start_ns=START_NS)]
    times = [START_NS + second * 1_000_000_000 for second in range(1, int(SECONDS) + 1)]
    held = [
        {"t_ns": t_ns, "interval_ns": 1_000_000_000, "run_ns": 900_000_000} | DEFAULTS | owner
        for t_ns in times
        for owner in owners
    ]
    threads: list[Owner] = [
        {"pid": 100, "tid": tid, "name": "serve", "nice": 0, "policy": 0, "cpus_allowed": "0-1"}
        for tid in (1, 2)
    ]
    tables = {
        "thread_runs": make_table("thread_runs", rows, strings),
        "owners": make_table("owners", held, strings),
        "threads": make_table("threads", threads, strings),
    }
    return make_capture(tables, start_ns=START_NS, seconds=SECONDS, strings=tuple(strings))


def first_of(report: Report) -> tuple[str, str]:
    """The first cause and the culprit's name."""
    return (report.causes[0].id, report.causes[0].culprit.name) if report.causes else ("", "")


@pytest.mark.parametrize(
    ("owners", "expected"),
    [
        ([{"pid": 7}], ("cpu_contention_neighbour", "/job: job (7)")),
        ([{"pid": 7, "cgroup": "/"}], ("cpu_contention_neighbour", "job (7)")),
        ([{"pid": 7, "weight": 1024, "target_weight": 128}], ("cpu_weight_low", "/job: job (7)")),
        ([{"pid": 7, "nice": -5}], ("cpu_priority_low", "/job: job (7)")),
        ([{"pid": 7, "policy": 1}], ("cpu_priority_low", "/job: job (7)")),
        ([{"pid": 7, "cgroup": "/app", "role": "sibling"}], ("sibling_cpu", "job (7)")),
        ([{"pid": 7 + i, "cgroup": f"/job{i}"} for i in range(3)], ("host_cpu_saturated", "")),
        ([{"pid": 7, "relation": "client"}], ("", "")),
        ([{"pid": 7, "relation": "peer", "role": "sibling", "cgroup": "/app"}], ("", "")),
    ],
)
def test_cause_follows_from_who_ran(owners: list[Owner], expected: tuple[str, str]) -> None:
    """The same waits are another cause for another culprit; clients and peers are none."""
    assert first_of(analyse(capture_of(*owners))) == expected


def test_waits_are_shared_by_cpu_time() -> None:
    """Two that ran 3 to 1 are charged 3 to 1, and no time is lost or made."""
    big: Owner = {"pid": 7, "cgroup": "/a", "run_ns": 900_000_000}
    small: Owner = {"pid": 8, "cgroup": "/b", "run_ns": 300_000_000}
    case = build_case(capture_of(big, small))
    charged = case.ledger.by_culprit(State.RUNNABLE)

    assert charged["/a: job (7)"] / charged["/b: job (8)"] == pytest.approx(3.0, rel=0.01)
    assert alive_s(case) == pytest.approx(2 * SECONDS, rel=0.02)


def alive_s(case: Case) -> float:
    """All time booked for all threads."""
    return float(case.timeline.ns.sum()) / 1e9


def test_own_threads_are_charged_for_what_they_ran() -> None:
    """Each of two serving threads is in the other's way, never in its own."""
    case = build_case(capture_of({"pid": 7, "run_ns": 200_000_000}))
    charged = case.ledger.by_culprit(State.RUNNABLE)

    assert charged[OWN_THREADS] == pytest.approx(charged["/job: job (7)"], rel=0.1)


def test_owner_on_other_cpus_is_not_charged() -> None:
    """Who may not use the service's CPUs does not stand in its way."""
    case = build_case(capture_of({"pid": 7, "cpus_allowed": "2-3"}, {"pid": 8, "cgroup": "/b"}))

    assert set(case.ledger.by_culprit(State.RUNNABLE)) == {"/b: job (8)", OWN_THREADS}


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("0-3,8", {0, 1, 2, 3, 8}), ("", set()), ("x,1-", {1}), ("9999999", set()), ("5-2", set())],
)
def test_cpu_lists_are_read(text: str, cpus: set[int]) -> None:
    """Lists as the kernel prints them; what is no number is left out."""
    assert parse_cpus(text) == cpus


def peer_of(waits_ms: list[float]) -> Peer:
    """A peer that is asked 20 times a second, with these waits, second by second."""
    pending = np.repeat([20 * wait / 1e3 for wait in waits_ms], 20)
    answers = np.ones(len(pending))
    polls = round(pending.sum())
    return Peer("p", pending, len(answers), polls, 1, 1, 0, 0, 0, 1, answers)


@pytest.mark.parametrize(
    ("waits_ms", "expected_ms"),
    [
        ([2, 2, 2, 2, 20, 20, 20, 20, 20, 20], 2),
        ([20, 20, 20, 20, 20, 2, 2, 2], 2),
        ([2, 3, 2, 3, 2, 3, 2, 3], None),
        ([2, 20, 2, 20, 2, 20, 2, 20], None),
        ([0.01, 0.01, 0.01, 0.1, 0.1, 0.1], None),
        ([2, 2, 20, 20], None),
        ([4, 6, 4, 5, 3, 5, 4, 6, 0, 0.5], None),
        ([0, 0, 1.8, 7.25, 4, 5, 3.3, 6.9, 1.2, 1.5], None),
    ],
)
def test_peers_past_is_its_fast_part(waits_ms: list[float], expected_ms: float | None) -> None:
    """A peer that became slow in the window is held against what it was before."""
    axis = Axis(0, len(waits_ms) * 1_000_000_000)

    past_ns = fast_wait_ns(peer_of(waits_ms), axis)

    assert (past_ns and past_ns / 1e6) == (expected_ms and pytest.approx(expected_ms))


def ruled_out(report: Report, cause: str) -> Rejection:
    """What rules a cause out."""
    return next(one for one in report.ruled_out if one.id == cause)


@pytest.mark.parametrize(
    ("cause", "metric"),
    [
        ("cpu_affinity", "CPUs that it may not use"),
        ("cpu_weight_low", "CPU weight of the cgroup of /job: job (7), of the service's"),
        ("cpu_priority_low", "steps by which the service is nicer than /job: job (7)"),
        ("host_cpu_saturated", "CPU time of others that is not /job: job (7)'s"),
    ],
)
def test_likes_of_a_neighbour_are_ruled_out_by_what_sets_them_apart(
    cause: str, metric: str
) -> None:
    """They share the waits for a CPU, so it is the mask, the weight, the priority, the number."""
    said = ruled_out(analyse(capture_of({"pid": 7})), cause)

    assert (said.metric, said.observed < said.limit) == (metric, True)


def test_many_small_users_of_idle_cpus_are_no_saturated_host() -> None:
    """Three others hold the service up at moments, but the CPUs idle for half of the window."""
    owners: list[Owner] = [{"pid": 7 + i, "cgroup": f"/job{i}"} for i in range(3)]
    capture = capture_of(*owners)
    strings = list(capture.strings)
    times = (START_NS, START_NS + int(SECONDS * 1e9))
    rows = [
        {"metric": "cpu_seconds_total", "labels": f"{cpu},idle", "t_ns": t_ns, "value": value}
        for cpu in (0, 1)
        for t_ns, value in zip(times, (0.0, SECONDS / 2), strict=True)
    ]
    tables = capture.tables | {"series": make_table("series", rows, strings)}
    report = analyse(replace(capture, tables=tables, strings=tuple(strings)))

    assert report.causes == ()
    assert ruled_out(report, "host_cpu_saturated").metric.startswith("busy time of the CPUs")
