"""A call that holds its thread up, in the path of one request in so many: a wait, or a long sum."""

from __future__ import annotations

import itertools
import time

from perfkit.demo.hooks import set_hook


def start(every_count: int, block_s: float, computes: bool) -> dict[str, str]:
    """Has every n-th request sleep or compute for `block_s`; gives the function's name."""
    call = compute_ranks if computes else wait_for_lease
    turns = itertools.count(1)

    def handle() -> None:
        if next(turns) % every_count == 0:
            call(block_s)

    set_hook("handle", handle)
    return {"function": call.__name__}


def stop() -> None:
    """Ends it."""
    set_hook("handle", None)


def wait_for_lease(block_s: float) -> None:
    """Sleeps, as a client with a lease that another holds does."""
    time.sleep(block_s)


def compute_ranks(block_s: float) -> int:
    """Computes in plain Python for this much CPU time."""
    total = 0
    end_s = time.thread_time() + block_s
    while time.thread_time() < end_s:
        for key in range(400):
            total = (total * 31 + key) & 0xFFFFFFFF
    return total
