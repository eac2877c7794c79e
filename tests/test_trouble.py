"""Services in trouble of their own: far inside namespaces, dumping core, silent, or never the same.

Each is looked at by the command itself, so that nothing here is related to the service by descent.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from capture_values import to_rows

from perfkit.codec import decode
from perfkit.model import Capture, Status

pytestmark = pytest.mark.system
PERFKIT = (sys.executable, "-m", "perfkit")
Spawn = Callable[..., "subprocess.Popen[str]"]
# One connection, over which one client asks again and again; both in one process.
CHATTY = """
import socket, subprocess, sys, threading, time
subprocess.run(["ip", "link", "set", "lo", "up"], check="apart" in sys.argv)
listener = socket.create_server(("127.0.0.1", 0))
mine = socket.create_connection(listener.getsockname())
theirs, _ = listener.accept()
def serve():
    while theirs.recv(64):
        sum(range(20_000))
        theirs.sendall(b"answer")
threading.Thread(target=serve, daemon=True).start()
print("ready", flush=True)
while True:
    mine.sendall(b"request"); mine.recv(64); time.sleep(0.01)
"""
# Connections that nobody uses, or none at all.
SILENT = """
import socket, sys
listener = socket.create_server(("127.0.0.1", 0))
kept = [socket.create_connection(listener.getsockname()) for _ in range(int(sys.argv[1]))]
kept += [listener.accept()[0] for _ in range(int(sys.argv[1]))]
print("ready", flush=True)
listener.accept()
"""
# Much memory, none of it zero, all of which goes into a core.
LARGE = """
import mmap, os, resource, sys, threading, time
os.chdir(sys.argv[1])
resource.setrlimit(resource.RLIMIT_CORE, (-1, -1))
memory = mmap.mmap(-1, int(sys.argv[2]) << 20)
page = bytes(range(1, 256)) * 4112
for place in range(0, len(memory) - len(page), len(page)):
    memory[place:place + len(page)] = page
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
print("ready", flush=True)
while True:
    sum(range(10_000)); time.sleep(0.001)
"""
APPLICATION = """
def application(environment, start):
    sum(range(20_000))
    start("200 OK", [("Content-Length", "6")])
    return [b"answer"]
"""


def diagnose(pid: int, folder: Path, seconds: float) -> tuple[dict[str, Any], Capture]:
    """What the command says of a service, and the capture that it keeps."""
    command = [*PERFKIT, "diagnose", ".", "--pid", str(pid), "--seconds", f"{seconds:g}", "--json"]
    environment = os.environ | {"XDG_STATE_HOME": str(folder / "state")}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=150, env=environment
    )
    assert done.returncode == 0, done.stderr
    (kept,) = (folder / "state/perfkit/runs").glob("*.capture")
    return json.loads(done.stdout), decode(kept.read_bytes())


def find_failed(capture: Capture) -> list[Status]:
    """The sources that met an error; one that was late is no matter on a busy machine."""
    failed = [status for status in capture.header.statuses if status.state == "failed"]
    return [status for status in failed if not status.reason.startswith(("did not", "had not"))]


def child_of(pid: int) -> int:
    """The first child of a process."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if children:
            return int(children[0])
        time.sleep(0.02)
    raise AssertionError(f"{pid} has no child")


