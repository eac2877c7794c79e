"""A worker process that scores each batch, and that dies of every so many: it starts over and over.

A new worker loads its tables before it answers; whoever asks it meanwhile waits.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import threading
import time
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from perfkit.demo.hooks import set_hook

NAME = "scorer"
START_TIMEOUT_S = 10.0

_lock = threading.Lock()
_running: list[tuple[BaseProcess, Connection]] = []
_settings: list[tuple[float, float]] = []


def start(load_s: float, life_s: float) -> dict[str, int]:
    """Has each batch ask a worker that takes `load_s` to start and dies after `life_s`."""
    _settings[:] = [(load_s, life_s)]
    with _lock:
        pid = _start_worker()
    set_hook("model", _score)
    return {"pid": pid}


def stop() -> None:
    """Ends the worker."""
    set_hook("model", None)
    with _lock:
        _end_worker()


def _score() -> None:
    """Asks the worker; where it died, starts another and asks that one."""
    with _lock:
        while _settings:
            _, connection = _running[0]
            try:
                connection.send(b"batch")
                connection.recv()
                return
            except (EOFError, OSError):
                _end_worker()
                _start_worker()


def _start_worker() -> int:
    ours, theirs = multiprocessing.Pipe()
    # A fork carries the threads' locks along; a worker of a server is started afresh.
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=work, args=(theirs, *_settings[0]), daemon=True)
    process.start()
    theirs.close()
    _running[:] = [(process, ours)]
    return process.pid or 0


def _end_worker() -> None:
    while _running:
        process, connection = _running.pop()
        connection.close()
        process.terminate()
        process.join(START_TIMEOUT_S)


def work(connection: Connection, load_s: float, life_s: float) -> None:
    """The worker's life: load, answer, die."""
    Path("/proc/self/comm").write_text(NAME)
    end_s = time.monotonic() + load_s
    table: dict[int, int] = {}
    while time.monotonic() < end_s:
        table[len(table) % 4096] = len(table) * 7919
    dies_s = time.monotonic() + life_s
    with contextlib.suppress(EOFError, OSError):
        while time.monotonic() < dies_s:
            connection.recv()
            connection.send(b"scores")
