"""Files that are never closed, until a collection now and then closes those that are garbage.

Between two collections no descriptor is left. A request needs one for a moment; where there is none
it waits and tries again, as servers do on EMFILE.
"""

from __future__ import annotations

import os
import resource
import threading
import time
from pathlib import Path

from perfkit.demo.hooks import set_hook

# So that every worker has its connections before none can be opened: requests pile up for a while.
PILE_UP_S = 0.4
SETTLE_S = 0.6
COLLECTED_S = 0.06
RETRY_S = 0.02

_stop = threading.Event()
_lock = threading.Lock()
_leaked: list[int] = []
_limits: list[tuple[int, int]] = []
_threads: list[threading.Thread] = []


def start(leak_count: int, spare_count: int, exhausted_s: float) -> dict[str, int]:
    """Leaks all but `spare_count` of `leak_count` descriptors, for `exhausted_s` at a time."""
    _fill_pools()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    _limits.append(before)
    limit = len(list(Path("/proc/self/fd").iterdir())) + leak_count
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    _stop.clear()
    thread = threading.Thread(target=_leak_in_turn, args=(spare_count, exhausted_s), daemon=True)
    thread.start()
    _threads.append(thread)
    set_hook("disk", _touch)
    return {"limit": limit}


def _fill_pools() -> None:
    set_hook("handle", lambda: time.sleep(PILE_UP_S))
    time.sleep(2 * PILE_UP_S)
    set_hook("handle", None)
    time.sleep(SETTLE_S)


def stop() -> None:
    """Gives everything back."""
    set_hook("disk", None)
    _stop.set()
    while _threads:
        _threads.pop().join()
    _collect(len(_leaked))
    if _limits:
        resource.setrlimit(resource.RLIMIT_NOFILE, _limits.pop())


def _leak_in_turn(spare_count: int, exhausted_s: float) -> None:
    while not _stop.is_set():
        _leak()
        _collect(spare_count)
        _stop.wait(exhausted_s)
        _collect(len(_leaked) // 4)
        _stop.wait(COLLECTED_S)


def _leak() -> None:
    """Opens until nothing more can be opened."""
    with _lock:
        while True:
            try:
                _leaked.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
            except OSError:
                return


def _collect(count: int) -> None:
    with _lock:
        for descriptor in [_leaked.pop() for _ in range(min(count, len(_leaked)))]:
            os.close(descriptor)


def _touch() -> None:
    """Opens a file for a moment, as soon as there is a descriptor for it."""
    while True:
        try:
            descriptor = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            time.sleep(RETRY_S)
            continue
        os.close(descriptor)
        return
