"""The demo as people run it: it serves, it hurts, it says so, and it leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from perfkit.demo import cgroups

pytestmark = pytest.mark.system

RUN = (sys.executable, "-m", "perfkit.demo", "run")
START_TIMEOUT_S = 40.0
FRONTS = ("threads", "asyncio")
Start = Callable[..., "Running"]


class Running:
    """One demo in the background and the file that it keeps its state in."""

    def __init__(self, folder: Path, arguments: tuple[str, ...]) -> None:
        self._file = folder / "state.json"
        temporary = folder / "tmp"
        temporary.mkdir()
        self.temporary = temporary
        self.process = subprocess.Popen(
            [*RUN, "--state-file", str(self._file), "--warm-up-s", "2", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"TMPDIR": str(temporary)},
        )

    def wait_for(self, state: str) -> dict[str, Any]:
        """Waits until the demo has come to a state, and gives the state's fields."""
        end_s = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < end_s and self.process.poll() is None:
            if self._file.exists() and (fields := self.fields())["state"] == state:
                return fields
            time.sleep(0.05)
        raise AssertionError(f"the demo never came to {state}: {self.end(signal.SIGKILL)}")

    def fields(self) -> dict[str, Any]:
        """What the state's file holds now."""
        fields: dict[str, Any] = json.loads(self._file.read_text())
        return fields

    def end(self, number: signal.Signals) -> str:
        """Sends a signal, waits for the end, and gives all that was printed."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.communicate(timeout=20)[0]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts demos and ends them after the test."""
    running: list[Running] = []

    def begin(*arguments: str) -> Running:
        folder = tmp_path / str(len(running))
        folder.mkdir()
        running.append(Running(folder, arguments))
        return running[-1]

    yield begin
    for each in running:
        if each.process.poll() is None:
            each.end(signal.SIGTERM)
        assert each.process.stdout is not None
        each.process.stdout.close()


def left_behind(demo: Running, fields: dict[str, Any]) -> list[str]:
    """What of a demo still exists, after a moment's patience: processes, files, a cgroup."""
    pids = [fields["service_pid"], fields["load_pid"], *(each["pid"] for each in fields["shards"])]
    group = Path("/none")
    if fields.get("culprit", {}).get("kind") == "cgroup":
        own = cgroups.own_group(os.getpid())
        group = own.folder / Path(fields["culprit"]["name"]).name
    end_s = time.monotonic() + 6.0
    while True:
        left = [f"process {pid}" for pid in pids if is_alive(pid)]
        left += [str(path) for path in (*demo.temporary.iterdir(), group) if path.exists()]
        if not left or time.monotonic() > end_s:
            return left
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    """Says whether a process runs; one that only waits to be reaped does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="module", params=FRONTS)
def healthy(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """The state of a demo of each front without a fault, which tests look at and leave as it is."""
    arguments = ("--front", request.param, "--fault", "none", "--seconds", "60")
    demo = Running(tmp_path_factory.mktemp("healthy"), arguments)
    yield demo.wait_for("healthy")
    demo.end(signal.SIGTERM)


def test_demo_answers_without_a_fault(healthy: dict[str, Any]) -> None:
    """A healthy service of either front answers what is asked, without one failure."""
    before = healthy["before"]

    assert (before["failed_count"], before["answers_per_second"] > 20) == (0, True)


def test_demo_survives_foreign_bytes(healthy: dict[str, Any]) -> None:
    """A client that sends no HTTP is dropped, and the others are answered on."""
    port = healthy["service_port"]
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(b"\x16\x03\x01" + b"\xff" * 40_000)
        with contextlib.suppress(OSError):  # dropped already
            client.shutdown(socket.SHUT_WR)
        dropped = receive_all(client) == b""
    status = ask(port, b"{}")

    assert (dropped, status) == (True, b"HTTP/1.1 400 Bad Request")


def test_demo_service_is_not_above_its_load_or_shards(healthy: dict[str, Any]) -> None:
    """The service's tree is the service alone: shards and load are beside it."""
    assert psutil.Process(healthy["service_pid"]).children(recursive=True) == []


