"""Causes that simulated threads can prove: stopped, out of descriptors, waiting for flushes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from simulate import MS, RUNNING, Step, make_capture, make_table, simulate_rows

from perfkit.analysis import analyse
from perfkit.findings import Finding, Rejection, Report
from perfkit.model import Table

START_NS = 1_000_000_000
SECONDS = 8.0
NANOSLEEP, FSYNC, RECV, PREAD, ACCEPT = 35, 74, 45, 17, 43
SECOND_NS = 1_000_000_000


@dataclass
class World:
    """Tables in the making, with the strings that their text columns share."""

    strings: list[str] = field(default_factory=list)
    tables: dict[str, Table] = field(default_factory=dict)

    def add(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Adds a table of these rows."""
        self.tables[name] = make_table(name, rows, self.strings)

    def add_threads(self, cycle: list[Step], *, letters: dict[int, str] | None = None) -> None:
        """Two threads that repeat a cycle; from a second of the window on a letter shows."""
        length_ns = sum(step.duration_ns for step in cycle)
        steps = cycle * int(SECONDS * SECOND_NS / length_ns)
        rows = [
            row for tid in (100, 101) for row in simulate_rows(steps, tid=tid, start_ns=START_NS)
        ]
        for row in rows:
            second = (row["moved_ns"] - START_NS) // SECOND_NS
            row["state_letter"] = ord((letters or {}).get(second, "\0"))
        self.add("thread_runs", rows)

    def report(self, *, said_slow: bool = False) -> Report:
        """The report on this world."""
        strings = tuple(self.strings)
        capture = make_capture(self.tables, start_ns=START_NS, seconds=SECONDS, strings=strings)
        return analyse(capture, said_slow=said_slow)


def find(report: Report, cause: str) -> Finding | Rejection:
    """What the report says of a cause: found, or ruled out."""
    said = [*report.causes, *report.ruled_out]
    return next(one for one in said if one.id == cause)


def state_row(t_ns: int, **changes: Any) -> dict[str, Any]:
    """One row of `process_states` of the simulated service."""
    row = {"t_ns": t_ns, "pid": 100, "parent_pid": 1, "age_ns": 3600 * SECOND_NS}
    flags = {"tracer_pid": 0, "tracer_name": "", "is_frozen": 0, "is_dumping": 0}
    return row | {"state_letter": ord("R")} | flags | changes


WORK = [Step(RUNNING, 6 * MS), Step(PREAD, 4 * MS, arg0=5)]
ALWAYS = dict.fromkeys(range(9), "T")


def test_stopped_process_is_the_cause_and_kill_cont_the_fix() -> None:
    """A process that stands still is named, with what lets it go on."""
    world = World()
    world.add_threads([Step(NANOSLEEP, 400 * MS)], letters=ALWAYS)

    found = world.report().causes[0]

    assert (found.id, found.culprit.name) == ("process_stopped", "serve (100)")
    assert found.fix.startswith("kill -CONT 100")


def test_tracer_is_the_culprit() -> None:
    """Where a debugger holds the process, the debugger is named."""
    world = World()
    world.add_threads([Step(NANOSLEEP, 400 * MS)], letters=dict.fromkeys(range(9), "t"))
    traced = {"state_letter": ord("t"), "tracer_pid": 77, "tracer_name": "gdb"}
    world.add("process_states", [state_row(START_NS, **traced)])

    found = world.report().causes[0]

    assert (found.id, found.culprit.name) == ("process_stopped", "gdb (77)")
    assert "kill -CONT 100" in found.fix


@pytest.mark.parametrize(
    ("flag", "words"), [("is_frozen", "was frozen"), ("is_dumping", "core dump")]
)
def test_frozen_and_dumping_processes_are_told(flag: str, words: str) -> None:
    """What the letters of threads do not show is told by the process's own state."""
    world = World()
    world.add_threads(WORK)
    half_ns = START_NS + int(SECONDS / 2 * SECOND_NS)
    world.add("process_states", [state_row(START_NS), state_row(half_ns, **{flag: 1})])

    found = world.report().causes[0]

    assert found.id == "process_stopped"
    assert words in found.title
    assert 0.4 < found.share < 0.6


def test_short_halt_is_ruled_out_by_its_length() -> None:
    """A process that was stopped for a moment, long before the end, is not the cause."""
    world = World()
    world.add_threads(WORK)
    moment = [
        state_row(START_NS + 2 * SECOND_NS, state_letter=ord("T")),
        state_row(START_NS + 2 * SECOND_NS + 200 * MS),
    ]
    world.add("process_states", moment)

    said = find(world.report(), "process_stopped")

    assert isinstance(said, Rejection)
    assert said.observed == pytest.approx(0.2 / SECONDS, rel=0.01)


def test_only_all_serving_processes_halted_halt_the_requests() -> None:
    """Another process of the service that is stopped takes no time from those that run."""
    world = World()
    world.add_threads(WORK)
    world.add("process_states", [state_row(START_NS, pid=200, state_letter=ord("T"))])

    said = find(world.report(), "process_stopped")

    assert isinstance(said, Rejection)


FLUSHING = [Step(RUNNING, 6 * MS), Step(FSYNC, 14 * MS, arg0=7)]


