"""A spin lock of the C library in the path of each request, kept across a wait."""

from __future__ import annotations

import ctypes

from perfkit.demo.hooks import set_hook

# A call through ctypes lets go of the interpreter's lock while it runs.
_libc = ctypes.CDLL(None)
_lock = ctypes.c_int(0)


def start(hold_us: int) -> dict[str, str]:
    """Has each request take the lock and keep it for so long."""
    _libc.pthread_spin_init(ctypes.byref(_lock), 0)

    def handle() -> None:
        update_counters(hold_us)

    set_hook("handle", handle)
    return {"function": update_counters.__name__}


def stop() -> None:
    """Ends it."""
    set_hook("handle", None)


def update_counters(hold_us: int) -> None:
    """Takes the lock, waits, and lets go."""
    _libc.pthread_spin_lock(ctypes.byref(_lock))
    try:
        _libc.usleep(hold_us)
    finally:
        _libc.pthread_spin_unlock(ctypes.byref(_lock))
