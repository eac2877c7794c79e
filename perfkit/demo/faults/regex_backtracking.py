"""Some requests, in bursts, have a text on which a pattern goes back over and over."""

from __future__ import annotations

import contextlib

from perfkit.demo.injection import Healthy, Injection
from perfkit.demo.world import DemoError, World, strength

NEEDS_ROOT = False
BURN_S = 0.013


def start(world: World, healthy: Healthy) -> Injection:
    """Has the service match such texts."""
    burn_s = BURN_S * strength(world.options, "regex_backtracking")
    name = str(world.service.order(start="patterns", burn_s=burn_s)["function"])

    def undo() -> None:
        with contextlib.suppress(DemoError):
            world.service.order(stop="patterns")

    text = f"{name}() matches a pattern for {burn_s * 1000:.1f} ms in each request of a burst"
    return Injection(text, "function", name, undo)
