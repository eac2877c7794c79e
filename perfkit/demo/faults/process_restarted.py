"""A worker process of the service dies every second or two; the next one has to load first."""

from __future__ import annotations

import contextlib

from perfkit.demo.injection import Healthy, Injection
from perfkit.demo.world import DemoError, World, strength

NEEDS_ROOT = False
LOAD_S = 0.4
LIFE_S = 0.9
# A worker that is quick to start and seldom starts: nobody notices.
MILD_LIFE_S = 6.0


def start(world: World, healthy: Healthy) -> Injection:
    """Puts the worker into the path of each batch."""
    load_s = LOAD_S * strength(world.options, "process_restarted")
    life_s = MILD_LIFE_S if world.options.mild else LIFE_S
    world.service.order(start="scorer", load_s=load_s, life_s=life_s)

    def undo() -> None:
        with contextlib.suppress(DemoError):
            world.service.order(stop="scorer")

    text = f"a worker dies after {life_s:.1f} s and takes {load_s * 1000:.0f} ms to load"
    return Injection(text, "process", "scorer", undo)
