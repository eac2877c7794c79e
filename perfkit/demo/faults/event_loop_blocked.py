"""A coroutine makes a call that blocks, so nothing else on its event loop goes on."""

from __future__ import annotations

import contextlib

from perfkit.demo.injection import Healthy, Injection
from perfkit.demo.world import DemoError, World, strength

NEEDS_ROOT = False
EVERY_COUNT = 12
BLOCK_S = 0.13


def start(world: World, healthy: Healthy) -> Injection:
    """Makes the call inside the service. Raises `DemoError` where there is no event loop."""
    if world.options.service.front != "asyncio":
        raise DemoError("event_loop_blocked needs an event loop", fix="--front asyncio")
    block_s = BLOCK_S * strength(world.options, "event_loop_blocked")
    # Two of three seeds sleep, the third computes.
    settings = {"every_count": EVERY_COUNT, "computes": world.options.seed % 3 == 0}
    name = str(world.service.order(start="sync_call", block_s=block_s, **settings)["function"])

    def undo() -> None:
        with contextlib.suppress(DemoError):
            world.service.order(stop="sync_call")

    text = f"{name}() blocks the loop for {block_s * 1000:.0f} ms in 1 of {EVERY_COUNT} requests"
    return Injection(text, "function", name, undo)
