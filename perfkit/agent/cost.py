"""What perfkit itself uses of the host: CPU time of the agent and its children, and memory."""

from __future__ import annotations

import contextlib
import os
import resource
import threading
import time

from msgspec import Struct

from perfkit.errors import Unavailable
from perfkit.host import Host
from perfkit.model import Cost

CHILDREN_LIMIT_BYTES = 4096


class Spent(Struct, frozen=True):
    """The CPU time used up to a moment by this process and by its children."""

    own_ns: int
    children_ns: int

    @property
    def total_ns(self) -> int:
        """Of the agent and its children together."""
        return self.own_ns + self.children_ns


def read_spent(*, with_running: bool = False) -> Spent:
    """Reads the CPU time used so far, of every thread of this process, in C or Python.

    Children that still run are left out unless `with_running` is set: looking for them is dear.
    """
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    reaped_ns = int(1e9 * (children.ru_utime + children.ru_stime))
    running_ns = _read_running_ns() if with_running else 0
    return Spent(time.process_time_ns(), reaped_ns + running_ns)


def _read_running_ns() -> int:
    """The CPU time of children that still run, which the kernel books only when they are reaped.

    Source: /proc/self/task/TID/children (Linux 3.5, CONFIG_PROC_CHILDREN); each belongs to the
    thread that started it.
    """
    total_ns = 0
    for thread in threading.enumerate():
        with contextlib.suppress(OSError, ValueError):
            for pid in _read_children(f"/proc/self/task/{thread.native_id}/children"):
                # CPUCLOCK_SCHED of another process.
                total_ns += time.clock_gettime_ns((~pid << 3) | 2)
    return total_ns


def _read_children(path: str) -> list[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return [int(pid) for pid in os.read(descriptor, CHILDREN_LIMIT_BYTES).split()]
    finally:
        os.close(descriptor)


def read_memory_peak_bytes() -> int:
    """The largest resident size so far. ru_maxrss would hold the size before the last exec."""
    try:
        for line in Host().read_proc("self/status").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    except (Unavailable, ValueError, IndexError):
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def to_cost(start: Spent, end: Spent) -> Cost:
    """The cost between the window's ends; all that came before it is start-up."""
    return Cost(
        cpu_ns=end.own_ns - start.own_ns,
        children_cpu_ns=end.children_ns - start.children_ns,
        startup_cpu_ns=start.total_ns,
        memory_peak_bytes=read_memory_peak_bytes(),
    )
