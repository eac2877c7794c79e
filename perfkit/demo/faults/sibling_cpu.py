"""Other processes of the service's own cgroup keep all CPUs busy."""

from __future__ import annotations

from contextlib import ExitStack

from perfkit.demo.burning import burner_count, make_group, move, start_burners
from perfkit.demo.injection import Healthy, Injection
from perfkit.demo.world import World

NEEDS_ROOT = True


def start(world: World, healthy: Healthy) -> Injection:
    """Puts the service and the burners into one cgroup."""
    stack = ExitStack()
    try:
        group = make_group(world, stack, "pod")
        move(stack, group, world.service.pid)
        pids = start_burners(world, stack, burner_count())
        for pid in pids:
            move(stack, group, pid)
        text = f"{len(pids)} processes burn CPU beside the service in {group.path}"
    except BaseException:
        stack.close()
        raise
    return Injection(text, "process", str(pids[0]), stack.close)
