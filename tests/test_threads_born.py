"""The thread sampler on threads and processes that are born while it looks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from programs import running
from sampling import Row, by_thread, to_rows

from perfkit import _native

SHORT_COUNT = 60
LISTING_INTERVAL_NS = 250_000_000
# Threads one after the other, each 10 ms on the CPU and 30 ms alive; prints the CPU ns they used.
SHORT = f"""
import sys, threading, time
used = []
def work():
    begin_ns = time.monotonic_ns()
    while time.thread_time_ns() < 10_000_000: pass
    time.sleep(max(0, 0.03 - (time.monotonic_ns() - begin_ns) / 1e9))
    used.append(time.thread_time_ns())
print("up", flush=True)
sys.stdin.readline()
for _ in range({SHORT_COUNT}):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
print(sum(used), flush=True)
sys.stdin.readline()
"""
FORK = """
import os, sys, time
print("up", flush=True)
sys.stdin.readline()
child = os.fork()
while child == 0 and time.thread_time() < 0.1: pass
if child:
    print(child, flush=True)
time.sleep(30)
"""


@contextmanager
def python(source: str) -> Iterator[subprocess.Popen[str]]:
    """A program in Python that says when it is ready and goes on when it reads a line."""
    command = [sys.executable, "-c", source]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            ask(child, "")
            yield child
        finally:
            child.kill()


def ask(child: subprocess.Popen[str], word: str) -> str:
    """Writes a line, unless it is empty, and reads one."""
    assert child.stdin is not None and child.stdout is not None
    if word:
        child.stdin.write(word)
        child.stdin.flush()
    return child.stdout.readline()


@pytest.fixture(scope="module")
def short() -> tuple[list[list[Row]], int]:
    """The rows of each thread of a program whose threads live for 30 ms, and the CPU they used."""
    with python(SHORT) as child:
        sampler = _native.ThreadSampler("/proc", [child.pid])
        time.sleep(0.3)
        used_ns = int(ask(child, "go\n"))
        sampler.stop()
        threads = by_thread(to_rows(sampler.take())["thread_runs"])
    del threads[child.pid]
    return list(threads.values()), used_ns


def test_threads_that_live_for_30_ms_have_their_cpu_time_booked(
    short: tuple[list[list[Row]], int],
) -> None:
    """At least 70 % of the threads are met, and of their CPU time is in the rows."""
    threads, used_ns = short

    assert len(threads) > 0.7 * SHORT_COUNT
    assert 0.7 * used_ns < sum(row.run_ns for runs in threads for row in runs) <= used_ns


def test_threads_first_row_holds_no_more_than_its_interval(
    short: tuple[list[list[Row]], int],
) -> None:
    """What a new thread ran and waited fits between its birth and the first look."""
    firsts = [runs[0] for runs in short[0]]

    assert all(row.run_ns + row.wait_ns <= row.moved_ns - row.start_ns for row in firsts)
    assert max(row.moved_ns - row.start_ns for row in firsts) <= LISTING_INTERVAL_NS + 50_000_000


def test_threads_older_than_the_sampler_bring_no_past() -> None:
    """What a thread did before the first look is not in its rows."""
    source = "while True: pass"
    with running(sys.executable, "-c", f"print('up', flush=True)\n{source}") as (pid, _):
        time.sleep(0.2)
        sampler = _native.ThreadSampler("/proc", [pid])
        time.sleep(0.2)
        sampler.stop()
        first = to_rows(sampler.take())["thread_runs"][0]

    assert (first.start_ns, first.run_ns, first.wait_ns) == (first.moved_ns, 0, 0)


def test_threads_of_a_child_found_late_are_booked_since_its_birth() -> None:
    """A process that is added half a second after its fork has all its CPU time in the rows."""
    with python(FORK) as parent:
        sampler = _native.ThreadSampler("/proc", [parent.pid])
        time.sleep(0.1)
        asked_ns = time.monotonic_ns()
        child = int(ask(parent, "go\n"))
        time.sleep(0.5)
        sampler.add_pids([child])
        time.sleep(0.2)
        sampler.stop()
        first = by_thread(to_rows(sampler.take())["thread_runs"])[child][0]
        os.kill(child, signal.SIGKILL)

    assert first.run_ns >= 100_000_000
    assert asked_ns - 10_000_000 <= first.start_ns < first.moved_ns - 400_000_000


def test_threads_come_and_go_within_the_budget() -> None:
    """With threads that live for 2 ms the cost stays bounded, and what was put off is counted."""
    source = SHORT.replace("10_000_000", "500_000").replace("0.03", "0.002")
    with python(source.replace(f"range({SHORT_COUNT})", "range(600)")) as child:
        sampler = _native.ThreadSampler("/proc", [child.pid], budget_ratio=0.005)
        ask(child, "go\n")
        sampler.stop()
        status = sampler.status()

    seconds = (status["last_tick_ns"] - status["started_ns"]) / 1e9
    assert status["put_off_count"] > 0
    assert status["spent_ns"] < 0.01 * 1e9 * seconds + 5_000_000
