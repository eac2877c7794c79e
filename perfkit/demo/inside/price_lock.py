"""One lock for all requests, held for the whole of something slow: a wait, or a computation."""

from __future__ import annotations

import threading
import time

import numpy as np

from perfkit.demo.hooks import set_hook

_lock = threading.Lock()


def start(hold_s: float, computes: bool) -> dict[str, str]:
    """Has each request take the lock and keep it for `hold_s`; gives the function's name."""
    keep = multiply_prices if computes else wait_for_prices

    def handle() -> None:
        with _lock:
            keep(hold_s)

    set_hook("handle", handle)
    return {"function": keep.__name__}


def stop() -> None:
    """Ends it."""
    set_hook("handle", None)


def wait_for_prices(hold_s: float) -> None:
    """Sleeps, as a client does that polls for an answer."""
    time.sleep(hold_s)


def multiply_prices(hold_s: float) -> None:
    """Computes without the interpreter's lock."""
    prices = np.ones((300, 300), dtype=np.float32)
    end_s = time.monotonic() + hold_s
    while time.monotonic() < end_s:
        np.matmul(prices, prices)
