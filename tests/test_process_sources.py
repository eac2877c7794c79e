"""What is read of each process once a second: open descriptors, and whether it may run."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from perfkit.agent.target import resolve
from perfkit.collectors import descriptors, process_states
from perfkit.collectors._members import UPDATE_INTERVAL_NS
from perfkit.host import Host
from perfkit.model import Collector, Row, Session

MAIN_PID = 5000001
PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_DETACH = 0x4206, 0x4207, 17
Tree = Callable[[str], Host]
OPENER = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))
print("ready", flush=True)
for line in sys.stdin:
    kept = [open("/dev/null") for _ in range(int(line))]
    print("done", flush=True)
"""
SLEEPER = "import sys; print('ready', flush=True); sys.stdin.readline()"


def open_on(collector: Collector, pid: int) -> Session:
    """A session of a collector on one real process."""
    host = Host()
    return collector.open(host, resolve(host, pid, only_pid=True, own_pid=-1))


def rows_of(session: Session) -> list[tuple[int | float | str, ...]]:
    """The rows of one poll."""
    return [item.values for item in session.poll() if isinstance(item, Row)]


@pytest.mark.system
def test_descriptors_are_counted(spawn: Callable[..., object]) -> None:
    """A process that opens 23 files has 23 more of them, of the 100 that it may have."""
    child = spawn(OPENER)
    session = open_on(descriptors.COLLECTOR, child.pid)
    before = rows_of(session)[0]

    child.stdin.write("23\n")
    child.stdin.flush()
    child.stdout.readline()
    after = rows_of(session)[0]

    assert (before[3], after[2] - before[2]) == (100, 23)


@pytest.mark.system
def test_descriptors_tell_only_changes(spawn: Callable[..., object]) -> None:
    """A process whose descriptors stay as they are makes one row."""
    session = open_on(descriptors.COLLECTOR, spawn(SLEEPER).pid)
    rows_of(session)

    assert rows_of(session) == []


def test_descriptors_are_listed_where_the_kernel_does_not_count(tree: Tree) -> None:
    """Without the size of Linux 6.2 the names are counted, and not again at once."""
    clock = iter(range(0, 10_000_000_000, 1_000_000))
    host = Host(tree("v2").proc, tree("v2").sys, lambda: next(clock))
    session = descriptors.COLLECTOR.open(host, resolve(tree("v2"), MAIN_PID, only_pid=True))

    first, second = rows_of(session), rows_of(session)

    assert [row[2] for row in first if row[1] == MAIN_PID] == [2]
    assert second == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Max open files            1024                 4096                 files", 1024),
        ("Max open files            unlimited            unlimited            files", -1),
        ("Max open files", -1),
        ("", -1),
        ("Max open files            99999999999999999999999 1 files", 1 << 61),
    ],
)
def test_soft_limit_is_parsed(text: str, expected: int) -> None:
    """Anything but a whole number is no limit."""
    assert descriptors.parse_soft_limit(text) == expected


def letters_of(session: Session) -> list[str]:
    """The state letters told in one poll."""
    return [chr(int(row[4])) for row in rows_of(session)]


def wait_for_letter(pid: int, letters: str) -> None:
    """Waits until the kernel shows one of these letters for a process."""
    end = time.monotonic() + 5
    path = Path(f"/proc/{pid}/stat")
    while path.read_text().rpartition(")")[2].split()[0] not in letters:
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.system
def test_stopped_process_is_told_and_told_again_when_it_goes_on(
    spawn: Callable[..., object],
) -> None:
    """A stop and its end are a row each; a process that goes on running adds none."""
    child = spawn(SLEEPER)
    session = open_on(process_states.COLLECTOR, child.pid)
    first = letters_of(session)

    os.kill(child.pid, signal.SIGSTOP)
    wait_for_letter(child.pid, "T")
    stopped = letters_of(session)
    os.kill(child.pid, signal.SIGCONT)
    wait_for_letter(child.pid, "SR")
    went_on, quiet = letters_of(session), letters_of(session)

    assert (first, stopped, went_on, quiet) == (["R"], ["T"], ["R"], [])


