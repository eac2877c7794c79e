"""Bursts of requests with a text on which a pattern goes back and tries again, very often."""

from __future__ import annotations

import re
import time

from perfkit.demo.hooks import set_hook

PERIOD_S = 3.0
BURST_S = 1.2
# Each character more doubles the number of ways in which a text fails to match.
PATTERN = re.compile(r"(?:a+)+!")
LENGTH_MIN, LENGTH_MAX = 12, 28


def start(burn_s: float) -> dict[str, str]:
    """Has each request of a burst match a text that takes about `burn_s` in all."""
    text, count = _make_text(burn_s)

    def handle() -> None:
        if time.monotonic() % PERIOD_S < BURST_S:
            check_query(text, count)

    set_hook("handle", handle)
    return {"function": check_query.__name__}


def stop() -> None:
    """Ends the bursts."""
    set_hook("handle", None)


def check_query(text: str, count: int) -> bool:
    """Whether a text is one that the pattern allows, for each of so many parts of a query."""
    return all(PATTERN.match(text) is None for _ in range(count))


def _make_text(burn_s: float) -> tuple[str, int]:
    """A text and how often to match it, to take so long on this machine."""
    length, took_s = LENGTH_MIN, 0.0
    while length < LENGTH_MAX and took_s < burn_s / 4:
        length += 1
        began = time.thread_time()
        PATTERN.match("a" * length)
        took_s = time.thread_time() - began
    return "a" * length, max(1, round(burn_s / max(took_s, 1e-6)))
