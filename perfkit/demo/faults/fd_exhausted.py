"""A leak leaves the service no descriptor most of the time; requests wait for one and try again."""

from __future__ import annotations

import contextlib

from perfkit.demo.injection import Healthy, Injection
from perfkit.demo.world import DemoError, World, strength

NEEDS_ROOT = False
LEAK_COUNT = 60
# A tenth of them is left: nobody waits.
MILD_SPARE_COUNT = 12
EXHAUSTED_S = 0.3


def start(world: World, healthy: Healthy) -> Injection:
    """Starts the leak inside the service."""
    answer = world.service.order(
        start="descriptor_leak",
        leak_count=LEAK_COUNT,
        spare_count=MILD_SPARE_COUNT if world.options.mild else 0,
        exhausted_s=EXHAUSTED_S * strength(world.options, "fd_exhausted"),
    )

    def undo() -> None:
        with contextlib.suppress(DemoError):
            world.service.order(stop="descriptor_leak")

    pid = world.service.pid
    text = f"process {pid} leaks its {answer['limit']} descriptors"
    return Injection(text, "process", str(pid), undo)