@pytest.mark.system
def test_traced_process_is_told_with_its_tracer(spawn: Callable[..., object]) -> None:
    """A process that a debugger holds is told with the debugger's pid and name."""
    child = spawn(SLEEPER)
    session = open_on(process_states.COLLECTOR, child.pid)
    rows_of(session)

    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
    if ptrace(PTRACE_SEIZE, child.pid, None, None) != 0:
        pytest.skip("this user may not trace its children")
    ptrace(PTRACE_INTERRUPT, child.pid, None, None)
    wait_for_letter(child.pid, "t")
    row = rows_of(session)[0]
    ptrace(PTRACE_DETACH, child.pid, None, None)

    name = Path("/proc/self/comm").read_text().strip()
    assert (chr(int(row[4])), row[5], row[6]) == ("t", os.getpid(), name)


@pytest.fixture
def freezer_group(needs_root: None) -> Iterator[Path]:
    """An own cgroup of the freezer, thawed and removed afterwards."""
    base = Path("/sys/fs/cgroup/freezer")
    if not (base / "cgroup.procs").exists():
        pytest.skip("needs the freezer of cgroup version 1")
    group = base / f"perfkit-test-{os.getpid()}"
    group.mkdir()
    yield group
    (group / "freezer.state").write_text("THAWED")
    for pid in (group / "cgroup.procs").read_text().split():
        (base / "cgroup.procs").write_text(pid)
    group.rmdir()


@pytest.mark.system
def test_frozen_process_is_told(freezer_group: Path, spawn: Callable[..., object]) -> None:
    """A process whose cgroup is frozen is told, though its letter says nothing of it."""
    child = spawn(SLEEPER)
    (freezer_group / "cgroup.procs").write_text(str(child.pid))
    session = open_on(process_states.COLLECTOR, child.pid)
    before = rows_of(session)[0]

    (freezer_group / "freezer.state").write_text("FROZEN")
    after = rows_of(session)[0]
    (freezer_group / "freezer.state").write_text("THAWED")

    assert (before[7], after[7]) == (0, 1)


def test_process_that_dumps_core_is_told(tree: Tree, tmp_path: Path) -> None:
    """The kernel says in status that a core dump is being written."""
    shutil.copytree(tree("v2").proc, tmp_path / "proc", symlinks=True)
    host = Host(tmp_path / "proc", tree("v2").sys, lambda: 1)
    target = resolve(host, MAIN_PID, only_pid=True)
    status = tmp_path / f"proc/{MAIN_PID}/status"
    status.write_text(status.read_text() + "CoreDumping:\t1\n")

    row = rows_of(process_states.COLLECTOR.open(host, target))[0]

    assert row[8] == 1


@pytest.mark.system
def test_age_is_told(spawn: Callable[..., object]) -> None:
    """The age of a process is the time since it was started."""
    begin_ns = time.monotonic_ns()
    child = spawn(SLEEPER)
    time.sleep(0.1)

    row = rows_of(open_on(process_states.COLLECTOR, child.pid))[0]

    assert 90_000_000 <= row[3] <= time.monotonic_ns() - begin_ns + 10_000_000


@pytest.mark.system
def test_worker_that_came_later_is_told(spawn: Callable[..., object]) -> None:
    """A process that the service starts in the window gets a row with its age."""
    forker = (
        "import subprocess, sys; print('ready', flush=True); sys.stdin.readline();"
        "child = subprocess.Popen(['sleep', '60']); print(child.pid, flush=True);"
        "sys.stdin.readline(); child.kill(); child.wait()"
    )
    child = spawn(forker)
    moments = [time.monotonic_ns()]
    host = Host(now_ns=lambda: moments[-1])
    target = resolve(host, child.pid, only_pid=False, own_pid=-1)
    session = process_states.COLLECTOR.open(host, target)
    rows_of(session)

    child.stdin.write("go\n")
    child.stdin.flush()
    pid = int(child.stdout.readline())
    moments.append(moments[0] + UPDATE_INTERVAL_NS)
    rows = rows_of(session)

    assert [(row[1], row[2]) for row in rows] == [(pid, child.pid)]
    assert 0 <= rows[0][3] < 5_000_000_000
