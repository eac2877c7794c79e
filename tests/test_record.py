"""One recording of a live service, from the choice of the target to the bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from capture_values import to_rows

from perfkit import codec
from perfkit.agent.loop import Progress
from perfkit.agent.record import RecordOptions, record
from perfkit.errors import TargetError, UsageError
from perfkit.fetch.local import fetch
from perfkit.host import Host
from perfkit.model import Capture

Spawn = Callable[..., "subprocess.Popen[str]"]

# The service leaves its parent, since perfkit never counts its own children to a target.
SERVICE = """
import os, sys, threading, time
if pid := os.fork():
    print(pid, flush=True)
    os._exit(0)
def burn():
    while True:
        end = time.thread_time() + 0.002
        while time.thread_time() < end: pass
        time.sleep(0.008)
threading.Thread(target=burn, daemon=True).start()
time.sleep(60)
"""


def record_pid(pid: int, **options: object) -> Capture:
    """Records a process for one second and reads the bytes back."""
    wanted = {"pid": pid, "seconds": 1.0, **options}
    return codec.decode(record(RecordOptions(**wanted)))  # type: ignore[arg-type]


@pytest.fixture
def service(spawn: Spawn) -> int:
    """The pid of a service that burns a fifth of a core."""
    return int(spawn(SERVICE).first_line)  # type: ignore[attr-defined]


@pytest.mark.system
def test_record_gives_a_capture_of_the_service(service: int) -> None:
    """The bytes hold the target, a status of every source, their tables, and the own cost."""
    capture = record_pid(service)

    header = capture.header
    rows = to_rows(capture, "owners")
    states = {status.collector: status.state for status in header.statuses}
    assert header.target.main_pid == service
    assert 0.99e9 < header.clock.end_ns - header.clock.start_ns < 1.2e9
    assert states["processes"] == states["owners"] == states["cpu"] == "ok"
    assert any(row["pid"] == service and row["role"] == "service" for row in rows)
    assert header.machine.cpu_count > 0
    assert header.host
    assert header.cost.memory_peak_bytes > 0


@pytest.mark.system
def test_record_probes_unless_told_not_to(service: int) -> None:
    """Without probes their table is missing, and a status says that it was wished so."""
    capture = record_pid(service, probe=False)

    status = next(one for one in capture.header.statuses if one.collector == "probe")
    assert (status.state, status.reason) == ("unavailable", "switched off with --no-probe")
    assert "probes" not in capture.tables


@pytest.mark.system
def test_record_runs_only_the_collectors_named(service: int) -> None:
    """A filter leaves the other sources out, without a status of theirs."""
    capture = record_pid(service, collectors=("cpu", "owners"), probe=False)

    assert [one.collector for one in capture.header.statuses] == ["cpu", "owners", "probe"]


@pytest.mark.system
def test_record_that_is_stopped_keeps_what_it_has(service: int) -> None:
    """Ctrl-C gives the part that was recorded, at once and without probing."""
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    begin = time.monotonic()

    capture = record_pid(service, seconds=30.0, stop=stop)

    assert time.monotonic() - begin < 4.0
    assert capture.header.interrupted.endswith(" of 30 s")
    assert capture.header.requested_s == 30.0
    assert capture.tables["series"].row_count > 0


@pytest.mark.system
def test_first_progress_comes_within_a_second(service: int) -> None:
    """The user hears of the window before a second has passed."""
    told: list[float] = []
    begin = time.monotonic()

    def tell(progress: Progress) -> None:
        told.append(time.monotonic() - begin)

    record_pid(service, progress=tell)

    assert told[0] < 1.0


def record_as_nobody(pid: int, path: Path) -> Capture:
    """What another user records of a process."""
    with path.open("wb") as out:
        child = os.fork()
        if child == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            out.write(record(RecordOptions(pid=pid, seconds=1.0)))
            out.flush()
            os._exit(0)
        os.waitpid(child, 0)
    return codec.decode(path.read_bytes())


def test_record_of_the_host_says_what_it_left_out(tree: Callable[[str], Host]) -> None:
    """Without a service only the host is read, and the other sources say why they are not."""
    empty = tree("none").proc.parent / "sys"

    capture = codec.decode(record(RecordOptions(host=Host(proc=empty, sys=empty), seconds=0.2)))

    by_name = {status.collector: status for status in capture.header.statuses}
    assert capture.header.target.kind == "host"
    assert by_name["threads"].reason == "no service was looked at"
    assert by_name["cpu"].reason.endswith("stat: no such file or directory")
    assert {"probe", "sockets", "owners"} <= by_name.keys()


@pytest.mark.system
@pytest.mark.usefixtures("needs_root")
def test_record_without_rights_says_what_it_could_not_see(service: int, tmp_path: Path) -> None:
    """As another user every source has its own status, and what is open to all is measured."""
    capture = record_as_nobody(service, tmp_path / "capture")

    states = {status.collector: status.state for status in capture.header.statuses}
    assert "cannot be read" in capture.header.target.chosen_by
    assert (states["cpu"], states["owners"], states["processes"]) == ("ok", "ok", "ok")
    assert "failed" not in states.values()
    assert any(row["pid"] == service for row in to_rows(capture, "owners"))


RECORDER = """
import sys
from perfkit.agent.record import RecordOptions, record
sys.stdout.buffer.write(record(RecordOptions(pid=int(sys.argv[1]), seconds=1.5)))
"""


@pytest.mark.system
def test_two_recordings_at_once_do_not_disturb_each_other(service: int) -> None:
    """Two perfkits on one service both get all their sources."""
    command = [sys.executable, "-c", RECORDER, str(service)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]

    captures = [codec.decode(one.communicate()[0]) for one in both]

    states = [{s.state for s in c.header.statuses if s.collector != "cgroup"} for c in captures]
    assert [found & {"failed"} for found in states] == [set(), set()]
    assert [c.tables["owners"].row_count > 0 for c in captures] == [True, True]


@pytest.mark.system
def test_record_of_a_stopped_service_is_a_record(service: int) -> None:
    """A service that is stopped by a signal is measured like any other, its state is told."""
    os.kill(service, signal.SIGSTOP)

    capture = record_pid(service)

    letters = {row["state_letter"] for row in to_rows(capture, "processes")}
    assert letters == {ord("T")}
    assert capture.header.interrupted == ""


WITHOUT_EXTENSION = """
import sys
sys.modules["perfkit._native"] = None
from perfkit.errors import NativeMissing
from perfkit.fetch.local import RecordOptions, fetch
try:
    fetch(RecordOptions(seconds=1.0))
