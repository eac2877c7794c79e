"""Each request hands its steps one by one to a thread of an encoder, and waits for each result."""

from __future__ import annotations

import queue
import threading
import time

from perfkit.demo.hooks import set_hook

STEP_KEYS = 20
_encoders = threading.local()


class Encoder:
    """A thread that does one step at a time for the thread that made it."""

    def __init__(self) -> None:
        self.asked: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.answered: queue.SimpleQueue[int] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="encoder", daemon=True).start()

    def _work(self) -> None:
        while True:
            key = self.asked.get()
            self.answered.put(sum(range(key, key + STEP_KEYS)))


def start(relay_s: float) -> dict[str, str]:
    """Has each request hand steps over for so long; gives the function's name."""

    def handle() -> None:
        encode_candidates(relay_s)

    set_hook("handle", handle)
    return {"function": encode_candidates.__name__}


def stop() -> None:
    """Ends it."""
    set_hook("handle", None)


def encode_candidates(relay_s: float) -> int:
    """Has the encoder of this thread encode candidates, each by itself."""
    encoder = getattr(_encoders, "encoder", None)
    if encoder is None:
        encoder = _encoders.encoder = Encoder()
    total, end_s = 0, time.monotonic() + relay_s
    while time.monotonic() < end_s:
        encoder.asked.put(total & 0xFF)
        total += encoder.answered.get()
    return total
