"""The verdict's state where no cause is found: what may be called healthy, and what may not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from msgspec.structs import replace
from reports import GIL, SLOW_PEER
from simulate import MS, RUNNING, WAIT_FOR_CPU, Step, make_capture, make_table, simulate_rows
from test_requests import Load
from test_saturation import EPOLL, world
from test_saturation import START_NS as LOAD_START_NS

from perfkit.analysis import analyse
from perfkit.analysis.align import SLOTS_PER_BLOCK
from perfkit.analysis.case import build_case
from perfkit.analysis.correlate import _rank, give_verdict
from perfkit.findings import Report
from perfkit.report.words import next_commands, word_load

START_NS = 1_000_000_000
SECONDS = 8.0
UNREADABLE, RECV, NANOSLEEP, ACCEPT = -3, 45, 35, 43


def report_of(cycle: list[Step], *, state_letter: int = 0, gone_after_s: float = 0.0) -> Report:
    """The report on two threads that repeat a cycle through the window."""
    length_ns = sum(step.duration_ns for step in cycle)
    steps = cycle * int(SECONDS * 1e9 / length_ns)
    rows = [row for tid in (1, 2) for row in simulate_rows(steps, tid=tid, start_ns=START_NS)]
    for row in rows:
        row["state_letter"] = state_letter
    tables = {"thread_runs": make_table("thread_runs", rows, [])}
    capture = make_capture(tables, start_ns=START_NS, seconds=SECONDS)
    if gone_after_s:
        target = replace(capture.header.target, gone_ns=START_NS + int(gone_after_s * 1e9))
        capture = replace(capture, header=replace(capture.header, target=target))
    return analyse(capture)


def test_what_could_not_be_seen_is_not_called_healthy() -> None:
    """Where the states of most of the time were refused, the evidence is insufficient."""
    report = report_of([Step(RUNNING, 2 * MS), Step(UNREADABLE, 30 * MS)])

    assert report.verdict.state == "insufficient"
    assert "could not be seen" in report.verdict.text
    assert next_commands(report)[0] == "perfkit doctor . --pid 100"
    assert "at most" in word_load(report)


def test_host_without_a_service_says_why_none_was_chosen() -> None:
    """Where processes are closed to the user the verdict does not say that there is no service."""
    capture = make_capture({}, start_ns=START_NS, seconds=SECONDS)
    why = "none was found (9 processes are closed to this user)"
    host = replace(capture.header.target, kind="host", main_pid=0, chosen_by=why)

    report = analyse(replace(capture, header=replace(capture.header, target=host)))

    assert report.verdict.text == f"There is no service to judge: {why}."
    assert next_commands(report)[0] == "perfkit doctor ."


def test_stopped_process_is_called_stopped() -> None:
    """A process that stands still is named, with what lets it go on."""
    report = report_of([Step(NANOSLEEP, 400 * MS)], state_letter=ord("T"))

    assert [cause.id for cause in report.causes] == ["process_stopped"]
    assert "stopped for 98.5 %" in report.verdict.text
    assert report.causes[0].fix.startswith("kill -CONT 100")


@pytest.mark.parametrize(("pause_ms", "state"), [(30, "healthy"), (1, "unexplained")])
def test_large_share_of_nearly_nothing_is_no_verdict(pause_ms: int, state: str) -> None:
    """0.6 ms of waiting for 0.4 ms of work matters at 500 a second, not at 30."""
    work = [Step(WAIT_FOR_CPU, 600_000), Step(RUNNING, 400_000)]

    report = report_of([*work, Step(RECV, pause_ms * MS, arg0=5)])

    assert report.verdict.state == state


def test_target_that_ended_is_told_and_not_asked_again() -> None:
    """The verdict says that the target is gone, and no command names its pid."""
    report = report_of([Step(RECV, 400 * MS, arg0=5)], gone_after_s=5.0)

    assert "ended 5.0 s into the window" in report.verdict.text
    assert [one for one in next_commands(report) if "--pid" in one] == []


@pytest.mark.parametrize(
    ("unread", "every", "state"),
    [(2.0, 1, "unexplained"), (0.5, 1, "healthy"), (40, 20, "healthy")],
)
def test_requests_that_nobody_reads_are_never_called_healthy(
    unread: float, every: int, state: str
) -> None:
    """Two connections with unread requests all the time are a symptom; moments of it are not."""
    load = Load(service_ms=20, think_ms=80, connections=4)
    case = build_case(world(load, [Step(RUNNING, 2 * MS), Step(EPOLL, 8 * MS)]).capture())
    slots = np.zeros(case.aligned.axis.slot_count)
    slots[:: every * SLOTS_PER_BLOCK] = unread * SLOTS_PER_BLOCK

    requests = dataclasses.replace(case.requests, unread=slots)
    verdict = give_verdict(dataclasses.replace(case, requests=requests), [])

    assert verdict.state == state, verdict


@pytest.mark.parametrize(
    ("tie_with", "text"),
    [
        ((), "It is slow"),
        (("network_latency",), "It is slow (tied with network_latency)"),
        (("gil_contention",), "It is slow (gil_contention is about as large)"),
        (
            ("network_latency", "gil_contention"),
            "It is slow (tied with network_latency; gil_contention is about as large)",
        ),
    ],
)
def test_verdict_calls_a_tie_only_what_cannot_be_told_apart(
    tie_with: tuple[str, ...], text: str
) -> None:
    """Two proven causes of like size are two causes, and no tie."""
    case = build_case(world(Load(20, 80), [Step(RUNNING, 2 * MS), Step(EPOLL, 8 * MS)]).capture())

    verdict = give_verdict(case, [replace(SLOW_PEER, title="It is slow", tie_with=tie_with), GIL])

    assert verdict.text == text


@pytest.mark.parametrize(
    ("change", "tied"),
    [
        ({}, ("gil_contention",)),
        ({"share_low": 0.05, "share_high": 0.1}, ()),
        ({"share_of": "excess"}, ()),
        ({"share_ledger": "threads"}, ()),
    ],
)
def test_sizes_are_held_against_each_other_only_as_parts_of_one_whole(
    change: dict[str, object], tied: tuple[str, ...]
) -> None:
    """Shares are alike where their intervals overlap, and are shares of the same time."""
    like = {"share": 0.62, "share_low": 0.55, "share_high": 0.68, "share_ledger": "requests"}
    first = replace(SLOW_PEER, tie_with=(), **like)

    ranked = _rank([first, replace(GIL, tie_with=(), **{**like, **change})])

    assert next(one for one in ranked if one.id == first.id).tie_with == tied


@pytest.mark.parametrize(
    ("born", "state"), [(60, "insufficient"), (21, "insufficient"), (15, "healthy")]
)
def test_threads_that_live_for_one_request_are_not_called_healthy(born: int, state: str) -> None:
    """Where requests have threads of their own, few are met: what they wait for is not known."""
    made = world(
        Load(service_ms=100, think_ms=300, connections=4),
        [Step(ACCEPT, 97 * MS), Step(RUNNING, 3 * MS)],
    )
    thread = {"pid": 100, "name": "serve", "nice": 0, "policy": 0, "cpus_allowed": "0-1"}
    later_ns = LOAD_START_NS + 1_000_000_000
    rows = [thread | {"tid": 200 + number, "first_seen_ns": later_ns} for number in range(born)]
    made.add("threads", [thread | {"tid": 100, "first_seen_ns": LOAD_START_NS}, *rows])

    report = made.report()

    assert report.verdict.state == state, report.verdict
