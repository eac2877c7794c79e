"""The service: opens its listening socket, starts a front, and obeys the supervisor."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import Struct

from perfkit import discover
from perfkit.demo import control
from perfkit.demo.options import FRONTS, INSIDE, ServiceOptions
from perfkit.demo.pipeline import Ranker, make_ranker, rank

BACKLOG_COUNT = 128


class Parts(Struct, frozen=True):
    """What a front serves with: an open listener, the features file, the model."""

    options: ServiceOptions
    listener: socket.socket
    features: int
    ranker: Ranker


Front = Callable[[Parts, Callable[[], None]], None]


def obey(order: dict[str, Any]) -> dict[str, Any]:
    """Carries out an order of the supervisor: starts what `start` names, or stops it."""
    settings = dict(order)
    name = settings.pop("start", None)
    if name is None:
        discover.load(INSIDE, order["stop"], "stop")()
        return {}
    started: dict[str, Any] = discover.load(INSIDE, name, "start")(**settings)
    return started


def main(options: ServiceOptions) -> None:
    """Serves until the supervisor goes away."""
    control.allow_tracing()
    listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG_COUNT)
    ranker = make_ranker(options.seed, options.candidate_count)
    # The first product loads the BLAS kernels; do it before the first request comes.
    rank(ranker, [ranker.items[0, :32]])
    features = os.open(Path(options.features_path), os.O_RDONLY | os.O_CLOEXEC)
    parts = Parts(options, listener, features, ranker)
    serve: Front = discover.load(FRONTS, options.front, "serve")

    def ready() -> None:
        control.announce(port=listener.getsockname()[1])
        control.obey_in_thread(obey)

    serve(parts, ready)
