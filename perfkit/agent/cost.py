"""What perfkit itself uses of the host: CPU time of the agent and its children, and memory."""

from __future__ import annotations

import resource
import time

from msgspec import Struct

from perfkit.errors import Unavailable
from perfkit.host import Host
from perfkit.model import Cost


class Spent(Struct, frozen=True):
    """The CPU time used up to a moment by this process and by its children that were reaped."""

    own_ns: int
    children_ns: int

    @property
    def total_ns(self) -> int:
        """Of the agent and its children together."""
        return self.own_ns + self.children_ns


def read_spent() -> Spent:
    """Reads the CPU time used so far, of every thread of this process, in C or Python."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Spent(time.process_time_ns(), int(1e9 * (children.ru_utime + children.ru_stime)))


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
