"""Few requests that wait long for a CPU: a p99 made by strangers, while the mean hardly moves."""

from __future__ import annotations

import pytest
from simulate import MS, RUNNING, WAIT_FOR_CPU, Step
from test_contention import DEFAULTS
from test_requests import Load
from test_saturation import EPOLL, START_NS, World, world

from perfkit.analysis import analyse
from perfkit.analysis.case import Case, build_case
from perfkit.analysis.compare import SHARE_GATE
from perfkit.analysis.long_waits import long_wait_ns, long_wait_ratio
from perfkit.analysis.states import State

SECONDS = 8
# Eight requests in 400 ms, two fifths of one in flight.
LOAD = Load(service_ms=20, think_ms=80, connections=2)
JOB = DEFAULTS | {"pid": 7, "run_ns": 950_000_000, "interval_ns": 1_000_000_000}


def turns(wait_ms: int, count: int) -> list[Step]:
    """400 ms of a serving thread that computes 130 ms and waits `count` times for a CPU."""
    turn = [Step(WAIT_FOR_CPU, wait_ms * MS), Step(RUNNING, 130 * MS // count)]
    return [*turn * count, Step(EPOLL, (270 - wait_ms * count) * MS)]


def beside_a_job(script: list[Step]) -> World:
    """A service with this thread, and a job on one of its two CPUs."""
    made = world(LOAD, script)
    times = [START_NS + second * 1_000_000_000 for second in range(1, SECONDS + 1)]
    made.add("owners", [{"t_ns": t_ns} | JOB for t_ns in times])
    return made


def case_of(script: list[Step]) -> Case:
    """That service, accounted for."""
    return build_case(beside_a_job(script).capture())


@pytest.mark.parametrize(
    ("wait_ms", "count", "expected"),
    [(24, 1, ["cpu_contention_neighbour"]), (12, 2, ["cpu_contention_neighbour"]), (3, 8, [])],
)
def test_strangers_are_named_for_long_waits_only(
    wait_ms: int, count: int, expected: list[str]
) -> None:
    """The same share of the time, below what a cause needs, is one where the waits are long."""
    script = turns(wait_ms, count)

    report = analyse(beside_a_job(script).capture())

    assert [cause.id for cause in report.causes] == expected
    assert 0.05 < case_of(script).share(State.RUNNABLE).value < SHARE_GATE


def test_long_waits_are_counted_per_answer() -> None:
    """One wait of 24 ms in 400 ms meets one of the eight requests of that time."""
    case = case_of(turns(24, 1))

    assert long_wait_ns(case) == pytest.approx(10e6, rel=0.2)
    ratio, least = long_wait_ratio(case, case.holders)
    assert ratio == pytest.approx(1 / 8, rel=0.25)
    assert 0.5 * ratio < least < 0.8 * ratio  # 20 waits, of which 12 are no chance


def test_waits_that_others_hold_are_not_counted() -> None:
    """Of long waits for which nobody of these ran none is charged to them."""
    case = case_of(turns(24, 1))

    own = tuple(one for one in case.holders if one.relation == "own")

    assert long_wait_ratio(case, own) == (0.0, 0.0)
    assert long_wait_ratio(case, ()) == (0.0, 0.0)


def test_few_long_waits_are_chance() -> None:
    """Five in a window are more than one answer in a hundred, and yet prove nothing."""
    quiet = [Step(RUNNING, 100 * MS), Step(EPOLL, 300 * MS)]
    once, often = turns(24, 1), turns(3, 8)
    case = case_of([*once, *(quiet + often) * 2])

    ratio, least = long_wait_ratio(case, case.holders)

    assert ratio > 0.01 > least
