"""Threads of the service that serve nobody spin, one for each CPU."""

from __future__ import annotations

import contextlib
import os

from perfkit.demo.injection import Healthy, Injection
from perfkit.demo.world import DemoError, World

NEEDS_ROOT = False
MILD_DUTY = 0.03


def start(world: World, healthy: Healthy) -> Injection:
    """Starts the spinning threads inside the service."""
    count = os.cpu_count() or 1
    duty = MILD_DUTY if world.options.mild else 1.0
    tids = world.service.order(start="spin", count=count, duty=duty)["tids"]

    def undo() -> None:
        with contextlib.suppress(DemoError):
            world.service.order(stop="spin")

    return Injection(f"{count} threads spin", "thread", str(tids[0]), undo)
