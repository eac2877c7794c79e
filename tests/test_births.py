"""Which processes are young, and how long each was busy with starting."""

from __future__ import annotations

from typing import Any

import pytest
from simulate import MS, RUNNING, Step, make_capture, make_table, simulate_rows

from perfkit.analysis import analyse
from perfkit.analysis.align import SLOT_NS
from perfkit.analysis.births import Birth, read_births
from perfkit.analysis.case import build_case
from perfkit.findings import Rejection
from perfkit.model import Capture

START_NS = 1_000_000_000
SECOND_NS = 1_000_000_000
SECONDS = 6.0
RECV = 45
WAITING = [Step(RUNNING, 2 * MS), Step(RECV, 98 * MS, arg0=5)]


def rows_of(pid: int, steps: list[Step], *, born_ns: int = 0) -> list[dict[str, int]]:
    """The rows of a process with one thread that begins so long after the window did."""
    rows = simulate_rows(steps, tid=pid, start_ns=START_NS + born_ns)
    return [row | {"pid": pid} for row in rows]


def process_row(pid: int, name: str, event: str, second: float) -> dict[str, Any]:
    """One row of `processes`."""
    t_ns = START_NS + int(second * SECOND_NS)
    return {"t_ns": t_ns, "pid": pid, "parent_pid": 100, "name": name, "event": event}


def capture_of(
    rows: list[dict[str, int]], processes: list[dict[str, Any]], ages_ns: dict[int, int]
) -> Capture:
    """A capture of the service with pid 100 and these rows."""
    strings: list[str] = []
    states = [{"t_ns": START_NS, "pid": pid, "age_ns": age} for pid, age in ages_ns.items()]
    tables = {
        "thread_runs": make_table("thread_runs", rows, strings),
        "processes": make_table("processes", processes, strings),
        "process_states": make_table("process_states", states, strings),
    }
    return make_capture(tables, start_ns=START_NS, seconds=SECONDS, strings=tuple(strings))


def births_of(capture: Capture) -> tuple[Birth, ...]:
    """The young processes of a capture."""
    case = build_case(capture)
    return read_births(case.aligned, case.timeline)


OLD = rows_of(100, WAITING * 59)
PRESENT = process_row(100, "serve", "present", 0)
LOADING = [Step(RUNNING, 800 * MS), *WAITING * 20]


def test_worker_that_starts_in_the_window_is_young_until_it_idles() -> None:
    """A process that loads for 0.8 s and then waits was starting for 0.8 s."""
    rows = OLD + rows_of(200, LOADING, born_ns=2 * SECOND_NS)
    processes = [PRESENT, process_row(200, "worker", "started", 3)]

    (birth,) = births_of(capture_of(rows, processes, {100: 3600 * SECOND_NS}))

    assert (birth.pid, birth.name, birth.in_window, birth.ended) == (200, "worker", True, True)
    assert birth.starting.sum() * SLOT_NS == pytest.approx(800 * MS, abs=2 * SLOT_NS)
    assert birth.starting.argmax() == 40


def test_process_that_is_named_late_goes_by_its_last_name() -> None:
    """A name that a program gives itself after it began is the one told."""
    rows = OLD + rows_of(200, LOADING, born_ns=2 * SECOND_NS)
    processes = [
        PRESENT,
        process_row(200, "python", "started", 2.5),
        process_row(200, "scorer", "execed", 3.5),
    ]

    (birth,) = births_of(capture_of(rows, processes, {100: 3600 * SECOND_NS}))

    assert birth.name == "scorer"


def test_worker_that_was_replaced_just_before_is_young() -> None:
    """A process of 2 s in a service of an hour may still be starting when the window begins."""
    rows = OLD + rows_of(200, LOADING)
    processes = [PRESENT, process_row(200, "worker", "present", 0)]
    capture = capture_of(rows, processes, {100: 3600 * SECOND_NS, 200: 2 * SECOND_NS})

    births = births_of(capture)

    assert [birth.pid for birth in births] == [200]


def test_service_that_is_young_as_a_whole_has_no_young_workers() -> None:
    """Processes that came together are the service's own start, and no worker's."""
    rows = OLD + rows_of(200, LOADING)
    processes = [PRESENT, process_row(200, "worker", "present", 0)]
    capture = capture_of(rows, processes, {100: 3 * SECOND_NS, 200: 2 * SECOND_NS})

    births = [birth for birth in births_of(capture) if not birth.in_window]

    assert births == []


def test_busy_process_has_not_ended_its_start() -> None:
    """A process that works through to the end of the window was never seen to be ready."""
    busy = [Step(RUNNING, 4000 * MS)]
    rows = OLD + rows_of(200, busy, born_ns=2 * SECOND_NS)
    processes = [PRESENT, process_row(200, "worker", "started", 3)]

    (birth,) = births_of(capture_of(rows, processes, {100: 3600 * SECOND_NS}))

    assert not birth.ended


def test_starts_without_countable_requests_are_ruled_out_with_their_number() -> None:
    """Where requests cannot be counted nothing says that anybody waited for a start."""
    rows = OLD + rows_of(200, LOADING, born_ns=2 * SECOND_NS)
    processes = [PRESENT, process_row(200, "worker", "started", 3)]
    report = analyse(capture_of(rows, processes, {100: 3600 * SECOND_NS}))

    said = next(one for one in report.ruled_out if one.id == "process_restarted")

    assert isinstance(said, Rejection)
    assert "1 processes started" in said.why
