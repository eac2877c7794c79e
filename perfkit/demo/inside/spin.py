"""Threads of the service that spin: they hash for ever, without the interpreter's lock."""

from __future__ import annotations

import hashlib
import threading
import time

ROUNDS = 20_000
_stop = threading.Event()


def start(count: int, duty: float) -> dict[str, list[int]]:
    """Starts the threads, which run `duty` of their time, and gives their kernel ids as `tids`."""
    _stop.clear()
    threads = [threading.Thread(target=_spin, args=(duty,), daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    return {"tids": [thread.native_id or 0 for thread in threads]}


def stop() -> None:
    """Lets the threads end."""
    _stop.set()


def _spin(duty: float) -> None:
    while not _stop.is_set():
        begin_s = time.perf_counter()
        hashlib.pbkdf2_hmac("sha256", b"spin", b"salt", ROUNDS)
        if duty < 1.0:
            time.sleep((time.perf_counter() - begin_s) * (1.0 / duty - 1.0))
