"""The CPU limits that bind the target: its own cgroup's and those of every ancestor."""

from __future__ import annotations

from collections.abc import Iterator

from perfkit.collectors._cgroup import CgroupRef, cpu_chains, find_chain, read_mounts
from perfkit.errors import Unavailable
from perfkit.host import Host
from perfkit.model import Collector, Column, ColumnType, Row, TableSchema, Target

FILE_LIMIT_BYTES = 4096
LARGEST = (1 << 63) - 1
CGROUPS = TableSchema(
    "cgroups",
    (
        Column("t_ns", "ns"),
        Column("cgroup_index", help="the number that cgroup_ticks uses"),
        Column("path", type=ColumnType.TEXT, help="relative to the recording cgroup namespace"),
        Column("version", help="1 or 2"),
        Column("depth", help="path components; 0 is the root of the namespace"),
        Column("quota_us", "us", help="-1: no quota"),
        Column("period_us", "us", help="-1: not read"),
        Column("weight", help="cpu.weight (v2) or cpu.shares (v1); -1: not read"),
        Column("is_own", help="1: a process of the target is in it; 0: an ancestor"),
        Column("cpuset", type=ColumnType.TEXT, help="effective CPUs; empty: not known"),
    ),
    source="cpu.max, cpu.weight, cpuset.cpus.effective (v2); cpu.cfs_quota_us, cpu.cfs_period_us,"
    " cpu.shares, cpuset.effective_cpus (v1)",
    help="One row per cgroup at the start, and another whenever a limit was changed.",
)


def parse_max(text: str) -> tuple[int, int]:
    """Reads cpu.max: quota (-1 for "max") and period, both in us; -1 for what is malformed."""
    quota, _, period = text.strip().partition(" ")
    return parse_count(quota), parse_count(period)


def parse_count(text: str) -> int:
    """Reads a whole number; -1 for "max", -1, too large a number, or anything else."""
    word = text.strip()
    return min(int(word), LARGEST) if word.isdecimal() and len(word) < 20 else -1


def read_limits(host: Host, ref: CgroupRef) -> tuple[int, int, int]:
    """Quota, period and weight of one cgroup; the root has none."""
    if ref.version == 2:
        quota_us, period_us = parse_max(_read(host, ref, "cpu.max"))
        return quota_us, period_us, parse_count(_read(host, ref, "cpu.weight"))
    names = ("cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.shares")
    quota_us, period_us, weight = (parse_count(_read(host, ref, name)) for name in names)
    return quota_us, period_us, weight


def _read(host: Host, ref: CgroupRef, name: str) -> str:
    try:
        return host.read_path(f"{ref.folder}/{name}", FILE_LIMIT_BYTES)
    except Unavailable:
        return ""


class _Session:
    """Remembers the last row of each cgroup, so that only changes are told."""

    def __init__(self, host: Host, target: Target) -> None:
        self._host, self._target = host, target
        self._told: dict[int, tuple[int | str, ...]] = {}
        self._refs = cpu_chains(host, target)
        if not self._refs:
            raise Unavailable("no cgroup file system shows the target's cpu controller")
        self._cpusets = self._find_cpusets()

    def poll(self) -> Iterator[Row]:
        t_ns = self._host.now_ns()
        for ref in self._refs:
            values = (
                ref.index,
                ref.path,
                ref.version,
                ref.depth,
                *read_limits(self._host, ref),
                int(ref.is_own),
                self._read_cpuset(ref),
            )
            if self._told.get(ref.index) != values:
                self._told[ref.index] = values
                yield Row(CGROUPS.name, (t_ns, *values))

    def close(self) -> tuple[()]:
        return ()

    def _find_cpusets(self) -> dict[int, CgroupRef]:
        """Where the cpuset controller has a hierarchy of its own (v1), the leaf's folder in it."""
        own = {ref.path: ref.index for ref in self._refs if ref.is_own}
        mounts = read_mounts(self._host)
        found: dict[int, CgroupRef] = {}
        for process in self._target.processes:
            index = own.get(process.cgroup)
            if index is None or index in found:
                continue
            for path, folder, version in find_chain(self._host, mounts, process.pid, "cpuset")[:1]:
                found[index] = CgroupRef(index, path, version, 0, True, folder)
        return found

    def _read_cpuset(self, ref: CgroupRef) -> str:
        place = ref if ref.version == 2 else self._cpusets.get(ref.index)
        if place is None:
            return ""
        name = "cpuset.cpus.effective" if place.version == 2 else "cpuset.effective_cpus"
        return _read(self._host, place, name).strip()


COLLECTOR = Collector(
    "cgroup",
    metrics=(),
    tables=(CGROUPS,),
    scope="target",
    interval_s=2.0,
    timeout_s=0.3,
    open=_Session,
)
