"""Each run of the model keeps many more threads busy than there are CPUs."""

from __future__ import annotations

import contextlib
import os

from perfkit.demo.injection import Healthy, Injection
from perfkit.demo.world import DemoError, World, strength

NEEDS_ROOT = False
THREADS_PER_CPU = 8
ROUNDS = 2500
MILD_ROUNDS = 60


def start(world: World, healthy: Healthy) -> Injection:
    """Makes the model run in parallel inside the service."""
    count = THREADS_PER_CPU * (os.cpu_count() or 1)
    drawn = strength(world.options, "thread_oversubscription")
    rounds = MILD_ROUNDS if world.options.mild else int(ROUNDS * drawn)
    world.service.order(start="parallel", thread_count=count, rounds=rounds)

    def undo() -> None:
        with contextlib.suppress(DemoError):
            world.service.order(stop="parallel")

    return Injection(f"each batch keeps {count} threads busy", "none", "", undo)
