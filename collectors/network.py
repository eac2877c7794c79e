"""The network as the service's namespace sees it: interfaces, TCP's counters, sockets, soft IRQs.

Our own /proc/net is never evidence about a service: it may lie in another namespace. What the
packets cost the CPUs (softnet) is the host's, wherever it is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import pairwise

from perfkit.collectors._proc import is_count, read_stat
from perfkit.errors import Unavailable
from perfkit.host import Host
from perfkit.model import Collector, Kind, Metric, ProcessRef, Reading, Target, polled

INTERFACE_LIMIT = 64
CPU_LIMIT = 512
PROCESS_LIMIT = 64
SOFTNET_LIMIT = 13
HEXADECIMAL = re.compile("[0-9a-f]{1,16}")
# Place in a line of net/dev, after the interface's name -> metric.
INTERFACE = {
    0: ("network_received_bytes_total", "bytes", "Bytes received."),
    1: ("network_received_packets_total", "packets", "Packets received."),
    2: ("network_receive_errors_total", "", "Packets received damaged."),
    3: ("network_receive_drops_total", "", "Packets received and dropped."),
    8: ("network_sent_bytes_total", "bytes", "Bytes sent."),
    9: ("network_sent_packets_total", "packets", "Packets sent."),
    10: ("network_send_errors_total", "", "Packets that could not be sent."),
    11: ("network_send_drops_total", "", "Packets dropped instead of being sent."),
}
# (file, protocol, field) -> metric, in the order of the files.
PROTOCOLS = {
    ("snmp", "Tcp", "ActiveOpens"): ("tcp_connects_total", "Connections opened."),
    ("snmp", "Tcp", "PassiveOpens"): ("tcp_accepts_total", "Connections taken in."),
    ("snmp", "Tcp", "AttemptFails"): ("tcp_connect_failures_total", "Attempts that failed."),
    ("snmp", "Tcp", "EstabResets"): ("tcp_resets_total", "Connections that were reset."),
    ("snmp", "Tcp", "InSegs"): ("tcp_received_segments_total", "Segments received."),
    ("snmp", "Tcp", "OutSegs"): ("tcp_sent_segments_total", "Segments sent."),
    ("snmp", "Tcp", "RetransSegs"): ("tcp_resent_segments_total", "Segments sent again."),
    ("snmp", "Tcp", "InErrs"): ("tcp_receive_errors_total", "Segments received damaged."),
    ("snmp", "Tcp", "OutRsts"): ("tcp_sent_resets_total", "Resets sent."),
    ("snmp", "Udp", "RcvbufErrors"): ("udp_receive_drops_total", "Datagrams without room."),
    ("netstat", "TcpExt", "ListenOverflows"): (
        "tcp_listen_overflows_total",
        "Connections that found the accept queue full.",
    ),
    ("netstat", "TcpExt", "ListenDrops"): (
        "tcp_listen_drops_total",
        "Connections dropped by a listener, for that or another reason.",
    ),
    ("netstat", "TcpExt", "TCPTimeouts"): ("tcp_timeouts_total", "Waits for an ACK in vain."),
    ("netstat", "TcpExt", "TCPBacklogDrop"): (
        "tcp_backlog_drops_total",
        "Segments dropped since the socket's owner was busy.",
    ),
    ("netstat", "TcpExt", "TCPOFOQueue"): (
        "tcp_out_of_order_segments_total",
        "Segments that came before those ahead of them.",
    ),
    ("netstat", "TcpExt", "TCPToZeroWindowAdv"): (
        "tcp_zero_windows_total",
        "Times that a reader let its window close.",
    ),
    ("netstat", "TcpExt", "TCPSynRetrans"): ("tcp_resent_syns_total", "Connects asked again."),
    ("netstat", "TcpExt", "TCPAbortOnMemory"): (
        "tcp_memory_aborts_total",
        "Connections ended for want of memory.",
    ),
}
# (file, protocol) -> fields with their metrics.
WANTED = {
    place: [(key[2], f"network_{name}") for key, (name, _) in PROTOCOLS.items() if key[:2] == place]
    for place in {key[:2] for key in PROTOCOLS}
}
SOCKETS = {"inuse": "in_use", "orphan": "orphan", "tw": "time_wait", "alloc": "allocated"}
SOFTIRQ = ("packets", "drops", "squeezes")


def _protocol_metric(key: tuple[str, str, str], name: str, words: str) -> Metric:
    unit = "segments" if "_segments_" in name else ""
    source = f"/proc/PID/net/{key[0]}, {key[1]} {key[2]}, in the service's namespace"
    return Metric(f"network_{name}", Kind.COUNTER, unit, source, words)


METRICS = (
    *(
        Metric(name, Kind.COUNTER, unit, "/proc/PID/net/dev", words, ("interface",))
        for name, unit, words in INTERFACE.values()
    ),
    *(_protocol_metric(key, name, words) for key, (name, words) in PROTOCOLS.items()),
    Metric(
        "network_tcp_sockets",
        Kind.GAUGE,
        "",
        source="/proc/PID/net/sockstat, TCP (alloc is the host's)",
        help="TCP sockets of the service's namespace.",
        labels=("state",),
    ),
    Metric(
        "network_tcp_memory_pages",
        Kind.GAUGE,
        "pages",
        source="/proc/PID/net/sockstat, TCP mem",
        help="Memory that TCP's buffers take on the whole host.",
    ),
    *(
        Metric(
            f"network_softirq_{what}_total",
            Kind.COUNTER,
            "packets" if what == "packets" else "",
            source=f"/proc/PID/net/softnet_stat, column {place + 1}",
            help=f"Soft interrupts of each CPU of the host: {words}.",
            labels=("cpu",),
        )
        for place, (what, words) in enumerate(
            zip(
                SOFTIRQ,
                (
                    "packets taken in",
                    "packets dropped for want of room",
                    "times that work was left over",
                ),
                strict=True,
            )
        )
    ),
)


def parse_interfaces(text: str) -> Iterator[Reading]:
    """Reads net/dev; the names of interfaces are whatever root has called them."""
    for line in text.splitlines()[: INTERFACE_LIMIT + 2]:
        name, separator, rest = line.rpartition(":")
        fields = rest.split()
        if separator and len(fields) >= 16 and all(map(is_count, fields)):
            for place, (metric, _, _) in INTERFACE.items():
                yield Reading(metric, (name.strip(),), float(fields[place]))


def parse_protocols(file: str, text: str) -> Iterator[Reading]:
    """Reads net/snmp or net/netstat, where a line of names goes before each line of numbers."""
    for head, body in pairwise(text.splitlines()):
        protocol = head.partition(":")[0]
        wanted = WANTED.get((file, protocol))
        if wanted is None or body.partition(":")[0] != protocol:
            continue
        numbers = dict(zip(head.split(), body.split(), strict=False))
        for name, metric in wanted:
            value = numbers.get(name, "")
            if is_count(value):
                yield Reading(metric, (), float(value))


def parse_sockets(text: str) -> Iterator[Reading]:
    """Reads net/sockstat: name and number in turn, for TCP."""
    for line in text.splitlines():
        words = line.split()
        if words[:1] != ["TCP:"]:
            continue
        for name, value in zip(words[1::2], words[2::2], strict=False):
            if name in SOCKETS and is_count(value):
                yield Reading("network_tcp_sockets", (SOCKETS[name],), float(value))
            elif name == "mem" and is_count(value):
                yield Reading("network_tcp_memory_pages", (), float(value))


def parse_softnet(text: str) -> Iterator[Reading]:
    """Reads net/softnet_stat: hexadecimal columns, a line per CPU that is online.

    Missing: what is still zero gives no reading. Column 13 tells the CPU (Linux 5.10); older
    kernels leave offline CPUs out without saying which.
    """
    for place, line in enumerate(text.splitlines()[:CPU_LIMIT]):
        words = line.split(None, SOFTNET_LIMIT)[:SOFTNET_LIMIT]
        if not all(HEXADECIMAL.fullmatch(word) for word in words):
            continue
        columns = [int(word, 16) for word in words]
        cpu = str(columns[12] if len(columns) > 12 else place)
        for what, value in zip(SOFTIRQ, columns, strict=False):
            if value:
                yield Reading(f"network_softirq_{what}_total", (cpu,), float(value))


FILES: dict[str, Callable[[str], Iterator[Reading]]] = {
    "dev": parse_interfaces,
    "snmp": lambda text: parse_protocols("snmp", text),
    "netstat": lambda text: parse_protocols("netstat", text),
    "sockstat": parse_sockets,
    "softnet_stat": parse_softnet,
}


def read(host: Host, target: Target) -> Iterator[Reading]:
    """Reads through the first process of the service that lives. Raises: `Unavailable`."""
    pid = find_alive(host, target)
    for name, parse in FILES.items():
        yield from parse(host.read_proc(f"{pid}/net/{name}"))


def find_alive(host: Host, target: Target) -> int:
    """The first process of the service that lives still. Raises: `Unavailable` for none."""
    for process in target.processes[:PROCESS_LIMIT]:
        if _is_alive(host, process):
            return process.pid
    raise Unavailable("no process of the service is left, so its network cannot be read")


def _is_alive(host: Host, process: ProcessRef) -> bool:
    try:
        stat = read_stat(host, process.pid)
    except Unavailable:
        return False
    return stat.start_ticks == process.start_ticks and not stat.is_gone


COLLECTOR = Collector(
    "network",
    metrics=METRICS,
    tables=(),
    scope="target",
    interval_s=2.0,
    timeout_s=0.3,
    open=polled(read),
)
