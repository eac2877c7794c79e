"""Pressure stall information: time in which tasks waited for a CPU, for memory or for I/O."""

from __future__ import annotations

from collections.abc import Iterator

from perfkit.collectors._proc import is_count
from perfkit.errors import Unavailable
from perfkit.host import Host
from perfkit.model import Collector, Kind, Metric, Reading, Target, polled

RESOURCES = ("cpu", "memory", "io")
SCOPES = {"some": "at least one task waited", "full": "no task could run, all waited"}


def _metric(resource: str, scope: str) -> Metric:
    return Metric(
        f"pressure_{resource}_{scope}_seconds_total",
        Kind.COUNTER,
        "seconds",
        source=f"/proc/pressure/{resource}, {scope}, total (Linux 4.20; CONFIG_PSI)",
        help=f"Time in which {SCOPES[scope]} for {resource}, since boot.",
    )


METRICS = tuple(_metric(resource, scope) for resource in RESOURCES for scope in SCOPES)


def parse_pressure(text: str) -> dict[str, float]:
    """Reads the totals of a pressure file: scope -> seconds. Older kernels have no full for cpu."""
    totals = {}
    for line in text.splitlines():
        scope, *fields = line.split() or [""]
        total = fields[-1].removeprefix("total=") if fields else ""
        if scope in SCOPES and is_count(total):
            totals[scope] = int(total) / 1e6
    return totals


def read(host: Host, target: Target) -> Iterator[Reading]:
    """Reads all three resources. Raises: `Unavailable` where the kernel was built without PSI."""
    del target
    for resource in RESOURCES:
        try:
            text = host.read_proc(f"pressure/{resource}")
        except Unavailable as absent:
            grant = absent.grant or "a kernel with CONFIG_PSI, booted with psi=1"
            raise Unavailable(absent.reason, grant=grant) from absent
        totals = parse_pressure(text)
        if not totals:
            raise Unavailable(f"/proc/pressure/{resource} cannot be understood")
        for scope, seconds in totals.items():
            yield Reading(f"pressure_{resource}_{scope}_seconds_total", (), seconds)


COLLECTOR = Collector(
    "pressure",
    metrics=METRICS,
    tables=(),
    scope="host",
    interval_s=2.0,
    timeout_s=0.2,
    open=polled(read),
)
