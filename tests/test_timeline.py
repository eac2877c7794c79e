"""The arithmetic of the thread ledger, against simulated threads whose truth is exact."""

from __future__ import annotations

import random

import numpy as np
import pytest
from simulate import MS, RUNNING, WAIT_FOR_CPU, Step, make_capture, make_table, simulate_rows

from perfkit.analysis.align import align
from perfkit.analysis.endpoints import read_endpoints
from perfkit.analysis.states import State
from perfkit.analysis.throttling import read_throttling
from perfkit.analysis.timeline import Timeline, build_timeline
from perfkit.model import Table

START_NS = 1_000_000_000
FSYNC, NANOSLEEP, RECV = 74, 35, 45
MIX = {RUNNING: 0.35, FSYNC: 0.10, NANOSLEEP: 0.30, RECV: 0.15, WAIT_FOR_CPU: 0.10}
EXPECTED = {
    RUNNING: State.ON_CPU,
    FSYNC: State.DISK_WAIT,
    NANOSLEEP: State.TIMER_WAIT,
    RECV: State.IDLE_PIPE,
    WAIT_FOR_CPU: State.RUNNABLE,
}


def _steps(cycle_ms: float, seconds: float, seed: int) -> list[Step]:
    """A thread that goes through MIX in random order, each cycle of about the given length."""
    chance = random.Random(seed)
    steps = []
    for _ in range(int(seconds * 1000 / cycle_ms)):
        order = list(MIX)
        chance.shuffle(order)
        # A thread waits for a CPU when it wakes, so the wait comes right before the run.
        order.remove(WAIT_FOR_CPU)
        order.insert(order.index(RUNNING), WAIT_FOR_CPU)
        for call in order:
            length_ns = int(MIX[call] * cycle_ms * MS * chance.uniform(0.7, 1.3))
            steps.append(Step(call, length_ns, arg0=5))
    return steps


def _timeline(rows: list[dict[str, int]], seconds: float, **more: Table) -> Timeline:
    tables = {"thread_runs": make_table("thread_runs", rows, []), **more}
    aligned = align(make_capture(tables, start_ns=START_NS, seconds=seconds))
    return build_timeline(aligned, read_endpoints(aligned), read_throttling(aligned))


def _shares(timeline: Timeline) -> dict[State, float]:
    states = timeline.states()
    total = timeline.ns.sum()
    return {state: float(timeline.ns[states == state].sum() / total) for state in State}


@pytest.mark.parametrize("cycle_ms", [3, 10, 30, 100, 400])
@pytest.mark.parametrize("tick_ms", [10, 40])
def test_timeline_books_every_state_within_three_points(cycle_ms: float, tick_ms: int) -> None:
    """Every share is within 3 points of the truth, at 100 and at 25 Hz, whatever the cycle."""
    seconds = 10.0
    truth = dict.fromkeys(MIX, 0.0)
    rows = []
    for tid in range(8):
        steps = _steps(cycle_ms, seconds, seed=tid)
        total = sum(step.duration_ns for step in steps)
        for step in steps:
            truth[step.syscall] += step.duration_ns / total / 8
        rows += simulate_rows(steps, tid=tid, start_ns=START_NS, tick_ns=tick_ms * MS, seed=tid)

    shares = _shares(_timeline(rows, seconds))

    errors = {call: abs(shares[EXPECTED[call]] - truth[call]) for call in MIX}
    assert max(errors.values()) < 0.03, errors


@pytest.mark.parametrize("tick_ms", [10, 12, 18])
def test_timeline_does_not_favour_states_by_their_neighbours(tick_ms: int) -> None:
    """In a fixed order, short states at the edge of a run lose nothing: all within a point."""
    seconds, rows, truth = 10.0, [], dict.fromkeys(EXPECTED, 0.0)
    for tid in range(40):
        chance = random.Random(tid)
        steps = []
        for _ in range(int(seconds * 1000 / 56)):
            around = chance.uniform(0.5, 1.5)
            lengths_ms = [
                (WAIT_FOR_CPU, 6 * around),
                (RUNNING, 17),
                (RECV, 12 * chance.uniform(0.9, 1.1)),
                *[(RUNNING, 0.15), (FSYNC, 0.25)] * 12,
                (NANOSLEEP, 5),
            ]
            steps += [Step(call, int(ms * MS), arg0=5) for call, ms in lengths_ms]
        total = sum(step.duration_ns for step in steps)
        for step in steps:
            truth[step.syscall] += step.duration_ns / total / 40
        rows += simulate_rows(steps, tid=tid, start_ns=START_NS, tick_ns=tick_ms * MS, seed=tid)

    shares = _shares(_timeline(rows, seconds))

    errors = {call: abs(shares[EXPECTED[call]] - truth[call]) for call in truth}
    assert max(errors.values()) < 0.01, errors


