"""Every request takes the same lock, and keeps it for as long as something slow takes."""

from __future__ import annotations

import contextlib

from perfkit.demo.injection import Healthy, Injection
from perfkit.demo.world import DemoError, World, strength

NEEDS_ROOT = False
HOLD_S = 0.02


def start(world: World, healthy: Healthy) -> Injection:
    """Puts the lock into the path of requests. Raises `DemoError` where one thread runs them."""
    if world.options.service.front != "threads":
        raise DemoError("lock_contention needs several threads", fix="--front threads")
    hold_s = HOLD_S * strength(world.options, "lock_contention")
    # Two of three seeds sleep, the third computes.
    computes = world.options.seed % 3 == 0
    name = world.service.order(start="price_lock", hold_s=hold_s, computes=computes)["function"]

    def undo() -> None:
        with contextlib.suppress(DemoError):
            world.service.order(stop="price_lock")

    text = f"each request keeps one lock for {hold_s * 1000:.0f} ms, in {name}()"
    return Injection(text, "lock", "", undo)
