"""Each request takes a spin lock and waits while it has it."""

from __future__ import annotations

import contextlib

from perfkit.demo.injection import Healthy, Injection
from perfkit.demo.world import DemoError, World, strength

NEEDS_ROOT = False
HOLD_US = 14_000


def start(world: World, healthy: Healthy) -> Injection:
    """Puts the lock into the path of requests."""
    hold_us = round(HOLD_US * strength(world.options, "spin_lock_contention"))
    name = str(world.service.order(start="spin_lock", hold_us=hold_us)["function"])

    def undo() -> None:
        with contextlib.suppress(DemoError):
            world.service.order(stop="spin_lock")

    text = f"{name}() keeps a spin lock for {hold_us / 1000:.1f} ms in each request"
    return Injection(text, "function", name, undo)
