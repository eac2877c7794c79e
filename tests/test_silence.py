"""Files that never answer: a FIFO without a writer stands in the place of each, in turn."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from attacks import MAIN_PID, copy_links, find_target, list_opened, plant, put, run_session

from perfkit import discover
from perfkit.agent import aside, loop
from perfkit.agent.aside import PATIENCE_S
from perfkit.agent.target import resolve
from perfkit.collectors import cpu, python_stacks
from perfkit.errors import TargetError
from perfkit.host import Host
from perfkit.model import Collector, Status

COLLECTORS: dict[str, Collector] = discover.load_all("perfkit.collectors", "COLLECTOR")
WINDOW_S = 0.2
# Read by C, which does not say what it hangs at.
BY_C = ("cpu.stat", "schedstat", "stat", "syscall")
# Another process than the one that is named, which is none of its service.
FOREIGN = "proc/5000007/stat"
CGROUP = "sys/fs/cgroup/app.slice/web.service/cgroup.procs"


@pytest.fixture(autouse=True)
def _in_haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits for openings and ends are as short as a tree of files deserves."""
    monkeypatch.setattr(python_stacks, "CHOICE_S", 0.0)
    monkeypatch.setattr(python_stacks, "SETTLE_S", 0.0)
    monkeypatch.setattr(loop, "OPEN_LIMIT_S", 0.1)
    monkeypatch.setattr(loop, "CLOSE_LIMIT_S", 0.2)
    monkeypatch.setattr(aside, "FIRST_LOOK_LIMIT_S", 0.1)


def count_tasks() -> int:
    """The threads of this process, those of C included."""
    return sum(1 for _ in Path("/proc/self/task").iterdir())


@contextlib.contextmanager
def silenced(paths: list[Path]) -> Iterator[None]:
    """Has files not answer for a while; then lets everybody go who waits for them."""
    before = count_tasks()
    for path in paths:
        put(path, "silent")
    try:
        yield
    finally:
        deadline = time.monotonic() + 10
        while count_tasks() > before and time.monotonic() < deadline:
            for path in paths:
                with contextlib.suppress(OSError):  # nobody waits for this one now
                    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
            time.sleep(0.005)


def timed_resolve(host: Host) -> tuple[float, str]:
    """How long choosing the target took, and what became of it."""
    begin_s = time.monotonic()
    try:
        words = f"pid {resolve(host, MAIN_PID, only_pid=False).main_pid}"
    except TargetError as error:
        words = error.what
    return time.monotonic() - begin_s, words


def test_target_is_chosen_without_files_that_do_not_answer(tmp_path: Path) -> None:
    """Each silent file costs its patience once, and only that of the target itself its target."""
    host = plant("v2", tmp_path / "v2")
    act = partial(resolve, host, MAIN_PID, only_pid=False)
    kinds = list_opened(act, tmp_path / "v2")
    paths = [
        path for path in {*kinds.values(), FOREIGN, CGROUP} if (tmp_path / "v2" / path).is_file()
    ]
    hosts = [copy_links(host, tmp_path / str(place)) for place in range(len(paths))]
    silent = [one.proc.parent / path for one, path in zip(hosts, paths, strict=True)]

    with silenced(silent), ThreadPoolExecutor(len(hosts)) as pool:
        found = dict(zip(paths, pool.map(timed_resolve, hosts), strict=True))

    own = f"proc/{MAIN_PID}/stat"
    assert {path: words for path, (_, words) in found.items() if path != own} == dict.fromkeys(
        set(paths) - {own}, f"pid {MAIN_PID}"
    )
    assert found[own][1].endswith(f"{own}: did not answer")
    assert max(took_s for took_s, _ in found.values()) < PATIENCE_S + 1.0
    assert {FOREIGN, CGROUP} <= found.keys()


def test_too_many_silent_files_are_said(tmp_path: Path) -> None:
    """Where nothing answers the target is refused with the files' names, after a few seconds."""
    host = plant("v2", tmp_path / "v2")
    silent = [folder / "stat" for folder in host.proc.glob("500*")]

    with silenced(silent):
        took_s, words = timed_resolve(host)

    assert words.startswith("processes cannot be looked at: ")
    assert words.count("/stat") >= 1
    assert took_s < 8 * PATIENCE_S


def record_silenced(collector: Collector, host: Host) -> tuple[float, dict[str, Status]]:
    """How long a window of one collector, and one that is sound, took, and how they fared."""
    begin_s = time.monotonic()
    recording = loop.run(
        host,
        find_target("v2"),
        [collector, cpu.COLLECTOR if collector.name != "cpu" else COLLECTORS["memory"]],
        WINDOW_S,
        stop=threading.Event(),
    )
    statuses = {status.collector: status for status in recording.statuses}
    return time.monotonic() - begin_s, statuses


@pytest.mark.parametrize("name", sorted(COLLECTORS))
def test_collector_whose_file_never_answers_is_alone(name: str, tmp_path: Path) -> None:
    """Whichever of its files hangs, the window ends in time, and another source is sound."""
    collector, target = COLLECTORS[name], find_target("v2")
    host = plant("v2", tmp_path / "v2")
    kinds = list_opened(partial(run_session, collector, host, target), tmp_path / "v2")
    paths = [path for path in kinds.values() if (tmp_path / "v2" / path).is_file()]
    hosts = [copy_links(host, tmp_path / str(place)) for place in range(len(paths))]
    silent = [one.proc.parent / path for one, path in zip(hosts, paths, strict=True)]

    with silenced(silent), ThreadPoolExecutor(len(hosts)) as pool:
        found = list(pool.map(partial(record_silenced, collector), hosts))

    faults = []
    for path, (took_s, statuses) in zip(paths, found, strict=True):
        mine = statuses.pop(name)
        is_named = mine.reason.endswith(f"/{path}") or Path(path).name in BY_C
        if mine.state == "failed" and not (is_named and mine.reason.startswith("did not answer")):
            faults.append(f"{path}: {mine.reason[:100]}")
        faults += [f"{path}: {took_s:.1f} s"] if took_s > 3.0 else []
        faults += [
            f"{path}: {one.collector}, {one.reason}"
            for one in statuses.values()
            if one.state != "ok"
        ]
    assert faults == []


PROGRAM = """
import sys, time
from pathlib import Path
from perfkit.agent.record import RecordOptions, record
from perfkit.analysis.analyse import analyse
from perfkit.codec import decode
from perfkit.host import Host
root = Path(sys.argv[1])
begin_s = time.monotonic()
options = RecordOptions(Host(root / "proc", root / "sys"), int(sys.argv[2]), seconds=1.0)
capture = decode(record(options))
report = analyse(capture)
print(len(capture.header.statuses), report.verdict.state, time.monotonic() - begin_s)
"""


@pytest.mark.parametrize("path", [FOREIGN, f"proc/{MAIN_PID}/cgroup"])
def test_silent_file_delays_neither_report_nor_exit(path: str, tmp_path: Path) -> None:
    """With every source on, the report comes and the program ends although a read never does."""
    plant("v2", tmp_path / "v2")
    put(tmp_path / "v2" / path, "silent")

    begin_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "v2"), str(MAIN_PID)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    took_s = time.monotonic() - begin_s

    assert (done.returncode, done.stderr) == (0, "")
    status_count, state, reported_s = done.stdout.split()
    assert int(status_count) == len(COLLECTORS) + 1  # the probe's is the last
    assert state in ("idle", "insufficient", "unexplained")
    assert float(reported_s) < 1.0 + 4.0
    assert took_s - float(reported_s) < 3.0
