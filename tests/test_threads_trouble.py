"""The thread sampler where /proc blocks, lies or changes under it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sampling import Row, by_thread, to_rows

from perfkit import _native

PID, TID = 77, 78
STAT = "78 (worker) S 1 1 1 0 -1 64 {faults} 0 0 0 9 9 0 0 20 5 2 0 {start} " + "0 " * 30
STOP_LIMIT_NS = 500_000_000


class FakeProc:
    """A folder that looks like /proc with one process of one thread."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.thread = root / str(PID) / "task" / str(TID)
        self.thread.mkdir(parents=True)
        (root / str(PID) / "fd").mkdir()
        self.write("schedstat", "100 50 3\n")
        self.write("syscall", "45 0x5 0x0 0x0 0x0 0x0 0x0 0x7ffc00 0x7f0000\n")
        self.write("stat", STAT.format(faults=10, start=500))

    def write(self, name: str, text: str) -> None:
        """Changes one of the thread's files in one step."""
        fresh = self.root / "fresh"
        fresh.write_text(text)
        fresh.replace(self.thread / name)

    def block(self, name: str) -> None:
        """Puts a FIFO without a writer in a file's place: opening it does not return."""
        fresh = self.root / "fifo"
        os.mkfifo(fresh)
        fresh.replace(self.thread / name)

    def unblock(self, name: str) -> None:
        """Lets the reader go on, once it is there."""
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            try:
                os.close(os.open(self.thread / name, os.O_WRONLY | os.O_NONBLOCK))
                return
            except OSError:  # nobody has opened it yet
                time.sleep(0.01)


@contextmanager
def sampling(proc: FakeProc, **options: int) -> Iterator[_native.ThreadSampler]:
    """A sampler on a fake /proc, its files opened for each read so that they can be replaced."""
    sampler = _native.ThreadSampler(str(proc.root), [PID], descriptor_limit=0, **options)
    time.sleep(0.15)
    yield sampler


def timed_stop(sampler: _native.ThreadSampler) -> tuple[bool, int]:
    """Stops a sampler; tells whether it ended, and how long that took."""
    begin_ns = time.monotonic_ns()
    has_ended = sampler.stop()
    return has_ended, time.monotonic_ns() - begin_ns


def runs_of(sampler: _native.ThreadSampler) -> list[Row]:
    """The rows of the one thread."""
    return by_thread(to_rows(sampler.take())["thread_runs"]).get(TID, [])


def test_threads_first_read_that_blocks_delays_nobody(tmp_path: Path) -> None:
    """A sampler that hangs from the first read on is given up within 0.3 s, and says so."""
    proc = FakeProc(tmp_path)
    proc.block("schedstat")
    with sampling(proc) as sampler:
        begin_ns = time.monotonic_ns()
        sampler.take()
        took_ns = time.monotonic_ns() - begin_ns
        has_ended, stopped_ns = timed_stop(sampler)
        status = sampler.status()
        proc.unblock("schedstat")

    assert took_ns < 50_000_000
    assert (has_ended, status["is_abandoned"], status["has_ended"]) == (False, 1, 0)
    assert 290_000_000 < stopped_ns < STOP_LIMIT_NS


def test_threads_read_that_blocks_later_loses_no_row(tmp_path: Path) -> None:
    """What was open when the sampler hung is handed over once, after it was given up."""
    proc = FakeProc(tmp_path)
    with sampling(proc) as sampler:
        proc.write("schedstat", "200 60 4\n")
        time.sleep(0.15)
        proc.block("schedstat")
        time.sleep(0.1)
        sampler.stop()
        first, second = to_rows(sampler.take()), to_rows(sampler.take())
        proc.unblock("schedstat")
        time.sleep(0.1)
        third = to_rows(sampler.take())

    [closed], [still_open] = first["thread_runs"], first["thread_runs_open"]
    assert (closed.run_ns, still_open.run_ns, still_open.wait_ns) == (0, 100, 10)
    assert still_open.start_ns == closed.end_ns
    assert [len(rows["thread_runs"]) for rows in (second, third)] == [0, 0]
    assert [len(rows["thread_runs_open"]) for rows in (second, third)] == [0, 0]


