"""A process beside the service that burns CPU and serves nobody: a batch job, a neighbour."""

from __future__ import annotations

import os
import time

from perfkit.demo import control

TURN_S = 0.02


def main(duty: float, nice: int) -> None:
    """Burns `duty` of each 20 ms for ever, at this nice value."""
    os.nice(nice)
    control.announce(port=0)
    control.obey_in_thread(lambda order: order)
    while True:
        begin_s = time.perf_counter()
        while time.perf_counter() - begin_s < duty * TURN_S:
            sum(range(200))
        if duty < 1.0:
            time.sleep((1.0 - duty) * TURN_S)
