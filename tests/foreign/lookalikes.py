"""What looks like a fault and is none: more load within limits, a batch job in the gaps."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from foreign.faults import BURN, SETTLE_S, Plan, Truth
from foreign.lab import HERE, RATES, Lab
from perfkit.demo import cgroups


@contextmanager
def add_lookalike(lab: Lab, name: str) -> Iterator[Plan]:
    """Switches one on, and off when the block is left."""
    with ExitStack() as stack:
        LOOKALIKES[name](lab, stack)
        time.sleep(SETTLE_S)
        yield Plan(Truth("", ""), lambda: None)


def _start_more_load(lab: Lab, stack: ExitStack) -> None:
    """Trebles the rate: a second load of twice the first one's."""
    kind = "redis" if lab.server == "redis" else "http"
    program = [sys.executable, str(HERE / "load.py"), kind, str(lab.port)]
    process = subprocess.Popen(
        [*program, str(2 * RATES[lab.server])], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    stack.callback(process.wait)
    stack.callback(process.terminate)


def _start_batch(lab: Lab, stack: ExitStack) -> None:
    """Fills the CPUs with work that gives way to everybody's: lowest weight, nice 19."""
    group = cgroups.make_child_group(cgroups.own_group(os.getpid()), f"batch-{os.getpid()}")
    stack.callback(cgroups.remove_group, group)
    cgroups.set_weight(group, 0.0)
    for _ in range(os.cpu_count() or 1):
        process = subprocess.Popen(["nice", "-n", "19", sys.executable, "-c", BURN])
        stack.callback(process.wait)
        stack.callback(process.kill)
        cgroups.enter(group, process.pid)


LOOKALIKES: dict[str, Callable[[Lab, ExitStack], None]] = {
    "more_load": _start_more_load,
    "batch": _start_batch,
}
