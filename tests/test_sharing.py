"""What collectors look at each second is read once for all of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from perfkit.agent.target import resolve
from perfkit.collectors import _service
from perfkit.collectors._proc import list_pids
from perfkit.collectors._service import ServiceTracker
from perfkit.errors import Unavailable
from perfkit.host import SHARED_NS, SHARED_NS_MAX, Host, Recent

FORKER = """
import os, sys, time
print("ready", flush=True)
sys.stdin.readline()
pids = []
for _ in range(30):
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    pids.append(pid)
print("forked", flush=True)
sys.stdin.readline()
for pid in pids:
    os.kill(pid, 9)
    os.waitpid(pid, 0)
print("ended", flush=True)
sys.stdin.readline()
"""


def make_sharing(proc: Path, moments: list[int]) -> Host:
    """A host whose clock stands at the last of the moments, and whose reads are shared."""
    return Host(proc, now_ns=lambda: moments[-1], recent=Recent())


@pytest.mark.parametrize(("passed_ns", "seen"), [(SHARED_NS - 1, [7]), (SHARED_NS, [7, 8])])
def test_listing_of_processes_is_shared_for_half_a_second(
    tmp_path: Path, passed_ns: int, seen: list[int]
) -> None:
    """Within half a second all collectors get one listing, after that a new one is made."""
    moments = [0]
    host = make_sharing(tmp_path, moments)
    (tmp_path / "7").mkdir()
    list_pids(host)
    (tmp_path / "8").mkdir()

    moments.append(passed_ns)
    found = list_pids(host)

    assert found == seen


def test_dear_readings_are_kept_longer_within_a_limit(tmp_path: Path) -> None:
    """What costs 100 ms of CPU is not read again at once, but within four seconds."""
    moments, reads = [0], []
    host = make_sharing(tmp_path, moments)

    def read() -> int:
        end_ns = time.thread_time_ns() + 100_000_000
        while not reads and time.thread_time_ns() < end_ns:
            pass
        reads.append(moments[-1])
        return len(reads)

    for moment_ns in (0, 2 * SHARED_NS, SHARED_NS_MAX - 1, SHARED_NS_MAX):
        moments.append(moment_ns)
        host.share("dear", read)

    assert reads == [0, SHARED_NS_MAX]


def test_forgotten_readings_are_made_anew(tmp_path: Path) -> None:
    """After `forget` nothing old is given."""
    host = make_sharing(tmp_path, [0])
    list_pids(host)
    (tmp_path / "9").mkdir()

    host.forget()

    assert list_pids(host) == [9]


def test_failures_are_not_shared(tmp_path: Path) -> None:
    """A source that was absent is found as soon as it is there."""
    host = make_sharing(tmp_path / "proc", [0])
    with pytest.raises(Unavailable):
        list_pids(host)
    (tmp_path / "proc" / "5").mkdir(parents=True)

    found = list_pids(host)

    assert found == [5]


@pytest.mark.system
def test_trackers_agree_on_what_they_share() -> None:
    """Two trackers that share their reads see the same service."""
    host = Host(recent=Recent())
    target = resolve(host, os.getpid(), only_pid=True, own_pid=-1)

    first, second = ServiceTracker(host, target), ServiceTracker(host, target)
    first.update()
    second.update()

    assert first.members == second.members
    assert first.service_pids == [os.getpid()]


@pytest.mark.system
def test_flood_of_new_processes_is_admitted_in_parts(
    spawn: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where more processes came than one look may read, the rest is found by the next looks."""
    monkeypatch.setattr(_service, "NEW_LIMIT", 12)
    child = spawn(FORKER)
    tracker = ServiceTracker(Host(), resolve(Host(), child.pid, only_pid=False, own_pid=-1))
    child.stdin.write("go\n")
    child.stdin.flush()
    child.stdout.readline()

    counts = [len(tracker.update().started) for _ in range(8)]

    child.stdin.write("end\n")
    child.stdin.flush()
    child.stdout.readline()
    assert sum(counts) == 30
    assert max(counts) <= 12
    assert len(tracker.update().exited) == 30
