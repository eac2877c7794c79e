"""Everything that one demo runs: shards, service and load, each a process beside the others."""

from __future__ import annotations

import json
import os
import queue
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from perfkit.demo import janitor
from perfkit.demo.latency import Latency, measure
from perfkit.demo.load import Asked
from perfkit.demo.options import LoadOptions, ServiceOptions, WorldOptions
from perfkit.demo.pipeline import SHARD_COUNT, write_features
from perfkit.errors import PerfkitError

START_TIMEOUT_S = 20.0
ORDER_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 2.0
ABOVE = "see its message above"
ASKED_MAX = 400_000
STRENGTH_LOW, STRENGTH_HIGH = 0.8, 1.3
MILD_RATIO = 0.06


class DemoError(PerfkitError):
    """The demo could not be started, or a part of it ended early."""


class Child:
    """One process of the demo; it ends with `stop`, or when the supervisor dies."""

    def __init__(self, role: str, arguments: tuple[str, ...]) -> None:
        self.role = role
        self._answers: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._hear: Callable[[dict[str, Any]], None] = self._answers.put
        self._process = subprocess.Popen(
            [sys.executable, "-m", "perfkit.demo", role, "--parent", str(os.getpid()), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Out of the terminal's reach: Ctrl-C is the supervisor's, which stops all in order.
            start_new_session=True,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
        self.pid = self._process.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_port(self) -> int:
        """Waits until the child has announced its port. Raises `DemoError`."""
        return int(self._answer(START_TIMEOUT_S)["port"])

    def order(self, **order: Any) -> dict[str, Any]:
        """Gives an order and waits until it is carried out. Raises `DemoError`."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise DemoError(f"the demo's {self.role} is gone", fix=ABOVE) from error
        return self._answer(ORDER_TIMEOUT_S)

    def hear(self, hear: Callable[[dict[str, Any]], None]) -> None:
        """From now on each line of the child goes to `hear`."""
        self._hear = hear

    def is_running(self) -> bool:
        """Says whether the child has not ended."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Ends the child and waits for it."""
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(STOP_TIMEOUT_S)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def _answer(self, timeout_s: float) -> dict[str, Any]:
        end_s = time.monotonic() + timeout_s
        while time.monotonic() < end_s and (self.is_running() or not self._answers.empty()):
            try:
                return self._answers.get(timeout=0.1)
            except queue.Empty:
                continue
        state = "does not answer" if self.is_running() else "ended"
        raise DemoError(f"the demo's {self.role} {state}", fix=ABOVE)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._hear(json.loads(line))


class Watch:
    """What the load has reported so far."""

    def __init__(self) -> None:
        self._asked: deque[Asked] = deque(maxlen=ASKED_MAX)
        self._waiting_ns: list[int] = []
        self._lock = threading.Lock()

    def hear(self, report: dict[str, Any]) -> None:
        """Takes one report of the load."""
        with self._lock:
            self._asked.extend(Asked(*one) for one in report["asked"])
            self._waiting_ns = report["waiting_ns"]

    def asked(self) -> list[Asked]:
        """All requests so far that were answered or failed."""
        with self._lock:
            return list(self._asked)

    def measure(self, start_ns: int, end_ns: int) -> Latency:
        """The latencies of a window; of those still waiting only the ones known now."""
        with self._lock:
            asked, waiting_ns = list(self._asked), list(self._waiting_ns)
        return measure(asked, waiting_ns, start_ns, end_ns)


class World(Struct, frozen=True):
    """A running demo. `leave(path)` has a folder removed at the end, whatever the end is."""

    options: WorldOptions
    service: Child
    service_port: int
    shards: tuple[Child, ...]
    shard_ports: tuple[int, ...]
    load: Child
    watch: Watch
    leave: Callable[[Path], None]


def strength(options: WorldOptions, fault: str) -> float:
    """How strong a fault is, drawn by the seed, so that no threshold can be fitted to one value.

    A mild fault is a near miss: the mechanism is there, and hurts nobody.
    """
    drawn = random.Random(f"{options.seed} {fault}").uniform(STRENGTH_LOW, STRENGTH_HIGH)
    return drawn * (MILD_RATIO if options.mild else 1.0)


def service_cpu_ns(pid: int) -> int:
    """The CPU time that a process has used, by its own CPU clock."""
    return time.clock_gettime_ns((~pid << 3) | 2)


def start_world(options: WorldOptions, stack: ExitStack) -> World:
    """Starts all processes; `stack` ends them. Raises `DemoError`."""
    leave = _start_janitor(stack)
    folder = Path(tempfile.mkdtemp(prefix="perfkit-demo-"))
    leave(folder)
    features = folder / "features.bin"
    write_features(features)
    shards = tuple(
        _start(stack, "shard", "--seed", str(options.seed + index)) for index in range(SHARD_COUNT)
    )
    shard_ports = tuple(shard.wait_port() for shard in shards)
    placed = msgspec.structs.replace(
        options.service, shard_ports=shard_ports, features_path=str(features)
    )
    service = _start(stack, "service", *to_arguments(placed))
    port = service.wait_port()
    aimed = msgspec.structs.replace(options.load, port=port)
    load = _start(stack, "load", *to_arguments(aimed))
    load.wait_port()
    watch = Watch()
    load.hear(watch.hear)
    full = msgspec.structs.replace(options, service=placed, load=aimed)
    return World(full, service, port, shards, shard_ports, load, watch, leave)


def to_arguments(options: ServiceOptions | LoadOptions) -> tuple[str, ...]:
    """The command line that `__main__` reads these options from."""
    arguments: list[str] = []
    for name, value in msgspec.structs.asdict(options).items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        arguments += [f"--{name.replace('_', '-')}", text]
    return tuple(arguments)


def _start(stack: ExitStack, role: str, *arguments: str) -> Child:
    child = Child(role, arguments)
    stack.callback(child.stop)
    return child


def _start_janitor(stack: ExitStack) -> Callable[[Path], None]:
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", janitor.__file__],
        stdin=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )

    def leave(path: Path) -> None:
        assert process.stdin is not None
        process.stdin.write(f"{path}\n")
        process.stdin.flush()

    def finish() -> None:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()

    stack.callback(finish)
    return leave
