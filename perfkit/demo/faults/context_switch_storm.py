"""Each request hands hundreds of small steps to another thread, one by one."""

from __future__ import annotations

import contextlib

from perfkit.demo.injection import Healthy, Injection
from perfkit.demo.world import DemoError, World, strength

NEEDS_ROOT = False
RELAY_S = 0.01


def start(world: World, healthy: Healthy) -> Injection:
    """Puts the helper into the path of requests."""
    relay_s = RELAY_S * strength(world.options, "context_switch_storm")
    name = str(world.service.order(start="relay", relay_s=relay_s)["function"])

    def undo() -> None:
        with contextlib.suppress(DemoError):
            world.service.order(stop="relay")

    text = f"{name}() hands steps to another thread for {relay_s * 1000:.1f} ms in each request"
    return Injection(text, "function", name, undo)
