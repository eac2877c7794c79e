"""Something stops the service for a moment, again and again, as a debugger or an operator may."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from functools import partial

from perfkit.demo.injection import Healthy, Injection
from perfkit.demo.world import World, strength

NEEDS_ROOT = False
STOPPED_S = 0.35
GOES_ON_S = 0.35
# Too short and too seldom to matter, as a debugger's snapshot is.
MILD_STOPPED_S, MILD_GOES_ON_S = 0.012, 0.7


def start(world: World, healthy: Healthy) -> Injection:
    """Stops the service and lets it go on in turn."""
    pid = world.service.pid
    stopped_s, goes_on_s = STOPPED_S * strength(world.options, "process_stopped"), GOES_ON_S
    if world.options.mild:
        stopped_s, goes_on_s = MILD_STOPPED_S, MILD_GOES_ON_S
    ended = threading.Event()
    stop = partial(_stop_in_turn, pid, stopped_s, goes_on_s, ended)
    thread = threading.Thread(target=stop, daemon=True)
    thread.start()

    def undo() -> None:
        ended.set()
        thread.join()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    text = f"process {pid} is stopped for {stopped_s * 1000:.0f} ms at a time"
    return Injection(text, "process", str(pid), undo)


def _stop_in_turn(pid: int, stopped_s: float, goes_on_s: float, ended: threading.Event) -> None:
    with contextlib.suppress(ProcessLookupError):
        while not ended.wait(goes_on_s):
            os.kill(pid, signal.SIGSTOP)
            ended.wait(stopped_s)
            os.kill(pid, signal.SIGCONT)
