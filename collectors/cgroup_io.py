"""The disk limits that bind the target, its own cgroup's and every ancestor's, and their use."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from perfkit.collectors._cgroup import CgroupRef
from perfkit.collectors._chains import controller_chains, read_file
from perfkit.host import Host
from perfkit.model import Collector, Column, ColumnType, Item, Row, Rows, TableSchema, Target

DEVICE_LIMIT = 64
LARGEST = 1 << 61
COUNTED = ("read_bytes", "write_bytes", "reads", "writes")
LIMITS = (
    "read_bytes_per_second_max",
    "write_bytes_per_second_max",
    "reads_per_second_max",
    "writes_per_second_max",
)
# Names of the same things in io.stat and io.max, and in the files of version 1.
STAT_2: dict[str, str] = dict(zip(("rbytes", "wbytes", "rios", "wios"), COUNTED, strict=True))
MAX_2: dict[str, str] = dict(zip(("rbps", "wbps", "riops", "wiops"), LIMITS, strict=True))
MAX_1: dict[str, str] = dict(
    zip(
        ("read_bps_device", "write_bps_device", "read_iops_device", "write_iops_device"),
        LIMITS,
        strict=True,
    )
)
STAT_1 = {"io_service_bytes": COUNTED[:2], "io_serviced": COUNTED[2:]}
CGROUP_IO = TableSchema(
    "cgroup_io",
    (
        Column("t_ns", "ns"),
        Column("path", type=ColumnType.TEXT),
        Column("version", help="1 or 2"),
        Column("is_own", help="1: a process of the target is in it; 0: an ancestor"),
        Column("device", type=ColumnType.TEXT, help="major:minor"),
        Column("read_bytes", "bytes"),
        Column("write_bytes", "bytes"),
        Column("reads"),
        Column("writes"),
        *(Column(name, "bytes" if "bytes" in name else "", help="-1: none") for name in LIMITS),
    ),
    source="io.stat, io.max (v2); blkio.throttle.io_service_bytes_recursive, io_serviced_recursive,"
    " read_bps_device and its like (v1)",
    help="A row per cgroup and device at the start, and whenever a number in it was changed.",
)


class DeviceUse(Struct, frozen=True):
    """What one cgroup did on one device, and how much it may."""

    counted: dict[str, int] = {}
    limits: dict[str, int] = {}

    def to_values(self) -> tuple[int, ...]:
        """In the order of the columns from read_bytes on."""
        counted = (self.counted.get(name, 0) for name in COUNTED)
        return (*counted, *(self.limits.get(name, -1) for name in LIMITS))


def _to_number(word: str) -> int:
    return min(int(word[:19]), LARGEST) if word.isdecimal() else -1


def parse_keyed(text: str, names: dict[str, str]) -> dict[str, dict[str, int]]:
    """Reads io.stat or io.max: a device, then name=number in any order; "max" is left out."""
    found: dict[str, dict[str, int]] = {}
    for line in text.splitlines():
        device, _, rest = line.partition(" ")
        pairs = (word.partition("=") for word in rest.split())
        numbers = {names[name]: _to_number(value) for name, _, value in pairs if name in names}
        if numbers and ":" in device:
            found[device] = {name: value for name, value in numbers.items() if value >= 0}
    return found


def parse_service(text: str, names: tuple[str, ...]) -> dict[str, dict[str, int]]:
    """Reads a file of version 1 with lines such as "8:0 Read 4096"."""
    found: dict[str, dict[str, int]] = {}
    kinds = dict(zip(("Read", "Write"), names, strict=True))
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[1] in kinds and words[2].isdecimal():
            found.setdefault(words[0], {})[kinds[words[1]]] = _to_number(words[2])
    return found


def parse_limit(text: str, name: str) -> dict[str, dict[str, int]]:
    """Reads a limit of version 1: a device and a number on each line."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: {name: _to_number(pair[1])} for pair in pairs if len(pair) == 2}


def read_use(host: Host, ref: CgroupRef) -> dict[str, DeviceUse]:
    """What one cgroup did on each device, and how much it may; idle, unlimited ones left out."""
    counted: dict[str, dict[str, int]] = {}
    limits: dict[str, dict[str, int]] = {}
    if ref.version == 2:
        counted = parse_keyed(read_file(host, ref, "io.stat"), STAT_2)
        limits = parse_keyed(read_file(host, ref, "io.max"), MAX_2)
    else:
        for name, kinds in STAT_1.items():
            # What is below counts as well, where the kernel tells (Linux 5.1).
            text = read_file(host, ref, f"blkio.throttle.{name}_recursive")
            text = text or read_file(host, ref, f"blkio.throttle.{name}")
            _merge(counted, parse_service(text, kinds))
        for name, limit in MAX_1.items():
            _merge(limits, parse_limit(read_file(host, ref, f"blkio.throttle.{name}"), limit))
    devices = sorted(counted.keys() | limits.keys())
    uses = {one: DeviceUse(counted.get(one, {}), limits.get(one, {})) for one in devices}
    return {one: use for one, use in uses.items() if use.limits or any(use.counted.values())}


def _merge(into: dict[str, dict[str, int]], found: dict[str, dict[str, int]]) -> None:
    for device, numbers in found.items():
        into.setdefault(device, {}).update(numbers)


class _Session:
    """Remembers what it told, so that devices at rest add nothing."""

    def __init__(self, host: Host, target: Target) -> None:
        self._host = host
        # Version 1 calls it blkio; where that is not in use, the unified hierarchy is found.
        self._refs = controller_chains(host, target, "blkio")
        self._told: dict[tuple[int, str], tuple[int, ...]] = {}

    def poll(self) -> Iterator[Item]:
        t_ns = self._host.now_ns()
        for ref in self._refs:
            uses = read_use(self._host, ref)
            for device, use in list(uses.items())[:DEVICE_LIMIT]:
                values = use.to_values()
                if self._told.get((ref.index, device)) != values:
                    self._told[ref.index, device] = values
                    head = (t_ns, ref.path, ref.version, int(ref.is_own), device)
                    yield Row(CGROUP_IO.name, (*head, *values))
            if len(uses) > DEVICE_LIMIT:
                yield Rows(CGROUP_IO.name, (), 0, len(uses) - DEVICE_LIMIT)

    def close(self) -> tuple[()]:
        return ()


COLLECTOR = Collector(
    "cgroup_io",
    metrics=(),
    tables=(CGROUP_IO,),
    scope="target",
    interval_s=2.0,
    timeout_s=0.3,
    open=_Session,
)
