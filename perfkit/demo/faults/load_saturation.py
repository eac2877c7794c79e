"""A second crowd of clients asks for many times more than the service can answer."""

from __future__ import annotations

from msgspec import structs

from perfkit.demo.injection import Healthy, Injection
from perfkit.demo.options import ServiceOptions, WorldOptions
from perfkit.demo.world import Child, World, strength, to_arguments

NEEDS_ROOT = False
RATE_HERTZ = 800.0
CONNECTION_COUNT = 16
# Fewer workers than this are a limit of their own.
WORKER_COUNT = 24


def prepare(options: WorldOptions) -> WorldOptions:
    """Gives the service more workers than it can find work for."""
    is_default = options.service.worker_count == ServiceOptions().worker_count
    count = WORKER_COUNT if is_default else options.service.worker_count
    return structs.replace(options, service=structs.replace(options.service, worker_count=count))


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
