"""What the host's disks did: reads, writes and flushes, and the time that they took."""

from __future__ import annotations

from collections.abc import Iterator

from perfkit.errors import Unavailable
from perfkit.host import Host
from perfkit.model import (
    Collector,
    Column,
    ColumnType,
    Item,
    Row,
    Rows,
    TableSchema,
    Target,
)

SECTOR_BYTES = 512  # of /proc/diskstats, whatever the device's own is
NS_PER_MS = 1_000_000
DEVICE_LIMIT = 64
FIELD_LIMIT = 20
LARGEST = (1 << 61) // NS_PER_MS
DISKS = TableSchema(
    "disks",
    (
        Column("t_ns", "ns"),
        Column("device", type=ColumnType.TEXT),
        Column("number", type=ColumnType.TEXT, help="major:minor, as in cgroup_io"),
        Column("reads"),
        Column("read_bytes", "bytes"),
        Column("read_ns", "ns", help="summed over requests, waiting included"),
        Column("writes"),
        Column("write_bytes", "bytes"),
        Column("write_ns", "ns", help="summed over requests, waiting included"),
        Column("in_flight", help="requests at this moment"),
        Column("busy_ns", "ns", help="time with at least one request in flight"),
        Column("queue_ns", "ns", help="time weighted with the requests in flight"),
        Column("flushes", help="-1: not told (before Linux 5.5)"),
        Column("flush_ns", "ns", help="summed over flushes; -1: not told"),
    ),
    source="/proc/diskstats (in steps of 1 ms), /sys/block",
    help="Counters since boot of every physical device, at most 64, every two seconds.",
)


def parse_diskstats(text: str) -> Iterator[tuple[str, str, list[int]]]:
    """Reads /proc/diskstats: name, major:minor and counters of each line."""
    for line in text.splitlines():
        words = line.split(None, FIELD_LIMIT)[:FIELD_LIMIT]
        if len(words) >= 14 and all(word.isdecimal() for word in (*words[:2], *words[3:])):
            counters = [min(int(word[:19]), LARGEST) for word in words[3:]]
            yield words[2], f"{words[0]}:{words[1]}", counters


def to_values(counters: list[int]) -> tuple[int, ...]:
    """The counters of one device in the order of the table's columns."""
    reads, _, read_sectors, read_ms, writes, _, written_sectors, write_ms = counters[:8]
    in_flight, busy_ms, queue_ms = counters[8:11]
    flushes, flush_ms = counters[15:17] if len(counters) >= 17 else (-1, -1)
    return (
        reads,
        read_sectors * SECTOR_BYTES,
        read_ms * NS_PER_MS,
        writes,
        written_sectors * SECTOR_BYTES,
        write_ms * NS_PER_MS,
        in_flight,
        busy_ms * NS_PER_MS,
        queue_ms * NS_PER_MS,
        flushes,
        flush_ms * NS_PER_MS if flush_ms >= 0 else -1,
    )


def list_physical(host: Host) -> frozenset[str]:
    """The names of devices that have hardware behind them; partitions and loops have none."""
    found = set()
    for name in host.list_sys("block"):
        try:
            host.list_sys(f"block/{name}/device")
        except Unavailable:
            continue
        found.add(name.replace("!", "/"))
    return frozenset(found)


class _Session:
    """Knows since the start which devices are physical."""

    def __init__(self, host: Host, target: Target) -> None:
        del target
        self._host = host
        self._physical = list_physical(host)
        if not self._physical:
            raise Unavailable("this host shows no physical disk")

    def poll(self) -> Iterator[Item]:
        t_ns = self._host.now_ns()
        devices = parse_diskstats(self._host.read_proc("diskstats"))
        found = [one for one in devices if one[0] in self._physical]
        for name, number, counters in found[:DEVICE_LIMIT]:
            yield Row(DISKS.name, (t_ns, name, number, *to_values(counters)))
        if len(found) > DEVICE_LIMIT:
            yield Rows(DISKS.name, (), 0, len(found) - DEVICE_LIMIT)

    def close(self) -> tuple[()]:
        return ()


COLLECTOR = Collector(
    "disk",
    metrics=(),
    tables=(DISKS,),
    scope="host",
    interval_s=2.0,
    timeout_s=0.2,
    open=_Session,
)
