"""One measurement at a time on a machine: benchmarks and live matrices wait for each other."""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = Path(tempfile.gettempdir()) / "perfkit-bench.lock"
# Whoever holds the lock tells its children, which do not wait for it.
HELD = "MEASURES_ALONE"


@contextmanager
def alone() -> Iterator[None]:
    """Waits until no other measurement runs on this machine, and keeps others waiting."""
    if HELD in os.environ:
        yield
        return
    descriptor = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        _lock(descriptor)
        os.environ[HELD] = str(os.getpid())
        yield
    finally:
        os.environ.pop(HELD, None)
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"waiting for another measurement ({LOCK})", file=sys.stderr, flush=True)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
