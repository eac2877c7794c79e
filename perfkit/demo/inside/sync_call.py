"""A call that blocks its thread, in the path of one request in so many: a cache that is locked."""

from __future__ import annotations

import itertools
import time

from perfkit.demo.hooks import set_hook


def start(every_count: int, block_s: float) -> dict[str, str]:
    """Has every n-th request block for `block_s`; gives the function's name."""
    turns = itertools.count(1)

    def handle() -> None:
        if next(turns) % every_count == 0:
            wait_for_lease(block_s)

    set_hook("handle", handle)
    return {"function": wait_for_lease.__name__}


def stop() -> None:
    """Ends it."""
    set_hook("handle", None)


def wait_for_lease(block_s: float) -> None:
    """Sleeps, as a client with a lease that another holds does."""
    time.sleep(block_s)