def test_threads_dropped_sampler_that_hangs_frees_itself(tmp_path: Path) -> None:
    """Dropping the last reference to a sampler that hangs is safe before and after it wakes."""
    proc = FakeProc(tmp_path)
    proc.block("syscall")
    with sampling(proc) as sampler:
        begin_ns = time.monotonic_ns()
        del sampler
    took_ns = time.monotonic_ns() - begin_ns
    proc.unblock("syscall")
    time.sleep(0.1)

    assert took_ns < STOP_LIMIT_NS


def test_threads_facts_of_a_row_are_those_of_its_files(tmp_path: Path) -> None:
    """A move takes deltas of schedstat and faults, and the call as it then is."""
    proc = FakeProc(tmp_path)
    with sampling(proc) as sampler:
        proc.write("stat", STAT.format(faults=17, start=500))
        proc.write("syscall", "-1 0x7ffd00 0x7f0001\n")
        proc.write("schedstat", "1100 75 5\n")
        time.sleep(0.15)
        sampler.stop()
        before, after = runs_of(sampler)

    assert (before.syscall, before.arg0, before.stack_pointer) == (45, 5, 0x7FFC00)
    assert (after.run_ns, after.wait_ns, after.slice_count) == (1000, 25, 2)
    assert (after.syscall, after.stack_pointer, after.minor_faults) == (-1, 0x7FFD00, 7)
    assert (chr(after.state_letter), after.cpu, chr(after.end_letter)) == ("S", 0, "S")
    assert after.start_ns == before.end_ns


def test_threads_unreadable_syscall_is_a_fact(tmp_path: Path) -> None:
    """A syscall file that is missing or not understood gives -3, and the times all the same."""
    proc = FakeProc(tmp_path)
    proc.write("syscall", "gibberish")
    with sampling(proc) as sampler:
        sampler.stop()
        [row] = runs_of(sampler)

    assert (row.syscall, row.arg0, row.tick_count > 1) == (-3, 0, True)


def test_threads_id_used_again_is_another_thread(tmp_path: Path) -> None:
    """A thread id whose start differs begins anew: no delta is taken across the two."""
    proc = FakeProc(tmp_path)
    with sampling(proc) as sampler:
        time.sleep(0.3)  # stat is looked at once in a block of 250 ms
        proc.write("stat", STAT.format(faults=10, start=900))
        proc.write("schedstat", "150 60 9\n")
        time.sleep(0.9)
        sampler.stop()
        rows = to_rows(sampler.take())

    assert [row.start_ticks for row in rows["threads_met"]] == [500, 900]
    assert [row.run_ns for row in rows["thread_runs"]] == [0, 0]


def test_threads_counters_that_fall_are_another_thread(tmp_path: Path) -> None:
    """Counters below those seen before belong to a thread that took the id over in an exec."""
    proc = FakeProc(tmp_path)
    with sampling(proc) as sampler:
        proc.write("schedstat", "40 20 1\n")
        time.sleep(0.9)
        sampler.stop()
        rows = to_rows(sampler.take())

    assert [row.run_ns for row in rows["thread_runs"]] == [0, 0]
    assert len(rows["threads_met"]) == 2


def test_threads_missing_proc_root_is_an_empty_answer(tmp_path: Path) -> None:
    """A root that does not exist gives no rows but ticks, and ends in time."""
    sampler = _native.ThreadSampler(str(tmp_path / "absent"), [PID])
    time.sleep(0.05)
    has_ended, _ = timed_stop(sampler)
    rows = to_rows(sampler.take())

    assert has_ended
    assert (rows["thread_runs"], len(rows["sampler_ticks"]) > 2) == ([], True)


def test_threads_sampler_is_stopped_twice_without_harm(tmp_path: Path) -> None:
    """Further calls after the end change nothing and do not wait."""
    sampler = _native.ThreadSampler(str(FakeProc(tmp_path).root), [PID])
    sampler.stop()
    outcome, took_ns = timed_stop(sampler)
    sampler.add_pids([PID])
    sampler.add_cgroup(0, "/nowhere", 1)

    assert (outcome, took_ns < 10_000_000) == (True, True)
    assert sampler.status()["has_ended"] == 1
