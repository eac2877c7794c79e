"""Each request writes lines to an audit log and flushes every one of them to the disk."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from pathlib import Path

from perfkit.demo.injection import Healthy, Injection
from perfkit.demo.inside.audit_log import LINE_BYTES
from perfkit.demo.world import DemoError, World, strength

NEEDS_ROOT = False
# What they take together: a flush takes 0.08 ms on one disk and 10 ms on another.
FLUSHES_S = 0.014
COUNT_MIN, COUNT_MAX = 2, 1024
TRIAL_COUNT = 32


def start(world: World, healthy: Healthy) -> Injection:
    """Starts the log inside the service, beside its features file."""
    path = Path(world.options.service.features_path).with_name("audit.log")
    wanted = FLUSHES_S * strength(world.options, "fsync_in_path") / _flush_s(path)
    flush_count = min(max(round(wanted), COUNT_MIN), COUNT_MAX)
    world.service.order(start="audit_log", path=str(path), flush_count=flush_count)

    def undo() -> None:
        with contextlib.suppress(DemoError):
            world.service.order(stop="audit_log")

    text = f"each request flushes {path} {flush_count} times"
    return Injection(text, "file", str(path), undo)


def _flush_s(path: Path) -> float:
    """The median time of writing and flushing a line on this disk, seconds."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    taken = []
    try:
        for _ in range(TRIAL_COUNT):
            began = time.perf_counter()
            os.pwrite(descriptor, bytes(LINE_BYTES), 0)
            os.fsync(descriptor)
            taken.append(time.perf_counter() - began)
    finally:
        os.close(descriptor)
    return max(statistics.median(taken), 1e-6)
