"""A thread of the service that serves nobody holds the interpreter's lock most of the time."""

from __future__ import annotations

import contextlib

from perfkit.demo.injection import Healthy, Injection
from perfkit.demo.world import DemoError, World, strength

NEEDS_ROOT = False
BURN_S = 0.004
PAUSE_S = 0.001


def start(world: World, healthy: Healthy) -> Injection:
    """Starts the background thread inside the service."""
    burn_s = BURN_S * strength(world.options, "gil_contention")
    answer = world.service.order(start="rebuild_index", burn_s=burn_s, pause_s=PAUSE_S)

    def undo() -> None:
        with contextlib.suppress(DemoError):
            world.service.order(stop="rebuild_index")

    tid = str(answer["tid"])
    text = f"thread {tid} rebuilds an index in plain Python, {burn_s * 1000:.1f} ms at a time"
    return Injection(text, "thread", tid, undo)
