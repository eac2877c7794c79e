"""What perfkit itself uses of the host: CPU time of the agent and its children, and memory."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterable

from msgspec import Struct

from perfkit.errors import Unavailable
from perfkit.host import Host
from perfkit.model import Cost


class Spent(Struct, frozen=True):
    """The CPU time used up to a moment by this process and by its children."""

    own_ns: int
    children_ns: int

    @property
    def total_ns(self) -> int:
        """Of the agent and its children together."""
        return self.own_ns + self.children_ns


def read_spent(running: Iterable[int] = ()) -> Spent:
    """Reads the CPU time used so far, of every thread of this process, in C or Python.

    The kernel books a child's time only when it is reaped: `running` are the pids of those that
    still run, each of which is asked for its own.
    """
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    reaped_ns = int(1e9 * (children.ru_utime + children.ru_stime))
    running_ns = sum(_read_cpu_ns(pid) for pid in running)
    return Spent(time.process_time_ns(), reaped_ns + running_ns)


def _read_cpu_ns(pid: int) -> int:
    try:
        return time.clock_gettime_ns((~pid << 3) | 2)  # CPUCLOCK_SCHED of another process
    except OSError:  # it was reaped
        return 0


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
