"""Requests collect garbage among many objects, while every other one waits."""

from __future__ import annotations

import contextlib

from perfkit.demo.injection import Healthy, Injection
from perfkit.demo.world import DemoError, World, strength

NEEDS_ROOT = False
OBJECT_COUNT = 300_000
EVERY = 3


def start(world: World, healthy: Healthy) -> Injection:
    """Fills a cache inside the service, and has requests expire its entries."""
    force = strength(world.options, "gc_pause")
    count, every = round(OBJECT_COUNT * force), max(1, round(EVERY / force))
    name = str(world.service.order(start="expiry", object_count=count, every=every)["function"])

    def undo() -> None:
        with contextlib.suppress(DemoError):
            world.service.order(stop="expiry")

    text = f"one request in {every} calls gc.collect() in {name}(), among {count} objects"
    return Injection(text, "function", name, undo)
