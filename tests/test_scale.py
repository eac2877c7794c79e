"""Large hosts and services, and targets that change while they are looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import crowd
import pytest
from capture_values import to_rows

from perfkit import codec
from perfkit.agent.record import RecordOptions, record
from perfkit.demo.cgroups import can_limit
from perfkit.demo.look import find_perfkit
from perfkit.model import Capture, Status

Spawn = Callable[..., "subprocess.Popen[str]"]
pytestmark = pytest.mark.system
MEMORY_LIMIT_BYTES = 80_000_000
# It leaves its parent, since perfkit never counts its own children to a target.
FLEETING = """
import os
if pid := os.fork():
    print(pid, flush=True)
    os._exit(0)
while True:
    pids = []
    for _ in range(8):
        pids.append(os.fork())
        if pids[-1] == 0:
            os._exit(0)
    for pid in pids:
        os.waitpid(pid, 0)
"""
SHORT_LIVED = """
import sys, time
print("ready", flush=True)
time.sleep(float(sys.argv[1]))
"""


def look(pid: int, seconds: float) -> Capture:
    """One recorded window of a service, as it is decoded."""
    return codec.decode(record(RecordOptions(pid=pid, seconds=seconds, probe=False)))


def find_failed(capture: Capture) -> list[Status]:
    """The sources that met an error, which none may for what its target does.

    One that was late is no matter here: the machine may be busy with other things.
    """
    failed = [status for status in capture.header.statuses if status.state == "failed"]
    return [status for status in failed if not status.reason.startswith(("did not", "had not"))]


@pytest.fixture(scope="module")
def large() -> Iterator[Capture]:
    """A window of a service of 100 threads, 600 sockets and 2,000 further descriptors."""
    command = [sys.executable, "-c", "from perfkit.agent.command import start; start()", "record"]
    with crowd.serving(100, 600, file_count=2000) as pid:
        done = subprocess.run(
            [*command, "--no-probe", "--seconds", "3", "--pid", str(pid), "-o", "-"],
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        yield codec.decode(done.stdout)


def test_every_thread_of_a_large_service_is_told(large: Capture) -> None:
    """All of a hundred threads have a row, described or not."""
    tids = {row["tid"] for row in to_rows(large, "threads")}

    assert len(tids) == 100
    assert find_failed(large) == []


def test_every_socket_of_a_large_service_is_told(large: Capture) -> None:
    """All accepted sockets have a row, though not all are asked at each poll."""
    rows = to_rows(large, "sockets")

    accepted = {row["inode"] for row in rows if row["role"] == "accepted"}
    assert len(accepted) == 600


def test_every_descriptor_of_a_large_service_is_told(large: Capture) -> None:
    """Two thousand descriptors are listed and counted."""
    listed = {row["fd"] for row in to_rows(large, "fds")}
    counts = [row["open_count"] for row in to_rows(large, "descriptors")]

    assert len(listed) >= 2600
    assert max(counts) >= 2600


def test_rates_of_a_large_service_are_stated(large: Capture) -> None:
    """Each sampler says how often it looked, and what kept it from looking more often."""
    rates = {rate.sampler: rate for rate in large.header.rates}

    assert rates["threads"].tick_count > 0
    assert rates["sockets"].tick_count > 0
    assert rates["threads"].achieved_hertz <= rates["threads"].requested_hertz
    assert large.header.cost.memory_peak_bytes < MEMORY_LIMIT_BYTES


def test_target_that_exits_in_the_window_leaves_what_was_seen(
    spawn: Spawn,
) -> None:
    """A service that ends within the window gives a short capture, and no source fails."""
    child = spawn(SHORT_LIVED, "4.0")

    capture = look(child.pid, 60.0)

    assert capture.header.target.gone_ns is not None
    assert capture.header.interrupted.startswith("target gone")
    assert find_failed(capture) == []


def test_processes_that_come_and_go_all_the_time_fail_no_source(
    spawn: Spawn,
) -> None:
    """While a service forks hundreds of times a second, every source goes on."""
    pid = int(spawn(FLEETING).first_line)  # type: ignore[attr-defined]

    capture = look(pid, 2.0)

    assert find_failed(capture) == []
    assert capture.header.target.gone_ns is None
    assert any(row["role"] == "service" for row in to_rows(capture, "owners"))


def test_two_thousand_processes_are_looked_through(spawn: Spawn) -> None:
    """Beside two thousand processes a service is found, and who held the CPU is told."""
    child = spawn(SHORT_LIVED, "60")

    with crowd.sleeping(2000):
        capture = look(child.pid, 2.0)

    assert find_failed(capture) == []
    assert [ref.pid for ref in capture.header.target.processes] == [child.pid]
    assert any(row["name"] == "(others)" for row in to_rows(capture, "owners"))


@pytest.mark.slow
def test_quota_of_a_very_large_service_is_found(tmp_path: Path) -> None:
    """With 500 threads and 4,000 sockets a CPU quota is still the first cause."""
    if not can_limit():
        pytest.skip("needs root and a writable cgroup with the cpu controller")
    with ExitStack() as stack:
        pid = stack.enter_context(crowd.serving(500, 4000))
        stack.enter_context(crowd.throttled(pid, 20_000))
        time.sleep(2.0)
        command = [find_perfkit(), "diagnose", ".", "--pid", str(pid), "--json", "-q"]
        environment = os.environ | {"XDG_STATE_HOME": str(tmp_path)}
        ended = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=False)

    causes = json.loads(ended.stdout)["causes"]
    assert [cause["id"] for cause in causes][:1] == ["cpu_throttled"]