def test_timeline_fits_waits_that_come_before_computing() -> None:
    """At 30 Hz fitting takes more turns than at 100: with four, states were off by 1.2 points."""
    seconds, rows, truth = 10.0, [], dict.fromkeys(EXPECTED, 0.0)
    cycle_ms = ((WAIT_FOR_CPU, 17), (RUNNING, 35), (RECV, 20), (FSYNC, 8), (NANOSLEEP, 10))
    for tid in range(40):
        chance = random.Random(tid)
        steps = [
            Step(call, int(ms * chance.uniform(0.9, 1.1) * MS), arg0=5)
            for _ in range(int(seconds * 1000 / 90))
            for call, ms in cycle_ms
        ]
        total = sum(step.duration_ns for step in steps)
        for step in steps:
            truth[step.syscall] += step.duration_ns / total / 40
        rows += simulate_rows(steps, tid=tid, start_ns=START_NS, tick_ns=33 * MS, seed=tid)

    shares = _shares(_timeline(rows, seconds))

    errors = {call: abs(shares[EXPECTED[call]] - truth[call]) for call in truth}
    assert max(errors.values()) < 0.01, errors


@pytest.mark.parametrize(("idle_ms", "work_ms"), [(380, 20), (1000, 20), (1000, 100)])
def test_timeline_keeps_the_short_work_of_idle_threads(idle_ms: int, work_ms: int) -> None:
    """Rare looks at idle threads catch work seldom, and then it counts for what was missed."""
    seconds, chance, rows, truth = 20.0, random.Random(3), [], 0.0
    for tid in range(40):
        steps = []
        for _ in range(int(seconds * 1000 / (idle_ms + work_ms)) + 5):
            idle_ns = int(idle_ms * MS * chance.uniform(0.3, 1.7))
            work_ns = int(work_ms * MS * chance.uniform(0.7, 1.3))
            steps += [Step(NANOSLEEP, idle_ns), Step(FSYNC, work_ns)]
        total = sum(step.duration_ns for step in steps)
        truth += sum(step.duration_ns for step in steps if step.syscall == FSYNC) / total / 40
        rows += simulate_rows(steps, tid=tid, start_ns=START_NS, seed=tid)

    shares = _shares(_timeline(rows, seconds))

    assert shares[State.DISK_WAIT] == pytest.approx(truth, rel=0.15)


@pytest.mark.parametrize("cycle_ms", [3, 30, 400])
def test_timeline_sums_to_the_time_alive(cycle_ms: float) -> None:
    """No thread is booked for more or less time than it was seen, in any slot."""
    rows = simulate_rows(_steps(cycle_ms, 5.0, seed=1), tid=7, start_ns=START_NS)

    timeline = _timeline(rows, 5.0)

    alive_ns = min(rows[-1]["end_ns"] - START_NS, 5_000_000_000)
    booked = np.bincount(timeline.slot, weights=timeline.ns, minlength=timeline.axis.slot_count)
    assert abs(timeline.ns.sum() - alive_ns) < 2 * timeline.axis.slot_count
    assert (booked <= timeline.axis.slot_ns + 2).all()


def _throttled_thread() -> tuple[list[Step], list[dict[str, int | str]]]:
    """Runs 30 ms, is throttled 50 ms, waits 20 ms behind a neighbour; each 100 ms."""
    steps: list[Step] = []
    ticks: list[dict[str, int | str]] = [_tick(START_NS, 0, 0)]
    for period in range(50):
        steps += [Step(RUNNING, 30 * MS), Step(WAIT_FOR_CPU, 50 * MS)]
        steps += [Step(RUNNING, 1 * MS), Step(WAIT_FOR_CPU, 19 * MS)]
        released = START_NS + (period * 100 + 80) * MS
        ticks.append(_tick(released, period + 1, (period + 1) * 50 * MS))
    return steps, ticks


def _tick(t_ns: int, count: int, throttled_ns: int) -> dict[str, int | str]:
    return {
        "t_ns": t_ns,
        "cgroup_index": 0,
        "period_count": count,
        "throttled_count": count,
        "throttled_ns": throttled_ns,
    }


def test_timeline_tells_throttled_from_waiting_for_a_cpu() -> None:
    """A wait is throttled where it overlaps a throttled span, the rest is a queue for a CPU."""
    steps, ticks = _throttled_thread()
    group: dict[str, int | str] = {"t_ns": START_NS, "cgroup_index": 0, "path": "/app"}
    group |= {"quota_us": 50_000, "period_us": 100_000, "is_own": 1}
    strings: list[str] = []
    tables = {
        "thread_runs": make_table(
            "thread_runs", simulate_rows(steps, tid=1, start_ns=START_NS), strings
        ),
        "cgroup_ticks": make_table("cgroup_ticks", ticks, strings),
        "cgroups": make_table("cgroups", [group], strings),
    }
    capture = make_capture(tables, start_ns=START_NS, seconds=5.0, strings=tuple(strings))

    aligned = align(capture)
    timeline = build_timeline(aligned, read_endpoints(aligned), read_throttling(aligned))

    shares = _shares(timeline)
    assert shares[State.THROTTLED] == pytest.approx(0.50, abs=0.03)
    assert shares[State.RUNNABLE] == pytest.approx(0.19, abs=0.03)
    assert shares[State.ON_CPU] == pytest.approx(0.31, abs=0.03)
