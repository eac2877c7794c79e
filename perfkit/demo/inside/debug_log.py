"""Bursts of requests that log every candidate at debug level, with the level left at debug."""

from __future__ import annotations

import logging
import os
import time

from perfkit.demo.hooks import set_hook

PERIOD_S = 3.0
BURST_S = 1.2
FILE_LIMIT_BYTES = 64 << 20
TRIAL_COUNT = 200
_log = logging.getLogger("candidates")
_handlers: list[logging.Handler] = []


def start(path: str, burn_s: float) -> dict[str, str]:
    """Has each request of a burst log lines that take about `burn_s` of CPU time in all."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    file = os.fdopen(descriptor, "w")
    handler = logging.StreamHandler(file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    _handlers.append(handler)
    _log.addHandler(handler)
    _log.propagate = False
    _log.setLevel(logging.DEBUG)
    log_candidates(TRIAL_COUNT)  # the first ones are dearer
    began = time.thread_time()
    log_candidates(TRIAL_COUNT)
    line_s = max((time.thread_time() - began) / TRIAL_COUNT, 1e-6)
    line_count = max(1, round(burn_s / line_s))

    def handle() -> None:
        if time.monotonic() % PERIOD_S < BURST_S:
            log_candidates(line_count)
        elif file.tell() > FILE_LIMIT_BYTES:
            file.seek(0)

    set_hook("handle", handle)
    return {"function": log_candidates.__name__}


def stop() -> None:
    """Ends the bursts."""
    set_hook("handle", None)


def log_candidates(count: int) -> None:
    """Logs so many candidates."""
    for number in range(count):
        _log.debug("candidate %d scored %.4f", number, number / (number + 1))