def disk_rows(flush_ms: int) -> list[dict[str, Any]]:
    """A disk that flushes 100 times in the window, each for so long."""
    ends = [(START_NS, 500), (START_NS + 7 * SECOND_NS, 600)]
    return [
        {"t_ns": t_ns, "device": "vda", "flushes": count, "flush_ns": count * flush_ms * MS}
        for t_ns, count in ends
    ]


def add_file(world: World) -> None:
    """Descriptor 7 of the simulated service leads to its log."""
    row = {"t_ns": START_NS, "pid": 100, "fd": 7, "kind": "file", "inode": -1}
    world.add("fds", [row | {"path": "/var/log/audit.log"}])


def test_flushes_on_the_path_are_the_cause() -> None:
    """Threads that mostly wait for fsync, on a disk that is fast, are told with the file."""
    world = World()
    world.add_threads(FLUSHING)
    add_file(world)
    world.add("disks", disk_rows(flush_ms=2))

    found = world.report().causes[0]

    assert (found.id, found.culprit.kind) == ("fsync_in_path", "file")
    assert found.culprit.name == "/var/log/audit.log"
    assert found.share == pytest.approx(0.7, abs=0.03)


def test_slow_disk_rules_flushes_out() -> None:
    """Where every flush takes 80 ms the disk is to blame, not the call."""
    world = World()
    world.add_threads(FLUSHING)
    world.add("disks", disk_rows(flush_ms=80))

    said = find(world.report(), "fsync_in_path")

    assert isinstance(said, Rejection)
    assert (said.observed, said.limit) == (80.0, 30.0)


def test_other_disk_waits_are_no_flushes() -> None:
    """A thread that waits for reads has no flushes in its path."""
    world = World()
    world.add_threads([Step(RUNNING, 6 * MS), Step(PREAD, 14 * MS, arg0=7)])
    add_file(world)

    said = find(world.report(), "fsync_in_path")

    assert isinstance(said, Rejection)
    assert said.observed == 0


def test_rare_flush_is_no_path() -> None:
    """One long flush at the end of the window is a chore, not a part of each request."""
    world = World()
    chore = [*WORK * 550, Step(FSYNC, 2400 * MS, arg0=7)]
    world.add_threads(chore)

    said = find(world.report(), "fsync_in_path")

    assert isinstance(said, Rejection)


RETRYING = [Step(RUNNING, 2 * MS), Step(NANOSLEEP, 18 * MS)]


def descriptor_row(open_count: int, second: int = 0) -> dict[str, Any]:
    """One row of `descriptors` of the simulated service, which may have 100."""
    t_ns = START_NS + second * SECOND_NS
    return {"t_ns": t_ns, "pid": 100, "open_count": open_count, "soft_limit": 100}


def test_process_without_descriptors_that_pauses_is_the_cause() -> None:
    """Threads that pause again and again, with all descriptors open, are told with the count."""
    world = World()
    world.add_threads(RETRYING)
    world.add("descriptors", [descriptor_row(40), descriptor_row(100, second=1)])

    found = world.report().causes[0]

    assert (found.id, found.culprit.name) == ("fd_exhausted", "serve (100)")
    assert "100 of 100" in found.title


@pytest.mark.parametrize(
    ("cycle", "open_count", "observed"), [(RETRYING, 90, 0.9), (WORK, 100, 0.0)]
)
def test_descriptors_need_both_witnesses(
    cycle: list[Step], open_count: int, observed: float
) -> None:
    """A tenth of the descriptors left, or nobody who pauses, rules it out by that number."""
    world = World()
    world.add_threads(cycle)
    world.add("descriptors", [descriptor_row(open_count)])

    said = find(world.report(), "fd_exhausted")

    assert isinstance(said, Rejection)
    assert said.observed == pytest.approx(observed)


SPINNING = [Step(RUNNING, 400 * MS), Step(ACCEPT, 1 * MS)]


@pytest.mark.parametrize(
    ("open_count", "causes"), [(100, ["fd_exhausted"]), (90, ["hot_function"])]
)
def test_loop_that_spins_without_descriptors_is_no_second_cause(
    open_count: int, causes: list[str]
) -> None:
    """What a process burns that fails and tries again is the mechanism; with one left it is not."""
    world = World()
    rows = []
    for tid, cycle in ((100, RETRYING), (101, RETRYING), (102, SPINNING)):
        length_ns = sum(step.duration_ns for step in cycle)
        steps = cycle * int(SECONDS * SECOND_NS / length_ns)
        rows += simulate_rows(steps, tid=tid, start_ns=START_NS)
    world.add("thread_runs", rows)
    world.add("descriptors", [descriptor_row(open_count)])

    report = world.report(said_slow=True)

    assert [cause.id for cause in report.causes] == causes


def test_process_without_a_limit_is_never_exhausted() -> None:
    """Where the limit could not be read, nothing is held against the count."""
    world = World()
    world.add_threads(RETRYING)
    world.add("descriptors", [descriptor_row(100) | {"soft_limit": -1}])

    said = find(world.report(), "fd_exhausted")

    assert isinstance(said, Rejection)
    assert said.observed == 0
