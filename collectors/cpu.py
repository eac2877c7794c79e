"""How the host's CPUs spent their time, and how many tasks want to run."""

from __future__ import annotations

import math
from collections.abc import Iterator

from perfkit.collectors._proc import TICKS_PER_SECOND, is_count
from perfkit.errors import Unavailable
from perfkit.host import Host
from perfkit.model import Collector, Kind, Metric, Reading, Target, polled

MODES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
CPU_LIMIT = 500
LOAD_LIMIT_BYTES, LOAD_LIMIT, LOAD_MAX = 256, 32, 1e9
# Lines of /proc/stat with one number.
SINGLES = {"ctxt": "cpu_context_switches_total", "procs_running": "cpu_runnable_tasks"}
METRICS = (
    Metric(
        "cpu_seconds_total",
        Kind.COUNTER,
        "seconds",
        source="/proc/stat, cpuN, columns 1 to 8 (guest time is within user and nice)",
        help="Time that each CPU spent in each mode, in steps of 10 ms.",
        labels=("cpu", "mode"),
    ),
    Metric(
        "cpu_context_switches_total",
        Kind.COUNTER,
        "",
        source="/proc/stat, ctxt",
        help="Context switches of the whole host since boot.",
    ),
    Metric(
        "cpu_runnable_tasks",
        Kind.GAUGE,
        "",
        source="/proc/stat, procs_running",
        help="Tasks that run or wait for a CPU at this moment, perfkit's own reader included.",
    ),
    Metric(
        "host_load1",
        Kind.GAUGE,
        "",
        source="/proc/loadavg, field 1",
        help="Tasks runnable or in uninterruptible sleep, averaged over a minute.",
    ),
)


def parse_stat(text: str) -> Iterator[Reading]:
    """Reads /proc/stat. Missing: columns that an old kernel lacks give no reading."""
    cpu_count = 0
    for line in text.splitlines():
        name, *fields = line.split() or [""]
        if name.startswith("cpu") and name[3:].isdecimal() and cpu_count < CPU_LIMIT:
            cpu_count += 1
            for mode, ticks in zip(MODES, filter(is_count, fields), strict=False):
                yield Reading("cpu_seconds_total", (name[3:], mode), int(ticks) / TICKS_PER_SECOND)
        elif name in SINGLES and fields and is_count(fields[0]):
            yield Reading(SINGLES[name], (), float(fields[0]))


def parse_load1(text: str) -> float:
    """Reads the first average of /proc/loadavg. Raises: `Unavailable` where there is none."""
    word = text[:LOAD_LIMIT].partition(" ")[0]
    try:
        load1 = float(word)
    except ValueError:
        load1 = math.nan
    if not 0 <= load1 < LOAD_MAX:
        raise Unavailable(f"/proc/loadavg cannot be understood: {word!r}")
    return load1


def read(host: Host, target: Target) -> Iterator[Reading]:
    """Reads /proc/stat and the load average."""
    del target
    yield from parse_stat(host.read_proc("stat"))
    yield Reading("host_load1", (), parse_load1(host.read_proc("loadavg", LOAD_LIMIT_BYTES)))


COLLECTOR = Collector(
    "cpu",
    metrics=METRICS,
    tables=(),
    scope="host",
    interval_s=2.0,
    timeout_s=0.2,
    open=polled(read),
)
