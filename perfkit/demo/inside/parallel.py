"""Each run of the model is done by many threads at once, as a careless OpenMP or BLAS does."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

from perfkit.demo.hooks import set_hook


def start(thread_count: int, rounds: int) -> dict[str, int]:
    """From now on every run of the model keeps `thread_count` threads busy."""
    pool = ThreadPoolExecutor(thread_count, "parallel")

    def work(_: int) -> None:
        hashlib.pbkdf2_hmac("sha256", b"work", b"salt", rounds)

    def run_all() -> None:
        for _ in pool.map(work, range(thread_count)):
            pass

    set_hook("model", run_all)
    return {}


def stop() -> None:
    """The model runs by itself again."""
    set_hook("model", None)
