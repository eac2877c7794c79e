"""One of the embedding shards answers some 25 ms late; its machine and the path are fine."""

from __future__ import annotations

import contextlib

from perfkit.demo.injection import Healthy, Injection
from perfkit.demo.world import DemoError, World, strength

NEEDS_ROOT = False
DELAY_S = 0.025


def start(world: World, healthy: Healthy) -> Injection:
    """Makes the shard that the seed picks answer late."""
    delay_s = DELAY_S * strength(world.options, "downstream_slow")
    index = world.options.seed % len(world.shards)
    shard = world.shards[index]
    shard.order(delay_s=delay_s)

    def undo() -> None:
        with contextlib.suppress(DemoError):
            shard.order(delay_s=0.0)

    peer = f"127.0.0.1:{world.shard_ports[index]}"
    return Injection(f"shard {peer} answers {delay_s * 1000:.0f} ms late", "peer", peer, undo)
