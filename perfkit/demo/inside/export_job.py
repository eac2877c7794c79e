"""Requests of one kind that keep their worker for seconds: exports that wait for a lease."""

from __future__ import annotations

import itertools
import time

from perfkit.demo.hooks import set_hook


def start(every_count: int, export_s: float) -> dict[str, str]:
    """Has every n-th request wait for `export_s`; gives the function's name."""
    turns = itertools.count(1)

    def handle() -> None:
        if next(turns) % every_count == 0:
            wait_for_export(export_s)

    set_hook("handle", handle)
    return {"function": wait_for_export.__name__}


def stop() -> None:
    """Ends the exports; those that wait go on to their end."""
    set_hook("handle", None)


def wait_for_export(export_s: float) -> None:
    """Waits, as for a job that runs elsewhere, looking now and then whether it is done."""
    end_s = time.monotonic() + export_s
    while (left_s := end_s - time.monotonic()) > 0:
        time.sleep(min(left_s, 0.1))
