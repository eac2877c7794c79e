"""Some requests, in bursts, make one Python function of their path slow."""

from __future__ import annotations

import contextlib

from perfkit.demo.injection import Healthy, Injection
from perfkit.demo.world import DemoError, World, strength

NEEDS_ROOT = False
BURN_S = 0.013


def start(world: World, healthy: Healthy) -> Injection:
    """Makes the function slow inside the service."""
    burn_s = BURN_S * strength(world.options, "hot_function")
    name = str(world.service.order(start="hot_rows", burn_s=burn_s)["function"])

    def undo() -> None:
        with contextlib.suppress(DemoError):
            world.service.order(stop="hot_rows")

    text = f"{name}() takes {burn_s * 1000:.1f} ms of CPU in each request of a burst"
    return Injection(text, "function", name, undo)
