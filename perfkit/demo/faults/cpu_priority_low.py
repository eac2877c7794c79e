"""The service is nicer than busy processes of the same cgroup."""

from __future__ import annotations

import contextlib
import os
from contextlib import ExitStack

from perfkit.demo.burning import burner_count, start_burners, thread_ids
from perfkit.demo.injection import Healthy, Injection
from perfkit.demo.world import World

NEEDS_ROOT = True
NICE = 15


def start(world: World, healthy: Healthy) -> Injection:
    """Makes the service nice and starts burners that are not."""
    stack = ExitStack()
    try:
        for tid in thread_ids(world.service.pid):
            stack.callback(_restore, tid, os.getpriority(os.PRIO_PROCESS, tid))
            os.setpriority(os.PRIO_PROCESS, tid, NICE)
        pids = start_burners(world, stack, burner_count())
        text = f"the service is at nice {NICE}, {len(pids)} processes burn CPU"
    except BaseException:
        stack.close()
        raise
    return Injection(text, "process", str(pids[0]), stack.close)


def _restore(tid: int, nice: int) -> None:
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, tid, nice)