except NativeMissing as missing:
    print(missing.exit_code, missing.fix, missing.effect)
"""


def test_record_without_the_extension_names_the_fix() -> None:
    """Where the C extension is missing, one error says what to install, with exit code 3."""
    words = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTENSION], capture_output=True, text=True, check=True
    ).stdout

    assert words.startswith("3 install a C compiler")
    assert "pip install" in words
    assert "nothing was measured" in words


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e9, float("nan")])
def test_record_refuses_absurd_windows(seconds: float) -> None:
    """A window that is no length of time is a usage error."""
    with pytest.raises(UsageError, match="a window of"):
        fetch(RecordOptions(seconds=seconds))


def test_record_refuses_unknown_collectors() -> None:
    """A misspelt collector is a usage error that lists the ones there are."""
    with pytest.raises(UsageError, match="unknown collector 'cpus'") as caught:
        fetch(RecordOptions(seconds=1.0, collectors=("cpus",)))

    assert "cpu, " in caught.value.fix


def test_record_refuses_a_dead_pid() -> None:
    """A pid that no process has is an error before anything is measured."""
    child = subprocess.Popen(["true"])
    child.wait()

    with pytest.raises(TargetError, match=f"no process has the pid {child.pid}"):
        fetch(RecordOptions(pid=child.pid, seconds=1.0))