def receive_all(client: socket.socket) -> bytes:
    """All that comes until the other side closes, or resets."""
    parts = b""
    try:
        while part := client.recv(4096):
            parts += part
    except ConnectionError:
        return parts
    return parts


def ask(port: int, body: bytes) -> bytes:
    """The status line of the answer to one request."""
    head = b"POST /recommend HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n" % len(body)
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(head + body)
        return client.recv(4096).partition(b"\r\n")[0]


@pytest.mark.slow
@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("fault", ["downstream_slow", "gil_contention"])
def test_demo_fault_moves_latency(start: Start, front: str, fault: str) -> None:
    """Each fault makes either front clearly slower, measured by the load."""
    demo = start("--front", front, "--fault", fault, "--seconds", "60", "--seed", "4")
    fields = demo.wait_for("fault")

    assert fields["moved"] is True


@pytest.mark.slow
@pytest.mark.parametrize("front", FRONTS)
def test_demo_quota_moves_latency(start: Start, needs_root: None, front: str) -> None:
    """A CPU quota makes either front clearly slower, and its cgroup goes with it."""
    demo = start("--front", front, "--fault", "cpu_throttled", "--seconds", "60", "--seed", "4")
    fields = demo.wait_for("fault")
    demo.end(signal.SIGINT)

    assert (fields["moved"], demo.process.returncode) == (True, 130)
    assert left_behind(demo, fields) == []


def test_demo_leaves_nothing_behind(start: Start) -> None:
    """However a demo is ended, its processes, files and cgroup go, a fault being on."""
    demos = {number: start("--seconds", "60") for number in (signal.SIGTERM, signal.SIGKILL)}
    fields = {number: demo.wait_for("fault") for number, demo in demos.items()}
    for number, demo in demos.items():
        demo.end(number)

    left = {number: left_behind(demo, fields[number]) for number, demo in demos.items()}
    codes = [demo.process.returncode for demo in demos.values()]
    assert (codes, left) == ([143, -9], {signal.SIGTERM: [], signal.SIGKILL: []})


@pytest.mark.parametrize("delay_s", [0.3, 0.5, 0.7, 0.9, 1.2])
def test_demo_can_be_stopped_while_it_starts(start: Start, delay_s: float) -> None:
    """Ctrl-C at any moment of the start ends in order: no traceback, nothing left."""
    demo = start("--fault", "none", "--seconds", "60")
    time.sleep(delay_s)
    printed = demo.end(signal.SIGINT)

    assert (demo.process.returncode, "Traceback" in printed) == (130, False)
    assert list(demo.temporary.iterdir()) == []


def test_demo_says_when_a_part_of_it_died(start: Start) -> None:
    """A shard that dies ends the demo with one line that names it, and exit code 1."""
    demo = start("--fault", "none", "--seconds", "60")
    os.kill(demo.wait_for("healthy")["shards"][2]["pid"], signal.SIGKILL)
    printed = demo.process.communicate(timeout=20)[0]

    assert (demo.process.returncode, "demo: the demo's shard ended" in printed) == (1, True)


@pytest.mark.parametrize(
    ("option", "choices"), [("--fault", "downstream_slow"), ("--front", "asyncio")]
)
def test_demo_unknown_choice_is_one_line_with_the_choices(option: str, choices: str) -> None:
    """A name that does not exist is answered by one line with those that do, and exit code 2."""
    ended = subprocess.run([*RUN, option, "nope"], capture_output=True, text=True, check=False)

    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert choices in ended.stderr


def test_demo_runs_a_command_on_the_service(start: Start) -> None:
    """`--exec` runs a command with the service's pid, and the demo ends with its exit code."""
    source = "import sys; print('given', sys.argv[1]); sys.exit(7)"
    command = f'{sys.executable} -c "{source}" {{pid}}'
    demo = start("--fault", "none", "--exec", command)
    printed = demo.process.communicate(timeout=60)[0]

    assert (demo.process.returncode, f"given {demo.fields()['service_pid']}" in printed) == (
        7,
        True,
    )
