"""Profiles and event loops, on simulated threads whose truth is exact."""

from __future__ import annotations

import pytest
from simulate import MS, RUNNING, Step, make_capture, make_table, simulate_rows

from perfkit.analysis._loops import Loop, find_loops, name_function
from perfkit.analysis.case import Case, build_case
from perfkit.analysis.rules.event_loop_blocked import RULE
from perfkit.analysis.stacks import (
    GIL,
    Function,
    charge_cpu,
    function_times,
    read_running,
    read_stacks,
)
from perfkit.findings import Finding, Rejection
from perfkit.model import Capture

START_NS = 1_000_000_000
NANOSLEEP, EPOLL_WAIT, RECV = 35, 232, 45
SECONDS = 4.0
Stretch = tuple[int, int, str]


def capture(steps: list[Step], stretches: list[Stretch], kind: str = GIL) -> Capture:
    """A capture of one thread, with stretches (begin ms, end ms, "leaf<caller<...")."""
    strings: list[str] = []
    stacks = sorted({stack for _, _, stack in stretches})
    frames: list[dict[str, int | str]] = [
        {"stack": number, "depth": depth, "function": name, "file": f"/app/{name}.py"}
        for number, stack in enumerate(stacks)
        for depth, name in enumerate(stack.split("<"))
    ]
    samples: list[dict[str, int | str]] = [
        {
            "begin_ns": START_NS + begin * MS,
            "end_ns": START_NS + end * MS,
            "pid": 100,
            "tid": 100,
            "kind": kind,
            "stack": stacks.index(stack),
        }
        for begin, end, stack in stretches
    ]
    runtime: list[dict[str, int | str]] = [
        {"pid": 100, "start_address": 1, "end_address": 9, "version": "3.11.7"}
    ]
    rows = simulate_rows(steps, tid=100, start_ns=START_NS)
    tables = {
        "thread_runs": make_table("thread_runs", rows, strings),
        "python_runtimes": make_table("python_runtimes", runtime, strings),
    }
    if stretches:
        tables["stacks"] = make_table("stacks", frames, strings)
        tables["stack_samples"] = make_table("stack_samples", samples, strings)
    return make_capture(tables, start_ns=START_NS, seconds=SECONDS, strings=tuple(strings))


def seconds_of(case: Case) -> dict[str, tuple[float, float]]:
    """Own and total CPU seconds of each function."""
    times = function_times(charge_cpu(case.timeline, read_running(case.aligned)))
    return {one.function.name: (one.self_ns / 1e9, one.total_ns / 1e9) for one in times}


def half_busy() -> list[Step]:
    """A thread that runs half of its time, in turns of 20 ms."""
    return [Step(RUNNING, 20 * MS), Step(NANOSLEEP, 20 * MS)] * 100


def stalling(stall_ms: int, call: int = NANOSLEEP) -> list[Step]:
    """An event loop that stands still for a while four times a second."""
    rest_ms = 240 - stall_ms
    turn = [Step(RUNNING, 10 * MS), Step(call, stall_ms * MS), Step(EPOLL_WAIT, rest_ms * MS)]
    return turn * 16


def loop_of(case: Case) -> Loop:
    """The only event loop."""
    (loop,) = find_loops(case)
    return loop


def test_profile_charges_exact_time_to_the_stack_of_the_moment() -> None:
    """Half of 4 s run: 3 s with one stack, 1 s with another, shared with their callers."""
    stretches = [(0, 3000, "inner<outer"), (3000, 4000, "other<outer")]

    found = seconds_of(build_case(capture(half_busy(), stretches)))

    assert found["inner"] == pytest.approx((1.5, 1.5), abs=0.05)
    assert found["other"] == pytest.approx((0.5, 0.5), abs=0.05)
    assert found["outer"] == pytest.approx((0.0, 2.0), abs=0.05)


def test_profile_counts_a_recursive_function_once() -> None:
    """A function that calls itself through another has its time once."""
    found = seconds_of(build_case(capture(half_busy(), [(0, 4000, "a<b<a<b")])))

    assert found == {"a": pytest.approx((2.0, 2.0), abs=0.05), "b": pytest.approx((0, 2), abs=0.05)}


def test_profile_charges_nothing_to_what_was_not_sampled() -> None:
    """Time outside every stretch belongs to no function."""
    found = seconds_of(build_case(capture(half_busy(), [(1000, 2000, "inner")])))

    assert found["inner"] == pytest.approx((0.5, 0.5), abs=0.05)


def test_samples_without_a_recorded_stack_are_left_out() -> None:
    """A capture that names a stack that it does not hold is read all the same."""
    whole = capture(half_busy(), [(0, 4000, "inner")])
    del whole.tables["stacks"]

    assert len(read_stacks(build_case(whole).aligned, GIL).stack) == 0


def test_function_is_named_by_module_and_file() -> None:
    """Reports call a function by its module and file; a frame without a file by its name."""
    assert Function("run", "/srv/app/job.py").words == "job.run (job.py)"
    assert Function("run", "").words == "run"


@pytest.mark.parametrize(("stall_ms", "count"), [(100, 16), (20, 0)])
def test_event_loop_stands_still_while_one_call_lasts(stall_ms: int, count: int) -> None:
    """A call of 100 ms outside the selector is a stall, one of 20 ms is none."""
    loop = loop_of(build_case(capture(stalling(stall_ms), [])))

    assert len(loop.stalls) == count
    assert loop.stalled_ns / 1e9 == pytest.approx(count * stall_ms / 1e3, rel=0.2)


def test_thread_that_never_waits_in_a_selector_is_no_event_loop() -> None:
    """A worker may sleep for as long as it likes."""
    assert find_loops(build_case(capture(half_busy(), []))) == []


@pytest.mark.parametrize("kind", ["wall", "gil"])
def test_event_loop_is_blocked_by_the_function_seen_in_the_stalls(kind: str) -> None:
    """The innermost function of the samples that were taken in the stalls is named."""
    stretches = [
        piece
        for turn in range(16)
        for piece in (
            (250 * turn + 20, 250 * turn + 100, "wait<handle"),
            (250 * turn + 115, 250 * turn + 240, "select<run"),
        )
    ]
    case = build_case(capture(stalling(100), stretches, kind))

    assert name_function(case, loop_of(case)) == Function("wait", "/app/wait.py")


def test_event_loop_blocked_names_the_thread_where_there_are_no_stacks() -> None:
    """Without stacks the thread and what it waits in are the culprit."""
    (finding,) = RULE.find(build_case(capture(stalling(150), [])))

    assert isinstance(finding, Finding)
    assert (finding.culprit.kind, "timed wait" in finding.title) == ("thread", True)


def test_event_loop_that_stands_still_for_moments_is_healthy() -> None:
    """Calls of 20 ms are no cause, and the number that rejects them is told."""
    (answer,) = RULE.find(build_case(capture(stalling(20), [])))

    assert isinstance(answer, Rejection)
    assert (answer.id, answer.observed) == ("event_loop_blocked", 0.0)
