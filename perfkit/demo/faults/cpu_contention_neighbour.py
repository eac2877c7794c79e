"""A batch job keeps all CPUs busy, beside the service: each in a cgroup of its own."""

from __future__ import annotations

from contextlib import ExitStack

from msgspec import structs

from perfkit.demo import cgroups
from perfkit.demo.burning import burner_count, make_group, move, start_burners
from perfkit.demo.injection import Healthy, Injection
from perfkit.demo.options import LoadOptions, WorldOptions
from perfkit.demo.world import World

NEEDS_ROOT = True
# Heavier than the service, yet not so much that its weight is to blame.
WEIGHT_RATIO = 3.75
# Who needs less than its weight is worth gets a CPU at once, and feels no neighbour.
RATE_HERTZ = 90.0


def prepare(options: WorldOptions) -> WorldOptions:
    """Loads the service more, so that it needs what the batch job leaves it."""
    is_default = options.load.rate_hertz == LoadOptions().rate_hertz
    load = structs.replace(options.load, rate_hertz=RATE_HERTZ) if is_default else options.load
    return structs.replace(options, load=load)


def start(world: World, healthy: Healthy) -> Injection:
    """Puts the service into its cgroup, and starts the batch job in another."""
    stack = ExitStack()
    try:
        move(stack, make_group(world, stack, "service"), world.service.pid)
        group = make_group(world, stack, "batch")
        cgroups.set_weight(group, WEIGHT_RATIO)
        pids = start_burners(world, stack, burner_count())
        for pid in pids:
            move(stack, group, pid)
        text = f"{len(pids)} processes burn CPU in {group.path}"
    except BaseException:
        stack.close()
        raise
    return Injection(text, "cgroup", group.path, stack.close)
