"""Long requests of one kind occupy all workers of the pool; all others wait for one."""

from __future__ import annotations

import contextlib

from perfkit.demo.injection import Healthy, Injection
from perfkit.demo.world import DemoError, World, strength

NEEDS_ROOT = False
EVERY_COUNT = 3
EXPORT_S = 0.8


def start(world: World, healthy: Healthy) -> Injection:
    """Starts the long requests. Raises `DemoError` where there is no pool of workers."""
    if world.options.service.front != "threads":
        raise DemoError("thread_pool_exhausted needs a pool of workers", fix="--front threads")
    export_s = EXPORT_S * strength(world.options, "thread_pool_exhausted")
    world.service.order(start="export_job", every_count=EVERY_COUNT, export_s=export_s)

    def undo() -> None:
        with contextlib.suppress(DemoError):
            world.service.order(stop="export_job")

    count = world.options.service.worker_count
    text = f"1 request in {EVERY_COUNT} keeps one of {count} workers for {export_s * 1000:.0f} ms"
    return Injection(text, "none", "", undo)
