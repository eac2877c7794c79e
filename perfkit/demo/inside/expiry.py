"""A cache of many small objects, and an expiry in the path of requests that collects garbage."""

from __future__ import annotations

import gc
import itertools

from perfkit.demo.hooks import set_hook

_cache: list[list[object]] = []


def start(object_count: int, every: int) -> dict[str, str]:
    """Fills the cache, and has each so many-th request expire entries."""
    _cache.extend([number, {}] for number in range(object_count // 2))
    turns = itertools.count(1)

    def handle() -> None:
        if next(turns) % every == 0:
            expire_entries()

    set_hook("handle", handle)
    return {"function": expire_entries.__name__}


def stop() -> None:
    """Ends it and empties the cache."""
    set_hook("handle", None)
    _cache.clear()


def expire_entries() -> int:
    """Drops what nobody refers to any more; gives how many objects that were."""
    return gc.collect()
