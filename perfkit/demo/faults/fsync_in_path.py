"""Each request writes lines to an audit log and flushes every one of them to the disk."""

from __future__ import annotations

import contextlib
from pathlib import Path

from perfkit.demo.injection import Healthy, Injection
from perfkit.demo.world import DemoError, World, strength

NEEDS_ROOT = False
FLUSH_COUNT = 64


def start(world: World, healthy: Healthy) -> Injection:
    """Starts the log inside the service, beside its features file."""
    path = Path(world.options.service.features_path).with_name("audit.log")
    flush_count = max(1, round(FLUSH_COUNT * strength(world.options, "fsync_in_path")))
    world.service.order(start="audit_log", path=str(path), flush_count=flush_count)

    def undo() -> None:
        with contextlib.suppress(DemoError):
            world.service.order(stop="audit_log")

    text = f"each request flushes {path} {flush_count} times"
    return Injection(text, "file", str(path), undo)
