"""Bursts of requests whose text makes one function of the request's path slow, in plain Python."""

from __future__ import annotations

import time

from perfkit.demo.hooks import set_hook

# For the first part of each period the requests are of the costly kind.
PERIOD_S = 3.0
BURST_S = 1.2


def start(burn_s: float) -> dict[str, str]:
    """Has each request of a burst burn `burn_s` of CPU; gives the function's name."""

    def handle() -> None:
        if time.monotonic() % PERIOD_S < BURST_S:
            expand_synonyms(burn_s)

    set_hook("handle", handle)
    return {"function": expand_synonyms.__name__}


def stop() -> None:
    """Ends the bursts."""
    set_hook("handle", None)


def expand_synonyms(burn_s: float) -> int:
    """Computes in plain Python for this much CPU time of its own thread."""
    total = 0
    end_s = time.thread_time() + burn_s
    while time.thread_time() < end_s:
        for key in range(400):
            total = (total * 31 + key) & 0xFFFFFFFF
    return total
