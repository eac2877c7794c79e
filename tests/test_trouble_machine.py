"""The machine in trouble: a full disk, a clock that is set, far more runnable tasks than CPUs."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_loop import beat, make_collector, reader, run, to_capture_rows
from test_trouble import CHATTY, PERFKIT, diagnose

CAPTURE = Path(__file__).parent / "captures/cpu_throttled.fires.threads.perfkit"
TASKS_PER_CPU = 50
BURNERS = """
import os, sys
pids = []
for _ in range(int(sys.argv[1])):
    pid = os.fork()
    if pid == 0:
        while True: pass
    pids.append(pid)
print("ready", flush=True)
sys.stdin.read()
for pid in pids:
    os.kill(pid, 9)
    os.waitpid(pid, 0)
"""


@pytest.fixture
def full_disk(tmp_path: Path, needs_root: None) -> Iterator[Path]:
    """A file system without room."""
    folder = tmp_path / "full"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    (folder / "filler").write_bytes(bytes(64 << 10))
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("name", ["markdown", "json", "svg"])
def test_report_that_does_not_fit_on_the_disk_is_said(full_disk: Path, name: str) -> None:
    """It names the file, why, and what to do; no part of a report is left, and the code is 3."""
    path = full_disk / "report"

    done = subprocess.run(
        [*PERFKIT, "report", str(CAPTURE), "--to", name, "-o", str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        f"error: cannot write {path}: no space left on device\n"
        "  fix     make room there, or name a file on another disk\n"
    )
    assert [left.name for left in full_disk.iterdir()] == ["filler"]


def test_clock_that_is_set_moves_no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour's step of UTC in the window shows in its end alone: time in captures is monotonic."""
    real, step_ns = time.time_ns, [0]
    monkeypatch.setattr(time, "time_ns", lambda: real() + step_ns[0])
    timer = threading.Timer(0.5, lambda: step_ns.__setitem__(0, -3_600_000_000_000))
    timer.start()

    recording = run([make_collector(reader(beat))], seconds=1.0)
    timer.join()

    clock = recording.clock
    times = [row["t_ns"] for row in to_capture_rows(recording, "series")]
    assert 0.9e9 < clock.end_ns - clock.start_ns < 1.5e9
    assert clock.end_utc_ns - clock.start_utc_ns < -3_598e9
    assert times == sorted(times)
    assert clock.start_ns <= times[0] <= times[-1] <= clock.end_ns + 1e9


@pytest.mark.slow
@pytest.mark.system
def test_report_comes_from_a_machine_with_far_too_much_to_do(
    spawn: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """With 50 runnable tasks per CPU the report still comes, and states the ticks it missed."""
    service = spawn(CHATTY)
    burners = spawn(BURNERS, str(TASKS_PER_CPU * (os.cpu_count() or 1)))

    begin_s = time.monotonic()
    report, capture = diagnose(service.pid, tmp_path, 5.0)
    took_s = time.monotonic() - begin_s
    assert burners.stdin is not None
    burners.stdin.close()
    burners.wait()

    rates = {rate.sampler: rate for rate in capture.header.rates}
    assert took_s < 100
    assert report["target"]["pid"] == service.pid
    assert rates["threads"].missed_count > 0
    assert any("ticks missed" in note for note in report["footnotes"])
