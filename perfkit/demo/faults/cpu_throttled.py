"""A CFS quota a little above, or below, what the service needs: it stands still in most periods."""

from __future__ import annotations

import contextlib
import os

from perfkit.demo import cgroups
from perfkit.demo.injection import Healthy, Injection
from perfkit.demo.world import World, strength

NEEDS_ROOT = True
# The share of the quota that the load needs at strength 1; above 1 the service falls behind.
LOAD_RATIO = 0.95


def start(world: World, healthy: Healthy) -> Injection:
    """Moves the service into a cgroup of its own whose quota fits its measured use tightly."""
    pid = world.service.pid
    home = cgroups.own_group(pid)
    group = cgroups.make_child_group(pid, f"perfkit-demo-{os.getpid()}")
    world.leave(group.folder)
    load_ratio = LOAD_RATIO * strength(world.options.seed, "cpu_throttled") ** 0.5
    quota_us = int(cgroups.PERIOD_US * healthy.cpu_ratio / load_ratio)

    def undo() -> None:
        # The service may have died; its cgroup must go all the same.
        with contextlib.suppress(OSError):
            cgroups.enter(home, pid)
        with contextlib.suppress(OSError):
            group.folder.rmdir()

    try:
        cgroups.set_quota(group, quota_us)
        cgroups.enter(group, pid)
    except OSError as error:
        undo()
        raise cgroups.CgroupError(f"{group.folder}: {error.strerror}", fix="run as root") from error
    text = f"quota of {quota_us / 1000:.1f} ms CPU per 100 ms in {group.folder}"
    return Injection(text, "cgroup", group.path, undo)
