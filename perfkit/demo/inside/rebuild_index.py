"""A thread of the service that serves nobody: it rebuilds an index in plain Python.

It holds the interpreter's lock for `burn_s` at a time and then writes nothing for `pause_s`, as
a thread does that parses, flushes, and parses on.
"""

from __future__ import annotations

import threading
import time

_stop = threading.Event()


def start(burn_s: float, pause_s: float) -> dict[str, int]:
    """Starts the thread and gives its kernel id as `tid`."""
    _stop.clear()
    thread = threading.Thread(
        target=rebuild_index, args=(burn_s, pause_s), name="rebuild-index", daemon=True
    )
    thread.start()
    return {"tid": thread.native_id or 0}


def stop() -> None:
    """Lets the thread end at its next pause."""
    _stop.set()


def rebuild_index(burn_s: float, pause_s: float) -> None:
    """Burns and pauses in turn until it is told to stop."""
    while not _stop.is_set():
        index: dict[int, int] = {}
        end_s = time.perf_counter() + burn_s
        while time.perf_counter() < end_s:
            for key in range(200):
                index[key * 7919 % 1009] = index.get(key, 0) + key
        time.sleep(pause_s)
