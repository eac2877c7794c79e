"""What an injector is given and gives back."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from perfkit.demo.options import WorldOptions
from perfkit.demo.world import World


class Healthy(Struct, frozen=True):
    """What the service was like before the fault: the cores that its load needs."""

    cpu_ratio: float


class Injection(Struct, frozen=True):
    """A fault that is on. The culprit is what a right diagnosis names; `undo` is called once."""

    text: str
    culprit_kind: str
    culprit_name: str
    undo: Callable[[], None]


Start = Callable[[World, Healthy], Injection]
# What a fault makes of the world before it starts; what the user asked for stays.
Prepare = Callable[[WorldOptions], WorldOptions]
