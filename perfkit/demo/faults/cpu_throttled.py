"""A CFS quota a little below what the service needs: it stands still in nearly every period."""

from __future__ import annotations

import contextlib
import os

from perfkit.demo import cgroups
from perfkit.demo.injection import Healthy, Injection
from perfkit.demo.world import World, strength

NEEDS_ROOT = True
# What the load needs at strength 1, as a share of the quota: above 1 the service falls behind.
LOAD_RATIO = 1.15
# A quota of twice what is needed on average is met now and then, and hurts nobody.
MILD_LOAD_RATIO = 0.5


def start(world: World, healthy: Healthy) -> Injection:
    """Moves the service into a cgroup of its own whose quota fits its measured use tightly."""
    pid = world.service.pid
    home = cgroups.own_group(pid)
    group = cgroups.make_child_group(home, f"perfkit-demo-{os.getpid()}")
    world.leave(group.folder)
    load_ratio = LOAD_RATIO * strength(world.options, "cpu_throttled") ** 0.5
    load_ratio = MILD_LOAD_RATIO if world.options.mild else load_ratio
    quota_us = int(cgroups.PERIOD_US * healthy.cpu_ratio / load_ratio)

    def undo() -> None:
        # The service may have died; its cgroup must go all the same.
        with contextlib.suppress(OSError):
            cgroups.enter(home, pid)
        cgroups.remove_group(group)

    try:
        cgroups.set_quota(group, quota_us)
        cgroups.enter(group, pid)
    except OSError as error:
        undo()
        raise cgroups.CgroupError(f"{group.folder}: {error.strerror}", fix="run as root") from error
    text = f"quota of {quota_us / 1000:.1f} ms CPU per 100 ms in {group.folder}"
    return Injection(text, "cgroup", group.path, undo)
