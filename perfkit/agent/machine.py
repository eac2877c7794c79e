"""What the host is, and the anchors that tie its monotonic clock to UTC."""

from __future__ import annotations

import threading
import time

from msgspec import Struct

from perfkit.agent.aside import call_aside
from perfkit.collectors._proc import parse_cpu_list, parse_status
from perfkit.errors import Unavailable
from perfkit.host import Host
from perfkit.model import Machine

ANCHOR_TRY_COUNT = 5
MACHINE_LIMIT_S = 0.5


class Anchor(Struct, frozen=True):
    """One instant on both clocks."""

    monotonic_ns: int
    utc_ns: int


def read_anchor(host: Host) -> Anchor:
    """Reads both clocks, of several tries the one in which least time lay between the reads."""
    best: tuple[int, Anchor] | None = None
    for _ in range(ANCHOR_TRY_COUNT):
        before_ns = host.now_ns()
        utc_ns = time.time_ns()
        after_ns = host.now_ns()
        anchor = Anchor((before_ns + after_ns) // 2, utc_ns)
        if best is None or after_ns - before_ns < best[0]:
            best = after_ns - before_ns, anchor
    assert best is not None
    return best[1]


def read_machine(host: Host) -> Machine:
    """Reads the CPU model, CPU count, kernel and memory; "" and 0 for what cannot be read."""
    cpu_text, memory = _read(host, "cpuinfo"), parse_status(_read(host, "meminfo"))
    total = memory.get("MemTotal", "0").split()[:1]
    return Machine(
        cpu_model=parse_status(cpu_text).get("model name", ""),
        cpu_count=_count_cpus(host, cpu_text),
        kernel=_read(host, "sys/kernel/osrelease").strip(),
        memory_bytes=int(total[0]) << 10 if total and total[0].isdecimal() else 0,
    )


def read_machine_aside(host: Host) -> Machine:
    """What `read_machine` reads, or nothing where it does not answer in time.

    In a container these files may be served by a program of the host (lxcfs), which can hang.
    """
    found: list[Machine] = []
    reader = threading.Thread(
        target=lambda: found.append(read_machine(host)), name="perfkit machine", daemon=True
    )
    reader.start()
    reader.join(MACHINE_LIMIT_S)
    return found[0] if found else Machine("", 0, "", 0)


def read_host_name(host: Host) -> str:
    """The host's own name for itself; "" where it cannot be read."""
    return call_aside(host, lambda watched: _read(watched, "sys/kernel/hostname").strip())


def read_boot_id(host: Host) -> str:
    """The id of this boot, by which two captures are known to share a monotonic clock."""
    return call_aside(host, lambda watched: _read(watched, "sys/kernel/random/boot_id").strip())


def _count_cpus(host: Host, cpu_text: str) -> int:
    try:
        online = parse_cpu_list(host.read_sys("devices/system/cpu/online"))
    except Unavailable:
        online = frozenset()
    return len(online) or sum(key.startswith("processor") for key in cpu_text.splitlines())


def _read(host: Host, relative: str) -> str:
    try:
        return host.read_proc(relative)
    except Unavailable:
        return ""
