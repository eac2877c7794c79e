"""An audit log in the path of each request: every line is flushed to the disk before going on."""

from __future__ import annotations

import os
import threading

from perfkit.demo.hooks import set_hook

LINE_BYTES = 4096
FILE_LIMIT_BYTES = 8 << 20

_lock = threading.Lock()
_open: list[int] = []


def start(path: str, flush_count: int) -> dict[str, int]:
    """Has each request write and flush `flush_count` times."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    _open.append(descriptor)
    line = os.urandom(LINE_BYTES)
    places = iter(range(0, 1 << 62, LINE_BYTES))

    def log() -> None:
        for _ in range(flush_count):
            with _lock:
                place = next(places)
            os.pwrite(descriptor, line, place % FILE_LIMIT_BYTES)
            os.fsync(descriptor)

    set_hook("disk", log)
    return {"descriptor": descriptor}


def stop() -> None:
    """Ends the log; the file stays open, since a request may be writing to it."""
    set_hook("disk", None)