@pytest.fixture
def far_inside() -> Iterator[int]:
    """The pid, as we see it, of a service in user, pid, mount, network and UTS namespaces."""
    apart = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]
    apart += ["--mount", "--mount-proc", "--net", "--uts"]
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("needs unshare (util-linux) and ip (iproute2)")
    if subprocess.run([*apart, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody make these namespaces")
    command = [*apart, sys.executable, "-c", CHATTY, "apart"]
    leader = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert leader.stdout is not None
    try:
        assert leader.stdout.readline() == "ready\n"
        yield child_of(leader.pid)
    finally:
        leader.kill()
        leader.wait()
        leader.stdout.close()


def test_service_in_namespaces_of_its_own_is_seen_whole(far_inside: int, tmp_path: Path) -> None:
    """Behind five namespaces answers are counted and the interpreter found; no source is lost."""
    report, capture = diagnose(far_inside, tmp_path, 3.0)

    roles = {row["role"] for row in to_rows(capture, "sockets")}
    runtimes = {row["pid"] for row in to_rows(capture, "python_runtimes")}
    assert find_failed(capture) == []
    assert (report["target"]["pid"], runtimes) == (far_inside, {far_inside})
    assert capture.header.target.network_namespace != Path("/proc/self/ns/net").stat().st_ino
    assert capture.header.target.listening[0].startswith("127.0.0.1:")
    assert roles >= {"listener", "accepted"}
    assert report["budget"]["answers_per_second"] > 20


@pytest.mark.parametrize("connection_count", [0, 3])
def test_service_without_a_request_is_idle(
    spawn: Spawn, tmp_path: Path, connection_count: int
) -> None:
    """Open connections that nobody uses, or none, are no load and no trouble."""
    child = spawn(SILENT, str(connection_count))

    report, capture = diagnose(child.pid, tmp_path, 2.0)

    assert find_failed(capture) == []
    assert (report["verdict"]["state"], report["causes"]) == ("idle", [])
    assert capture.header.interrupted == ""


@pytest.mark.slow  # a core of 1.5 GB is written
def test_core_dump_in_the_window_is_told(spawn: Spawn, tmp_path: Path) -> None:
    """While the kernel writes a core the window goes on, and the dump is a fact of the capture."""
    if Path("/proc/sys/kernel/core_pattern").read_text().strip() != "core":
        pytest.skip("cores of this machine do not go into the working directory")
    if resource.getrlimit(resource.RLIMIT_CORE)[1] != resource.RLIM_INFINITY:
        pytest.skip("needs the right to write a core of any size")
    child = spawn(LARGE, str(tmp_path), "1500")
    abort = threading.Timer(3.0, child.send_signal, [signal.SIGABRT])
    abort.start()

    begin_s = time.monotonic()
    _, capture = diagnose(child.pid, tmp_path, 8.0)
    took_s = time.monotonic() - begin_s
    abort.join()
    for core in tmp_path.glob("core*"):
        core.unlink()

    assert find_failed(capture) == []
    assert 1 in {row["is_dumping"] for row in to_rows(capture, "process_states")}
    assert took_s < 60


@pytest.mark.slow  # gigabytes are written to and given back
def test_exit_with_much_memory_ends_the_window(spawn: Spawn, tmp_path: Path) -> None:
    """A service that is killed with gigabytes in use is gone, and what was seen of it is told."""
    child = spawn(LARGE, str(tmp_path), "2500")
    kill = threading.Timer(3.0, child.kill)
    kill.start()

    report, capture = diagnose(child.pid, tmp_path, 60.0)
    kill.join()

    assert find_failed(capture) == []
    assert capture.header.interrupted.startswith("target gone after ")
    assert report["window"]["interrupted"] == capture.header.interrupted
    assert to_rows(capture, "thread_runs")


@contextlib.contextmanager
def asking(port: int) -> Iterator[None]:
    """Asks a server over a new connection each time, from two threads."""
    stop = threading.Event()

    def ask() -> None:
        while not stop.wait(0.03):
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
                connection.request("GET", "/")
                connection.getresponse().read()
                connection.close()

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.fixture
def restless(tmp_path: Path) -> Iterator[int]:
    """The master of a gunicorn whose workers end after five requests each, under load."""
    program = Path(sys.executable).with_name("gunicorn")
    if not program.exists():
        pytest.skip("gunicorn is not installed")
    (tmp_path / "restless_app.py").write_text(APPLICATION)
    words = ["--workers", "3", "--max-requests", "5", "--bind", "127.0.0.1:0"]
    log = (tmp_path / "log").open("w+")
    master = subprocess.Popen(
        [str(program), *words, "restless_app:application"], cwd=tmp_path, stderr=log
    )
    try:
        with asking(await_port(tmp_path / "log")):
            time.sleep(1.0)
            yield master.pid
    finally:
        master.terminate()
        master.wait()
        log.close()


def await_port(log: Path) -> int:
    """The port that gunicorn says it listens on."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        _, found, rest = log.read_text().partition("Listening at: http://127.0.0.1:")
        if found and "\n" in rest:
            return int(rest.split()[0])
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def test_workers_that_restart_all_the_time_are_one_service(restless: int, tmp_path: Path) -> None:
    """Workers that come and go within the window all count, and none of it is an error."""
    report, capture = diagnose(restless, tmp_path, 6.0)

    events = [row["event"] for row in to_rows(capture, "processes")]
    started = {row["pid"] for row in to_rows(capture, "processes") if row["event"] == "started"}
    sampled = {row["pid"] for row in to_rows(capture, "threads")}
    assert find_failed(capture) == []
    assert (capture.header.interrupted, report["target"]["pid"]) == ("", restless)
    assert events.count("started") >= 3
    assert events.count("exited") >= 3
    assert sampled & started
    assert report["verdict"]["state"] != "idle"
