"""One server under load with its backends, all of them real processes on loopback."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from msgspec import Struct

HERE = Path(__file__).parent
SERVERS = ("gunicorn", "uvicorn", "redis")
RATES = {"gunicorn": 35.0, "uvicorn": 35.0, "redis": 500.0}
START_TIMEOUT_S = 20.0


class Lab(Struct, frozen=True):
    """What runs; `seconds` are the latencies of each of its last seconds, in milliseconds."""

    server: str
    pid: int
    port: int
    peer_ports: tuple[int, ...]
    peer_controls: tuple[Path, ...]
    control: Path
    load: subprocess.Popen[str]
    seconds: deque[list[float]]

    def latency_ms(self, count: int) -> tuple[float, float]:
        """Median and 99th percentile of the last seconds."""
        values = [one for second in list(self.seconds)[-count:] for one in second] or [0.0]
        return float(np.percentile(values, 50)), float(np.percentile(values, 99))

    def server_pids(self) -> list[int]:
        """The server's process and its children."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [self.pid, *(int(child) for child in children)]


def missing(server: str) -> str:
    """What has to be installed to run a server; "" if nothing."""
    program = {"gunicorn": "gunicorn", "uvicorn": "uvicorn", "redis": "redis-server"}[server]
    return "" if _find(program) else f"{program} is not installed"


def _find(program: str) -> str | None:
    beside = Path(sys.executable).parent / program
    return str(beside) if beside.exists() else shutil.which(program)


@contextmanager
def start_lab(server: str, folder: Path, peer_count: int = 4) -> Iterator[Lab]:
    """Starts backends, the server and its load; all ends by pid when the block is left."""
    with ExitStack() as stack:
        controls = tuple(folder / f"peer-{number}" for number in range(peer_count))
        ports = tuple(_start_peer(stack, control) for control in controls)
        control = folder / "control"
        control.write_text("{}")
        port = _free_port()
        environment = os.environ | {
            "FOREIGN_CONTROL": str(control),
            "FOREIGN_PEERS": ",".join(map(str, ports)),
            "PYTHONPATH": str(HERE),
        }
        process = _start(stack, _command(server, port, folder), environment, folder)
        _await_port(port, process)
        kind = "redis" if server == "redis" else "http"
        load, seconds = _start_load(stack, (kind, str(port), str(RATES[server])))
        yield Lab(server, process.pid, port, ports, controls, control, load, seconds)


def _command(server: str, port: int, folder: Path) -> list[str]:
    program = _find({"redis": "redis-server"}.get(server, server)) or server
    address = f"127.0.0.1:{port}"
    if server == "gunicorn":
        return [program, "--workers", "4", "--bind", address, "wsgi_app:application"]
    if server == "uvicorn":
        quiet = ["--no-access-log", "--log-level", "warning"]
        return [program, "--port", str(port), *quiet, "asgi_app:application"]
    return [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]


def _start(
    stack: ExitStack, command: list[str], environment: dict[str, str], folder: Path
) -> subprocess.Popen[bytes]:
    log = stack.enter_context((folder / "server.log").open("wb"))
    process = subprocess.Popen(
        command, env=environment, cwd=HERE, stdout=log, stderr=log, start_new_session=True
    )
    stack.callback(_stop, process)
    return process


def _stop(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _start_peer(stack: ExitStack, control: Path) -> int:
    control.write_text("0")
    process = subprocess.Popen(
        [sys.executable, str(HERE / "peer.py"), str(control)], stdout=subprocess.PIPE, text=True
    )
    stack.callback(_stop, process)
    assert process.stdout is not None
    return int(process.stdout.readline())


def _start_load(
    stack: ExitStack, arguments: tuple[str, str, str]
) -> tuple[subprocess.Popen[str], deque[list[float]]]:
    process = subprocess.Popen(
        [sys.executable, str(HERE / "load.py"), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    stack.callback(_stop, process)
    seconds: deque[list[float]] = deque(maxlen=60)

    def read() -> None:
        assert process.stdout is not None
        seconds.extend(json.loads(line) for line in process.stdout)

    threading.Thread(target=read, daemon=True).start()
    return process, seconds


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"the server does not listen on port {port}")
