"""Several others, each in a cgroup of its own, keep all CPUs busy; none uses most."""

from __future__ import annotations

from contextlib import ExitStack

from perfkit.demo.burning import burner_count, make_group, move, start_burners
from perfkit.demo.injection import Healthy, Injection
from perfkit.demo.world import World

NEEDS_ROOT = True
OWNER_COUNT = 8


def start(world: World, healthy: Healthy) -> Injection:
    """Starts burners in each of several cgroups."""
    stack = ExitStack()
    try:
        for number in range(OWNER_COUNT):
            group = make_group(world, stack, f"job{number}")
            for pid in start_burners(world, stack, burner_count(1)):
                move(stack, group, pid)
        text = f"{OWNER_COUNT} cgroups with {burner_count(1)} burning processes each"
    except BaseException:
        stack.close()
        raise
    return Injection(text, "none", "", stack.close)
