"""What one can ask of the demo: how the service is built, how it is loaded, what to do then."""

from __future__ import annotations

from msgspec import Struct

FRONTS = "perfkit.demo.fronts"
FAULTS = "perfkit.demo.faults"
INSIDE = "perfkit.demo.inside"


class ServiceOptions(Struct, frozen=True):
    """How one service is set up; `shard_ports` are the embedding shards on this machine."""

    front: str = "threads"
    shard_ports: tuple[int, ...] = ()
    features_path: str = ""
    worker_count: int = 8
    candidate_count: int = 1024
    pad_bytes: int = 0
    seed: int = 1


class LoadOptions(Struct, frozen=True):
    """The load on one service; `rate_hertz` and `arrivals` are of the open loop."""

    port: int = 0
    loop: str = "open"
    arrivals: str = "poisson"
    rate_hertz: float = 40.0
    connection_count: int = 16
    think_s: float = 0.0
    seed: int = 1


class WorldOptions(Struct, frozen=True):
    """What to start; ports and paths are filled in when they are known."""

    service: ServiceOptions = ServiceOptions()
    load: LoadOptions = LoadOptions()
    seed: int = 1
    mild: bool = False


class Plan(Struct, frozen=True):
    """What to do with a world once it runs; no fault named means the default one."""

    fault: str | None = None
    warm_up_s: float = 4.0
    seconds: float = 30.0
    diagnose: bool = False
    exec: str = ""
    out: str = "demo-out"
    state_file: str = ""
