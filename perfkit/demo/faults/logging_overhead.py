"""Some requests, in bursts, log every candidate that they look at."""

from __future__ import annotations

import contextlib
from pathlib import Path

from perfkit.demo.injection import Healthy, Injection
from perfkit.demo.world import DemoError, World, strength

NEEDS_ROOT = False
BURN_S = 0.013


def start(world: World, healthy: Healthy) -> Injection:
    """Starts the log inside the service, beside its features file."""
    path = Path(world.options.service.features_path).with_name("debug.log")
    burn_s = BURN_S * strength(world.options, "logging_overhead")
    answer = world.service.order(start="debug_log", path=str(path), burn_s=burn_s)
    name = str(answer["function"])

    def undo() -> None:
        with contextlib.suppress(DemoError):
            world.service.order(stop="debug_log")

    text = f"{name}() writes logs for {burn_s * 1000:.1f} ms in each request of a burst"
    return Injection(text, "function", name, undo)
