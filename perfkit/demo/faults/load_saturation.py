"""A second crowd of clients asks for many times more than the service can answer."""

from __future__ import annotations

from msgspec import structs

from perfkit.demo.injection import Healthy, Injection
from perfkit.demo.world import Child, World, strength, to_arguments

NEEDS_ROOT = False
RATE_HERTZ = 800.0
CONNECTION_COUNT = 16


def start(world: World, healthy: Healthy) -> Injection:
    """Starts a second load beside the first; mild, it asks about as much as the first does."""
    rate_hertz = RATE_HERTZ * strength(world.options, "load_saturation")
    options = structs.replace(
        world.options.load,
        rate_hertz=rate_hertz,
        connection_count=CONNECTION_COUNT,
        seed=world.options.seed + 1,
    )
    crowd = Child("load", to_arguments(options))
    crowd.wait_port()
    crowd.hear(lambda report: None)
    text = f"{rate_hertz:.0f} more requests/s over {CONNECTION_COUNT} more connections"
    return Injection(text, "none", "", crowd.stop)
