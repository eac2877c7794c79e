"""The service's cgroup weighs a sixteenth of a busy neighbour's."""

from __future__ import annotations

from contextlib import ExitStack

from perfkit.demo import cgroups
from perfkit.demo.burning import burner_count, make_group, move, start_burners
from perfkit.demo.injection import Healthy, Injection
from perfkit.demo.world import World

NEEDS_ROOT = True
WEIGHT_RATIO = 1 / 16


def start(world: World, healthy: Healthy) -> Injection:
    """Puts the service into a light cgroup and burners into one of the default weight."""
    stack = ExitStack()
    try:
        light = make_group(world, stack, "light")
        heavy = make_group(world, stack, "heavy")
        cgroups.set_weight(light, WEIGHT_RATIO)
        move(stack, light, world.service.pid)
        pids = start_burners(world, stack, burner_count())
        for pid in pids:
            move(stack, heavy, pid)
        text = f"the service weighs 1/16 of {len(pids)} processes that burn CPU in {heavy.path}"
    except BaseException:
        stack.close()
        raise
    return Injection(text, "cgroup", heavy.path, stack.close)
