"""The service is bound to one CPU that others use too, while the other CPUs idle."""

from __future__ import annotations

import contextlib
import os
from contextlib import ExitStack

from perfkit.demo.burning import start_burners, thread_ids
from perfkit.demo.injection import Healthy, Injection
from perfkit.demo.world import World

NEEDS_ROOT = True
BURNER_COUNT = 2


def start(world: World, healthy: Healthy) -> Injection:
    """Binds the service, and burners, to the first CPU."""
    stack = ExitStack()
    try:
        cpu = min(os.sched_getaffinity(0))
        for tid in thread_ids(world.service.pid):
            stack.callback(_restore, tid, os.sched_getaffinity(tid))
            os.sched_setaffinity(tid, {cpu})
        pids = start_burners(world, stack, BURNER_COUNT)
        for tid in [tid for pid in pids for tid in thread_ids(pid)]:
            os.sched_setaffinity(tid, {cpu})
        text = f"the service is bound to CPU {cpu}, as are {len(pids)} processes that burn CPU"
    except BaseException:
        stack.close()
        raise
    return Injection(text, "none", f"CPU {cpu}", stack.close)


def _restore(tid: int, cpus: set[int]) -> None:
    with contextlib.suppress(OSError):
        os.sched_setaffinity(tid, cpus)
